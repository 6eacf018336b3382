package ui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// progress is the state at the last look of a stream, for rates.
type progress struct {
	at        time.Time
	succeeded int
}

// live sends the parts of a page that change, as server-sent events, until the reader
// leaves. The time between two looks grows with their cost, so that looking takes at
// most a fiftieth of a processor.
func (s *server) live(w http.ResponseWriter, r *http.Request, load func(*request) (*view, error)) {
	select {
	case s.streams <- struct{}{}:
		defer func() { <-s.streams }()
	default:
		w.Header().Set("Retry-After", "5")
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	out := http.NewResponseController(w)
	sent := map[string]string{}
	q := &request{Request: r}
	for {
		start := time.Now()
		changed, err := s.changes(q, load, sent)
		if err != nil {
			return // the reader tries again
		}
		if _, err := fmt.Fprintf(w, "data: %s\n\n", changed); err != nil || out.Flush() != nil {
			return
		}
		if !pause(r.Context(), max(s.Interval, 50*time.Since(start))) {
			return
		}
	}
}

// pause waits, and reports whether the context goes on.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// changes returns the parts that differ from those in sent, as JSON by their names.
func (s *server) changes(r *request, load func(*request) (*view, error), sent map[string]string) ([]byte, error) {
	v, err := s.load(r, load)
	if err != nil {
		return nil, err
	}
	changed := map[string]string{}
	for _, name := range v.Regions {
		var b bytes.Buffer
		if err := s.pages.ExecuteTemplate(&b, name, v); err != nil {
			return nil, err
		}
		if text := b.String(); sent[name] != text {
			sent[name], changed[name] = text, text
		}
	}
	return json.Marshal(changed)
}
