package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/wasm-jobs/wasm-jobs/host"
)

const (
	// plainEvery is how often a line of progress comes where there is no
	// terminal to draw a bar on.
	plainEvery = 5 * time.Second
	// maxShown bounds the failures that are listed; the report has all.
	maxShown = 10
)

// screen shows a job to people, on stderr, and writes its events to a file. The
// scheduler and the store's callers use it at the same time.
type screen struct {
	mu       sync.Mutex // of what is drawn: bar, phase, start, last
	err      io.Writer
	mode     string // bar, plain or none
	logLevel int32
	bar      *progressbar.ProgressBar
	start    time.Time // of the phase
	phase    string
	last     time.Time // of a line of progress
	events   *bufio.Writer
	target   *target
}

func newScreen(c *console, o *runOptions) *screen {
	s := &screen{err: c.err, mode: o.progress, logLevel: o.logLevel, last: time.Now()}
	if s.mode == "auto" {
		s.mode = "plain"
		if f, ok := c.err.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			s.mode = "bar"
		}
	}
	if s.target = o.files.targets[o.files.events]; s.target != nil {
		out := s.target.out
		if out == nil {
			out = s.target.file
		}
		s.events = bufio.NewWriter(out)
	}
	return s
}

// say prints a line.
func (s *screen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.line(format, args...)
}

// Write prints what others say in whole lines, as say does.
func (s *screen) Write(lines []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	return s.err.Write(lines)
}

// line is say where mu is held.
func (s *screen) line(format string, args ...any) {
	if s.bar != nil {
		_ = s.bar.Clear()
	}
	fmt.Fprintf(s.err, "wasm-jobs: "+format+"\n", args...)
}

// scanned shows how far the scan of the chunk file is.
func (s *screen) scanned(bytes, total int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mode == "none" || time.Since(s.last) < plainEvery {
		return
	}
	s.last = time.Now()
	of := ""
	if total > 0 {
		of = fmt.Sprintf(" of %s", humanize.IBytes(uint64(total)))
	}
	s.line("reading chunks: %s%s", humanize.IBytes(uint64(bytes)), of)
}

// Progress implements [host.Observer].
func (s *screen) Progress(phase string, c host.Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if phase != s.phase {
		s.phase, s.start = phase, time.Now()
		s.clear()
	}
	done := c.Succeeded + c.Failed
	switch {
	case s.mode == "none" || phase != "execute" || c.Total == 0:
	case s.mode == "bar":
		if s.bar == nil {
			s.bar = progressbar.NewOptions(c.Total, progressbar.OptionSetWriter(s.err),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("chunks"),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(),
				progressbar.OptionSetPredictTime(true), progressbar.OptionClearOnFinish())
		}
		if c.Failed > 0 {
			s.bar.Describe(fmt.Sprintf("%d failed", c.Failed))
		}
		_ = s.bar.Set(done) // a bar that cannot be drawn harms nothing
	case time.Since(s.last) >= plainEvery:
		s.last = time.Now()
		rate := float64(done-c.Reused) / time.Since(s.start).Seconds()
		eta := "unknown"
		if rate > 0 {
			eta = time.Duration(float64(c.Total-done) / rate * float64(time.Second)).Round(time.Second).String()
		}
		s.line("%d/%d chunks (%d%%), %.0f/s, %d failed, ETA %s", done, c.Total, done*100/c.Total, rate, c.Failed, eta)
	}
}

// clear takes the bar away. mu is held.
func (s *screen) clear() {
	if s.bar != nil {
		_ = s.bar.Clear()
		s.bar = nil
	}
}

// Wants implements [host.Observer].
func (s *screen) Wants() bool { return s.events != nil || s.logLevel < 127 }

// Observe implements [host.Observer].
func (s *screen) Observe(events []host.Event) {
	for _, e := range events {
		if e.Kind == host.KindLog && e.Level >= s.logLevel {
			s.say("guest, chunk %v: %s", e.ID, e.Message)
		}
		if s.events != nil {
			line, _ := json.Marshal(e) // plain data
			s.events.Write(line)
			s.events.WriteByte('\n')
		}
	}
	if s.events != nil {
		s.events.Flush() // for who reads along; its error comes again at the end
	}
}

// finish ends the events file, and prints what became of the job.
func (s *screen) finish(result *host.Result) error {
	s.close()
	s.summarize(result)
	if s.events == nil {
		return nil
	}
	err := s.events.Flush()
	if s.target.out == nil {
		err = errors.Join(err, s.target.place())
	}
	return err
}

func (s *screen) summarize(result *host.Result) {
	r := &result.Report
	for i, f := range r.Failures {
		if i == maxShown {
			s.say("... and %d more failed; --report and --dead-letter have them all", len(r.Failures)-maxShown)
			break
		}
		s.say("chunk %v failed after %d attempts: %s: %s", f.ID, f.Attempts, f.Class, f.Message)
		for _, frame := range f.Stack[:min(len(f.Stack), 5)] {
			fmt.Fprintf(s.err, "    at %s\n", frame)
		}
	}
	if s.mode == "none" {
		return
	}
	c := r.Chunks
	pending := ""
	if left := c.Total - c.Succeeded - c.Failed; left > 0 {
		pending = fmt.Sprintf(", %d not run", left)
	}
	seconds := r.Phases.Compile + r.Phases.Prepare + r.Phases.Execute + r.Phases.Fold
	s.say("%d chunks: %d succeeded (%d reused), %d failed%s; %d attempts, %d workers, %.3gs",
		c.Total, c.Succeeded, c.Reused, c.Failed, pending, r.Attempts, r.Workers, seconds)
}

// close takes the bar away.
func (s *screen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}
