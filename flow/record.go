package flow

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"os"
	"sync"
	"time"

	jobs "github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// record records the start, the progress and the end of a run. A nil record records
// nothing.
type record struct {
	journal store.Journal
	key     store.RunKey
	notes   chan []byte // the latest one; closed by end
	done    sync.WaitGroup
	err     error // of writing notes; may be read after done
}

// begin records that the run begins in this process.
func (x *execution) begin(ctx context.Context) error {
	if x.config.Records == nil {
		return nil
	}
	host, _ := os.Hostname()
	info, err := json.Marshal(jobs.Process{Host: host, PID: os.Getpid(), Workers: x.config.Workers})
	if err != nil {
		return err
	}
	job := x.replay.run.jobRecord(x.Name, x.Spec)
	key, err := x.config.Records.Begin(ctx, job, noIDs, info)
	if err != nil {
		return &StoreError{err}
	}
	x.replay.generation = uint64(key.Number)
	x.record = &record{journal: x.config.Records, key: key, notes: make(chan []byte, 1)}
	x.record.done.Go(func() { x.record.write(context.WithoutCancel(ctx)) })
	return nil
}

func noIDs(func([]byte) bool) {}

var _ iter.Seq[[]byte] = noIDs

// jobRecord returns the store's record of a run. It has an action of its own, and
// names the run's journal, so that deleting the run deletes the journal too.
func (id RunID) jobRecord(name string, spec []byte) store.JobRecord {
	return store.JobRecord{
		ID: store.JobID(id), Action: id.action("run"), Derived: id.actions(), Input: store.Digest(id), Spec: spec, Created: time.Now(),
	}
}

// signOfLife is the interval of a run's signs of life.
const signOfLife = time.Second

// write stores the notes until the channel is closed.
func (r *record) write(ctx context.Context) {
	timer := time.NewTimer(signOfLife)
	defer timer.Stop()
	var last []byte
	for {
		select {
		case b, ok := <-r.notes:
			if !ok {
				return
			}
			last = b
		case <-timer.C:
			timer.Reset(signOfLife)
		}
		if err := r.journal.Note(ctx, r.key, last, nil); err != nil && r.err == nil {
			r.err = err
		}
	}
}

// note has the progress of the run stored. It replaces an earlier note that is not
// stored yet.
func (r *record) note(report *Report) {
	if r == nil {
		return
	}
	b, err := json.Marshal(report)
	if err != nil {
		return
	}
	select {
	case <-r.notes:
	default:
	}
	r.notes <- b
}

// end records how the run ended.
func (x *execution) end(ctx context.Context, report *Report) error {
	r := x.record
	if r == nil {
		return nil
	}
	close(r.notes)
	r.done.Wait()
	b, err := json.Marshal(report)
	if err == nil {
		err = r.journal.End(context.WithoutCancel(ctx), r.key, b)
	}
	if err = errors.Join(err, r.err); err != nil {
		return &StoreError{err}
	}
	return nil
}
