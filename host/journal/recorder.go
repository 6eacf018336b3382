package journal

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Recorder records a run. It is an [event.Observer]: a goroutine writes failed
// attempts together with signs of life; Begin starts it, and End waits for it.
// Outputs come from workers through Finish.
//
// All methods but End are safe for concurrent use, and do nothing on a nil
// Recorder.
type Recorder struct {
	journal store.Journal
	run     store.RunKey
	active  func() []Lease
	known   intervals // chunks that earlier spans of the job have

	mu      sync.Mutex // guards failed, text, logs and err
	failed  []store.Attempt
	text    int   // size of the details of failed, in bytes
	logs    int   // size of all log lines that were recorded, in bytes
	err     error // first error of recording
	broken  chan error
	noting  sync.Mutex // one note at a time
	noteCtx context.Context
	held    *held // nil if the journal records nothing late
	quit    chan struct{}
	done    sync.WaitGroup
}

const (
	// firstSign is the delay of the first sign of life, and signOfLife the interval
	// between the following ones.
	firstSign  = 100 * time.Millisecond
	signOfLife = time.Second
	// maxFailed and maxText limit the failed attempts that are not noted yet: their
	// number, and the size of their details in bytes.
	maxFailed = 4096
	maxText   = 4 << 20
	// maxLogs limits the log lines in the failed attempts of a run, in bytes. Later
	// attempts have none: guests write them, and a job may have very many failures.
	maxLogs = 16 << 20
)

// Begin begins to record a run of a job. ids are as [EncodeIDs] yields them; active
// is called now and then until End, and returns the leases in progress. Values of
// ctx are used until End; its cancellation is ignored.
//
// If late is set and the journal is a [store.LateJournal], the events of the first
// 100 ms are recorded after them, or by End if that comes before: a short run is one
// commit. Finish then returns before anything is durable, so an observer of single
// outputs would hear of some that a crash may lose.
func Begin(ctx context.Context, j store.Journal, job store.JobRecord, ids iter.Seq[[]byte], p Process, active func() []Lease, late bool) (*Recorder, error) {
	info, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	r := &Recorder{
		journal: j, run: store.RunKey{Job: job.ID}, active: active, broken: make(chan error, 1),
		noteCtx: context.WithoutCancel(ctx), quit: make(chan struct{}),
	}
	if l, ok := j.(store.LateJournal); ok && late {
		r.held = newHeld(l, job, ids, info)
	} else if r.run, err = j.Begin(ctx, job, ids, info); err != nil {
		return nil, err
	}
	r.done.Go(r.live)
	return r, nil
}

// Job returns the id of the job, or the zero id if nothing is recorded.
func (r *Recorder) Job() (id store.JobID) {
	if r == nil {
		return id
	}
	return r.run.Job
}

// Recall loads the chunks that the job's spans already have. If the record is gone,
// there are none: if the store lost it with a damaged file, the run continues
// without them; if the job was deleted, Finish, which is called for every span,
// reports that. Recall may only be called before Finish.
func (r *Recorder) Recall(ctx context.Context) error {
	if r == nil {
		return nil
	}
	var known intervals
	for e, err := range r.journal.Extents(ctx, r.run.Job) {
		if errors.Is(err, store.ErrNoJob) {
			return nil
		}
		if err != nil {
			return err
		}
		known = append(known, interval{e.First, e.First + e.Count})
	}
	r.known = known.merged()
	return nil
}

// Finish stores outputs and records that the run has the outputs of a span. If
// there are no new outputs and the job has the span already, nothing is written.
func (r *Recorder) Finish(ctx context.Context, action store.Action, records []store.Record, s store.Span) error {
	if len(records) == 0 && (len(s.Chunks) == 0 || r.known.cover(interval{s.First, s.First + len(s.Chunks)})) {
		return nil
	}
	if held, full := r.held.add(action, records, s); held {
		if full { // Broken has its error, which is of others too
			r.flush(r.active(), nil)
		}
		return nil
	}
	s.Run = r.run.Number
	return r.journal.Finish(ctx, r.run, action, records, s)
}

// Keep keeps an output that is made of others while events are still to be recorded
// late; otherwise held is false, and nothing was done.
func (r *Recorder) Keep(action store.Action, record store.Record) (held bool) {
	if r == nil {
		return false
	}
	held, _ = r.held.add(action, []store.Record{record}, store.Span{})
	return held
}

