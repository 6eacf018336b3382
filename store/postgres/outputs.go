package postgres

import (
	"context"
	"crypto/sha256"
	"errors"
	"iter"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// ErrGap reports that the packs of a job do not have the outputs of all its chunks.
var ErrGap = errors.New("outputs of chunks are missing")

// part is the part of a pack that a reader needs who knows its chunks by their numbers.
type part struct {
	id           int64
	first, count int
	chunks, sum  []byte // chunks has the SHA-256 of the digests
	heads, data  []byte
}

const partColumns = "id, first, count, chunks_sum, heads, data, sum"

func scanOutputs(r pgx.Rows) (p part, err error) {
	err = r.Scan(&p.id, &p.first, &p.count, &p.chunks, &p.heads, &p.data, &p.sum)
	return p, err
}

func (p *part) sound() bool {
	sum := sumOf(digestOf(p.chunks), sha256.Sum256(p.heads), sha256.Sum256(p.data))
	return string(sum[:]) == string(p.sum)
}

// Whole reports whether Outputs has the outputs of all chunks. It does not if other jobs
// left some of them.
func (i *Input) Whole(ctx context.Context) (whole bool, err error) {
	err = i.store.one(ctx, "select $.whole($1)", []any{i.job}, &whole)
	return whole, err
}

// Whole reports whether OutputsOf has the outputs of all chunks of the job.
func (w *Worker) Whole(ctx context.Context, l Lease) (whole bool, err error) {
	err = w.call(ctx, "select $.worker_whole($1, $2, $3, $4)", []any{l.Slot, l.Key}, &whole)
	return whole, err
}

// Outputs yields the outputs of the chunks first..last-1 of a job, in their order. After
// an error, such as [ErrGap], the iteration ends.
func (i *Input) Outputs(ctx context.Context, first, last int) iter.Seq2[store.Value, error] {
	return i.store.outputs(ctx, first, last, func(first int) ([]part, error) {
		return rows(ctx, i.store, "select "+partColumns+" from $.outputs_of($1, $2, $3)", scanOutputs, i.job, first, last)
	})
}

// OutputsOf yields the outputs of the chunks first..last-1 of the job whose fold is leased,
// in their order. After an error, such as [ErrGap], the iteration ends.
func (w *Worker) OutputsOf(ctx context.Context, l Lease, first, last int) iter.Seq2[store.Value, error] {
	return w.store.outputs(ctx, first, last, func(first int) ([]part, error) {
		id, args := (&leased{w.store, w, l}).args(first, last)
		all, err := rows(ctx, w.store, "select "+partColumns+" from $.worker_outputs($1, $2, $3, $4, $5, $6)", scanOutputs, args...)
		return all, w.answered(ctx, id, err)
	})
}

// outputs yields the outputs of parts that fetch gets, from the part with a chunk on.
func (s *Store) outputs(ctx context.Context, first, last int, fetch func(first int) ([]part, error)) iter.Seq2[store.Value, error] {
	return func(yield func(store.Value, error) bool) {
		for first < last {
			parts, err := fetch(first)
			before := first
			for i := 0; i < len(parts) && err == nil; i++ {
				var left bool
				if first, left, err = s.each(ctx, &parts[i], first, last, yield); left {
					return
				}
			}
			if err == nil && first == before {
				err = ErrGap
			}
			if err != nil {
				yield(store.Value{}, err)
				return
			}
		}
	}
}

// each yields the outputs of a part from the chunk first on, and returns the chunk after
// them. It drops a part that is damaged.
func (s *Store) each(ctx context.Context, p *part, first, last int, yield func(store.Value, error) bool) (next int, left bool, err error) {
	if p.first > first {
		return first, false, ErrGap
	}
	sound := p.sound()
	outputs := unpacking{p.heads, p.data}
	for i := p.first; sound && i < min(last, p.first+p.count); i++ {
		var v store.Value
		if _, v, sound = outputs.next(); sound && i >= first {
			if !yield(v, nil) {
				return first, true, nil
			}
			first++
		}
	}
	if sound {
		return first, false, nil
	}
	if s.options.Damaged != nil {
		s.options.Damaged(Damage{Pack: p.id, Count: p.count})
	}
	var dropped bool
	_ = s.one(ctx, "select $.drop_damaged($1)", []any{p.id}, &dropped) // a role that only reads cannot drop it
	return first, false, ErrGap
}
