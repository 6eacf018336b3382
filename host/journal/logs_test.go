package journal

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// The log lines of all failed attempts of a run are bounded; the attempts are not.
func TestLogsAreBounded(t *testing.T) {
	const chunks = 1500
	m := store.NewMemory()
	job := store.JobRecord{ID: lateJob, Action: lateAction, Total: chunks, Spec: []byte(`{}`)}
	r, err := Begin(t.Context(), m, job, func(func([]byte) bool) {}, Process{}, func() []Lease { return nil }, false)
	if err != nil {
		t.Fatal(err)
	}
	logs := strings.Split(strings.Repeat(strings.Repeat("l", 1000)+",", 20), ",")
	for i := range chunks {
		r.Observe([]event.Event{{Kind: event.KindFailed, Chunk: i, Failure: &abi.Failure{Class: abi.ClassTrap, Message: "m", Stack: []string{"s"}, Logs: logs}}})
	}
	if err := r.End(t.Context(), []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	attempts, lines, size := 0, 0, 0
	for a, err := range m.Attempts(t.Context(), lateJob, 0, chunks) {
		var f FailedAttempt
		if err != nil || json.Unmarshal(a.Detail, &f) != nil || f.Message != "m" || len(f.Stack) != 1 {
			t.Fatalf("%s: %v", a.Detail, err)
		}
		attempts, lines, size = attempts+1, lines+len(f.Logs), size+len(a.Detail)
	}
	if attempts != chunks || lines < 20 || size > maxLogs+chunks*500+100_000 {
		t.Errorf("%d attempts with %d lines and %d bytes, want %d attempts and at most %d bytes of logs", attempts, lines, size, chunks, maxLogs)
	}
}