// Broken delivers the first error of noting, when there is one.
func (r *Recorder) Broken() <-chan error {
	if r == nil {
		return nil
	}
	return r.broken
}

// live notes that the run goes on, until End.
func (r *Recorder) live() {
	timer := time.NewTimer(firstSign)
	defer timer.Stop()
	for {
		select {
		case <-r.quit:
			return
		case <-timer.C:
			if r.held.over() {
				r.note(r.active())
			} else {
				r.flush(r.active(), nil)
			}
			timer.Reset(signOfLife)
		}
	}
}

// note writes the failed attempts that are not noted yet, with a sign of life.
func (r *Recorder) note(leases []Lease) {
	r.noting.Lock()
	defer r.noting.Unlock()
	failed := r.takeFailed()
	active, err := json.Marshal(leases)
	if err == nil {
		err = r.journal.Note(r.noteCtx, r.run, active, failed)
	}
	if err != nil {
		r.fail(err)
	}
}

// takeFailed returns the failed attempts that are not noted yet.
func (r *Recorder) takeFailed() []store.Attempt {
	r.mu.Lock()
	defer r.mu.Unlock()
	failed := r.failed
	r.failed, r.text = nil, 0
	for i := range failed {
		failed[i].Run = r.run.Number
	}
	return failed
}

// fail says that something could not be recorded.
func (r *Recorder) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err == nil {
		r.err = err
		r.broken <- err
	}
}

// Progress implements [event.Observer].
func (r *Recorder) Progress(string, event.Counts) {}

// Wants implements [event.Observer].
func (r *Recorder) Wants() event.Detail { return event.Attempts }

// Observe implements [event.Observer]. It blocks while too many failed attempts are
// not noted yet.
func (r *Recorder) Observe(events []event.Event) {
	for i := range events {
		if events[i].Failure == nil || !r.failedAttempt(&events[i]) {
			continue
		}
		if r.held.over() {
			r.note(r.active())
		} else {
			r.flush(r.active(), nil)
		}
	}
}

// failedAttempt adds a failed attempt, and reports whether the waiting ones must be
// noted now.
func (r *Recorder) failedAttempt(e *event.Event) (full bool) {
	failure := *e.Failure
	if !r.mayLog(failure.Logs) {
		failure.Logs = nil
	}
	detail, err := json.Marshal(FailedAttempt{
		Failure: failure, Attempt: e.Attempt, Worker: e.Worker, Start: e.Time.Add(-e.Duration), End: e.Time, Fuel: e.Fuel,
	})
	if err != nil {
		panic(err) // It has only texts and numbers.
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, store.Attempt{
		Chunk: e.Chunk, Final: e.Kind == event.KindFailed, Class: string(e.Failure.Class), Detail: detail,
	})
	r.text += len(detail)
	return len(r.failed) >= maxFailed || r.text >= maxText
}

// mayLog reports whether log lines are recorded, and counts them.
func (r *Recorder) mayLog(lines []string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.logs >= maxLogs {
		return false
	}
	for _, line := range lines {
		r.logs += len(line)
	}
	return true
}

// End records the rest, and the end of the run. report is JSON, with the fields
// that package journal reads. The run is over then. If anything else could not be
// recorded, neither is the end: the error is that of the record, unless
// [Recorder.Broken] has delivered it, and Amend may follow.
func (r *Recorder) End(ctx context.Context, report []byte) error {
	if r == nil {
		return nil
	}
	close(r.quit)
	r.done.Wait()
	if r.held.over() {
		if len(r.failed) > 0 {
			r.note(nil)
		}
	} else if r.flush(nil, report); r.err == nil {
		return nil
	}
	if err := r.unheard(); err != nil {
		return err
	}
	return r.Amend(ctx, report)
}

// unheard returns the first error of recording, if Broken has not given it.
func (r *Recorder) unheard() error {
	select {
	case err := <-r.broken:
		return err
	default:
		return nil
	}
}

// Amend records another end of a run that is over.
func (r *Recorder) Amend(ctx context.Context, report []byte) error {
	if !r.held.over() {
		return nil // there is no run
	}
	return r.journal.End(ctx, r.run, report)
}

// cover reports whether merged intervals contain a whole interval.
func (x intervals) cover(i interval) bool {
	at, _ := slices.BinarySearchFunc(x, i, func(a, b interval) int {
		if a.to <= b.from {
			return -1
		}
		return 1
	})
	return at < len(x) && x[at].from <= i.from && i.to <= x[at].to
}
