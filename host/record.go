package host

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// recorder writes down what happens in a run, where the store keeps records of
// jobs. Outputs are noted with their spans by the workers; failed attempts and
// the signs of life are noted by a goroutine of its own, which start starts and
// end waits for.
//
// All methods do nothing on a nil recorder.
type recorder struct {
	store store.Jobs
	run   store.RunKey
	known intervals // chunks that the job's spans have already

	mu     sync.Mutex
	leases []jobs.Lease
	failed []store.Attempt
	err    error // of noting, the first

	noting sync.Mutex // one note at a time
	quit   chan struct{}
	done   sync.WaitGroup
}

// intervals are the spans of chunks that a job has, ascending and apart.
type intervals []span

// have tells whether all of s is there.
func (x intervals) have(s span) bool {
	i, _ := slices.BinarySearchFunc(x, s, func(a, b span) int {
		if a.to <= b.from {
			return -1
		}
		return 1
	})
	return i < len(x) && x[i].from <= s.from && s.to <= x[i].to
}

const (
	// firstSign and signOfLife are when a run says what it is at.
	firstSign  = 100 * time.Millisecond
	signOfLife = time.Second
	// maxFailed bounds the failed attempts that are not noted yet.
	maxFailed = 4096
)

// begin records the run, and makes sure that it is the one of Job.Redrive.
func (r *run) begin(ctx context.Context) error {
	records, ok := r.store.(store.Jobs)
	id := r.jobID()
	switch {
	case r.Redrive != nil && (!ok || id != r.Redrive.Job):
		return fmt.Errorf("%w: %s was asked for, and this is %s", ErrOtherJob, jobs.Name(r.Redrive.Job)[:12], jobs.Name(id)[:12])
	case !ok:
		return nil
	}
	host, _ := os.Hostname() // without a name, it is one of those that have none
	info, err := json.Marshal(jobs.Process{Host: host, PID: os.Getpid(), Workers: r.config.Workers})
	if err != nil {
		return err
	}
	spec, err := json.Marshal(r.spec())
	if err != nil {
		return fmt.Errorf("host: Job.Command is no JSON: %w", err)
	}
	key, err := records.Begin(ctx, store.Job{
		ID: id, Action: r.action, Derived: []store.Action{foldAction(r.action), endAction(r.action)},
		Input: r.Chunks.Digest(), Total: r.counts.Total, Spec: spec,
	}, jobs.EncodeIDs(r.counts.Total, r.Chunks.ID), info)
	if err != nil {
		return &StoreError{err}
	}
	r.records = &recorder{store: records, run: key, quit: make(chan struct{})}
	r.records.start(context.WithoutCancel(ctx))
	return nil
}

// jobID is the digest of what a job is: the action of its outputs, and its
// input.
func (r *run) jobID() store.JobID {
	h := sha256.New()
	h.Write([]byte("wasm-jobs job 1\n"))
	h.Write(r.action[:])
	input := r.Chunks.Digest()
	h.Write(input[:])
	return store.JobID(h.Sum(nil))
}

// spec says what was submitted, with the defaults filled in.
func (r *run) spec() *jobs.Spec {
	module, s := r.module.Digest(), r.Settings
	spec := &jobs.Spec{
		Name: r.Name, Meta: r.Meta, Total: r.counts.Total, Command: r.Command,
		Module: jobs.Source{Path: r.ModulePath, Digest: digest(module)},
		Chunks: jobs.Source{Path: r.ChunksPath, Digest: digest(r.Chunks.Digest())},
		Settings: jobs.Settings{
			Seed: s.Seed, Memory: s.Memory, NativeNaNs: r.Options.NativeNaNs, NoMetering: r.Options.NoMetering,
			Fuel: s.Fuel, Timeout: s.Timeout, FoldTimeout: s.FoldTimeout, MaxOutput: s.MaxOutput, MaxAggregate: s.MaxAggregate,
			Isolation: string(s.Isolation), Retries: r.Retry.Retries, RetryOn: r.Retry.Classes, MaxRequeues: r.Retry.MaxRequeues,
		},
	}
	if spec.Name == "" {
		spec.Name = hex.EncodeToString(module[:6])
	}
	if spec.Settings.Memory == 0 {
		spec.Settings.Memory = runtime.DefaultMemory
	}
	if spec.Settings.RetryOn == nil {
		spec.Settings.RetryOn = DefaultRetryClasses()
	}
	spec.Settings.Command = commandSpec(&s.Command)
	if len(s.Context) > 0 {
		spec.Context = digest(sha256.Sum256(s.Context))
	}
	return spec
}

