package host

import (
	"context"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// storing stores the outputs of a job.
type storing struct {
	store  store.Store
	action store.Action
}

// Keep implements [worker.Keeper].
func (s *storing) Keep(ctx context.Context, records []store.Record, _ *worker.Span) error {
	if len(records) == 0 {
		return nil
	}
	return s.store.Put(ctx, s.action, records)
}

// recording stores outputs together with their record.
type recording struct {
	recorder *journal.Recorder
	action   store.Action
	started  time.Time
	details  sync.Pool // of *[]byte
}

// Keep implements [worker.Keeper].
func (r *recording) Keep(ctx context.Context, records []store.Record, s *worker.Span) error {
	detail, _ := r.details.Get().(*[]byte)
	if detail == nil {
		detail = new([]byte)
	}
	defer r.details.Put(detail)
	*detail = r.appendDetail((*detail)[:0], s)
	return r.recorder.Finish(ctx, r.action, records, store.Span{First: s.First, Chunks: s.Digests, Detail: *detail})
}

// appendDetail appends the times at which the chunks of a span ran, and their
// worker.
func (r *recording) appendDetail(dst []byte, s *worker.Span) []byte {
	last := s.Began
	dst = journal.AppendDetail(dst, s.Worker, r.started.Add(last))
	for _, t := range s.Times {
		if t.Start == worker.NoTime {
			dst = journal.AppendElapsed(dst, 0, -1)
			continue
		}
		dst = journal.AppendElapsed(dst, t.Start-last, t.End-t.Start)
		last = t.End
	}
	return dst
}
