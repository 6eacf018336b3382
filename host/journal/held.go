package journal

import (
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// maxHeld bounds the bytes of outputs that are not recorded yet.
const maxHeld = 4 << 20

// held is the start of a run that is recorded late. Its methods may be called of
// nil, which holds nothing.
type held struct {
	journal store.LateJournal

	mu    sync.Mutex
	start *store.RunStart // nil once it is recorded
	size  int             // of the outputs
}

func newHeld(j store.LateJournal, job store.JobRecord, ids iter.Seq[[]byte], info []byte) *held {
	return &held{journal: j, start: &store.RunStart{Job: job, IDs: ids, Info: info, Started: time.Now()}}
}

// over reports whether what happens is recorded when it happens.
func (h *held) over() bool {
	if h == nil {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.start == nil
}

// add takes in what Finish was given, of which it keeps a copy. full says that it is
// time to record it all.
func (h *held) add(action store.Action, records []store.Record, span store.Span) (taken, full bool) {
	if h == nil {
		return false, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.start == nil {
		return false, false
	}
	size := len(span.Detail)
	for i := range records {
		size += len(records[i].Order) + len(records[i].Output)
	}
	f := store.Finished{Action: action, Records: slices.Clone(records), Span: span}
	arena := make([]byte, 0, size)
	keep := func(b []byte) []byte {
		arena = append(arena, b...)
		return arena[len(arena)-len(b) : len(arena) : len(arena)]
	}
	for i := range f.Records {
		f.Records[i].Order, f.Records[i].Output = keep(f.Records[i].Order), keep(f.Records[i].Output)
	}
	f.Span.Chunks, f.Span.Detail = slices.Clone(span.Chunks), keep(span.Detail)
	h.start.Finished = append(h.start.Finished, f)
	h.size += size + len(records)*len(store.Record{}.Chunk)
	return true, h.size >= maxHeld
}

// Flush records what is not recorded yet of how the run began. The error is the first
// of recording, if Broken has not given it.
func (r *Recorder) Flush() error {
	if r == nil {
		return nil
	}
	if !r.held.over() {
		r.flush(r.active(), nil)
	}
	return r.unheard()
}

// flush records the start of the run, and its end if there is a report. Broken gives
// the error.
func (r *Recorder) flush(leases []Lease, report []byte) {
	r.noting.Lock()
	defer r.noting.Unlock()
	h := r.held
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.start == nil {
		return
	}
	active, err := json.Marshal(leases)
	if err != nil {
		panic(err) // it has only texts and numbers
	}
	h.start.Active, h.start.Report = active, report
	h.start.Failed = append(h.start.Failed, r.takeFailed()...)
	key, err := h.journal.BeginLate(r.noteCtx, h.start)
	if _, conflict := errors.AsType[*store.ConflictError](err); err == nil || conflict {
		r.run.Number, h.start = key.Number, nil
	}
	if err != nil {
		r.fail(err)
	}
}