// recall reads which chunks the job's spans have already. A record that is not
// there any more has none: where the store lost it with a damaged file, the run
// goes on without; where the job was deleted, Finish says so, which every span
// then comes to.
func (rec *recorder) recall(ctx context.Context) error {
	if rec == nil {
		return nil
	}
	for e, err := range rec.store.Extents(ctx, rec.run.Job) {
		if errors.Is(err, store.ErrNoJob) {
			rec.known = nil
			return nil
		}
		if err != nil {
			return &StoreError{err}
		}
		last := len(rec.known) - 1
		if last >= 0 && e.First <= rec.known[last].to {
			rec.known[last].to = max(rec.known[last].to, e.First+e.Count)
			continue
		}
		rec.known = append(rec.known, span{e.First, e.First + e.Count})
	}
	return nil
}

func (rec *recorder) start(ctx context.Context) {
	rec.done.Go(func() {
		timer := time.NewTimer(firstSign)
		defer timer.Stop()
		for {
			select {
			case <-rec.quit:
				return
			case <-timer.C:
				rec.note(ctx)
				timer.Reset(signOfLife)
			}
		}
	})
}

// note writes down what is not noted yet, with a sign of life. A first error is
// kept for the next call of [recorder.failure].
func (rec *recorder) note(ctx context.Context) {
	rec.noting.Lock()
	defer rec.noting.Unlock()
	rec.mu.Lock()
	leases, failed := rec.leases, rec.failed
	rec.failed = nil
	rec.mu.Unlock()
	active, err := json.Marshal(leases)
	if err == nil {
		err = rec.store.Note(ctx, rec.run, active, failed)
	}
	if err != nil {
		rec.mu.Lock()
		defer rec.mu.Unlock()
		if rec.err == nil {
			rec.err = &StoreError{err}
		}
	}
}

// at notes which leases there are now.
func (rec *recorder) at(active map[*worker]*lease) {
	if rec == nil {
		return
	}
	leases := make([]jobs.Lease, 0, len(active))
	for w, l := range active {
		if s := l.rest(); s.to > l.from {
			leases = append(leases, jobs.Lease{Worker: w.id, From: l.from, To: s.to, Since: l.since})
		}
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.leases = leases
}

// attempt notes a failed attempt. It waits where too many are not noted yet.
func (rec *recorder) attempt(ctx context.Context, chunk int, e *Event, start, end time.Time) {
	if rec == nil {
		return
	}
	detail, err := json.Marshal(jobs.Failed{Failure: *e.Failure, Attempt: e.Attempt, Worker: e.Worker, Start: start, End: end})
	if err != nil {
		panic(err) // it has texts and numbers alone
	}
	rec.mu.Lock()
	rec.failed = append(rec.failed, store.Attempt{
		Run: rec.run.Number, Chunk: chunk, Final: e.Kind == KindFailed, Class: string(e.Failure.Class), Detail: detail,
	})
	full := len(rec.failed) >= maxFailed
	rec.mu.Unlock()
	if full {
		rec.note(ctx)
	}
}

// failure returns the first error of noting.
func (rec *recorder) failure() error {
	if rec == nil {
		return nil
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.err
}

// end writes down the rest, and how the run ended.
func (rec *recorder) end(ctx context.Context, report *Report) error {
	if rec == nil {
		return nil
	}
	close(rec.quit)
	rec.done.Wait()
	if len(rec.failed) > 0 {
		rec.leases = nil
		rec.note(ctx)
	}
	short := *report
	short.Failures = nil // they are noted one by one
	b, err := json.Marshal(&short)
	if err == nil {
		err = rec.store.End(ctx, rec.run, b)
	}
	if err != nil {
		err = &StoreError{err}
	}
	return errors.Join(rec.err, err)
}

// state says how a run ended.
func (r *run) state(err error) string {
	switch {
	case errors.Is(err, ErrInterrupted):
		return jobs.Interrupted
	case err != nil:
		return jobs.Broken
	case r.counts.Succeeded < r.counts.Total:
		return jobs.Incomplete
	}
	return jobs.Succeeded
}

// reason is the error of a run as one line.
func reason(err error) string {
	if err == nil {
		return ""
	}
	return strings.ReplaceAll(err.Error(), "\n", "; ")
}

// finish keeps outputs and notes that the run has those of a span.
func (rec *recorder) finish(ctx context.Context, action store.Action, records []store.Record, s store.Span) error {
	s.Run = rec.run.Number
	return rec.store.Finish(ctx, rec.run, action, records, s)
}

// spanOf returns which chunks a span of records has.
func spanOf(s *store.Span) span { return span{s.First, s.First + len(s.Chunks)} }

// needs tells whether a span that has no new outputs is to be noted.
func (rec *recorder) needs(s span) bool { return rec != nil && s.len() > 0 && !rec.known.have(s) }
