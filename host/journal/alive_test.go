package journal

import (
	"context"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// ending has a run whose process ends, and has recorded it, after the first read.
type ending struct {
	info  []byte
	reads int
}

func (e *ending) Runs(context.Context, store.JobID) ([]store.Run, error) {
	e.reads++
	run := store.Run{RunKey: store.RunKey{Number: 1}, Seen: time.Now(), Info: e.info}
	if e.reads > 1 {
		run.Ended = time.Now()
	}
	return []store.Run{run}, nil
}

// A process that ends while its run is read has not died.
func TestProcessEndsMeanwhile(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for pid, reads := range map[int]int{1 << 30: 2, os.Getpid(): 1} {
		info, err := json.Marshal(Process{Host: host, PID: pid})
		if err != nil {
			t.Fatal(err)
		}
		s := &ending{info: info}
		runs, living, err := ReadRuns(t.Context(), s, store.JobID{})
		if err != nil || s.reads != reads || runs[0].Ended.IsZero() != living[1] || living[1] != (reads == 1) {
			t.Errorf("process %d: %d reads, %+v, %v, %v", pid, s.reads, runs, living, err)
		}
	}
}
