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
	heads, data  []byte
	// The checksums of the digests, of data if it was not fetched, and of the pack.
	chunksSum, dataSum, sum []byte

	checked bool
}

const partColumns = "id, first, count, chunks_sum, heads, data, data_sum, sum"

func scanOutputs(r pgx.Rows) (p part, err error) {
	err = r.Scan(&p.id, &p.first, &p.count, &p.chunksSum, &p.heads, &p.data, &p.dataSum, &p.sum)
	return p, err
}

func (p *part) has(chunk int) bool { return chunk >= p.first && chunk < p.first+p.count }

// sound reports whether the part matches its checksum.
func (p *part) sound() bool {
	if p.checked {
		return true
	}
	data := [sha256.Size]byte(digestOf(p.dataSum))
	if p.dataSum == nil {
		data = sha256.Sum256(p.data)
	}
	sum := sumOf(digestOf(p.chunksSum), sha256.Sum256(p.heads), data)
	p.checked = string(sum[:]) == string(p.sum)
	return p.checked
}

// Whole reports whether Outputs has the outputs of all chunks. It does not if other jobs
// left some of them.
func (i *Input) Whole(ctx context.Context) (whole bool, err error) {
	err = i.store.one(ctx, "select $.whole($1)", []any{i.job}, &whole)
	return whole, err
}

// Whole reports whether a [Reader] has the outputs of all chunks of the job.
func (w *Worker) Whole(ctx context.Context, l Lease) (whole bool, err error) {
	err = w.call(ctx, "select $.worker_whole($1, $2, $3, $4)", []any{l.Slot, l.Key}, &whole)
	return whole, err
}

// Outputs yields the outputs of the chunks first..last-1 of a job, in their order. After
// an error, such as [ErrGap], the iteration ends.
func (i *Input) Outputs(ctx context.Context, first, last int) iter.Seq2[store.Value, error] {
	return i.store.outputs(ctx, first, last, func(first int) ([]part, error) {
		return rows(ctx, i.store, "select "+partColumns+" from $.outputs_of($1, $2, $3, true)", scanOutputs, i.job, first, last)
	})
}

// Reader reads outputs of the job whose fold, or calls of it, is leased. It keeps the packs
// that it fetched last, and belongs to one goroutine.
type Reader struct {
	worker *Worker
	lease  Lease
	last   int
	parts  []part
}

// Reader returns a reader of outputs of the chunks before last.
func (w *Worker) Reader(l Lease, last int) *Reader { return &Reader{worker: w, lease: l, last: last} }

// Outputs yields outputs as [Input.Outputs] does.
func (r *Reader) Outputs(ctx context.Context, first, last int) iter.Seq2[store.Value, error] {
	fetch := r.worker.parts(ctx, r.lease, r.last, true)
	return r.worker.store.outputs(ctx, first, last, func(first int) (parts []part, err error) {
		for i := range r.parts {
			if r.parts[i].has(first) {
				return r.parts[i:], nil
			}
		}
		r.parts, err = fetch(first)
		return r.parts, err
	})
}

// SizesOf yields the sizes of the outputs of a [Reader].
func (w *Worker) SizesOf(ctx context.Context, l Lease, first, last int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		err := w.store.walk(ctx, first, last, w.parts(ctx, l, last, false), func(u *unpacking, wanted bool) (ok bool, err error) {
			_, _, size, ok := u.head()
			if !ok || !wanted {
				return ok, nil
			}
			return true, leftUnless(yield(int(size), nil))
		})
		if err != nil && !errors.Is(err, errLeft) {
			yield(0, err)
		}
	}
}

// parts returns a function that fetches the parts with a chunk and the next ones.
func (w *Worker) parts(ctx context.Context, l Lease, last int, data bool) func(first int) ([]part, error) {
	return func(first int) ([]part, error) {
		id, args := (&leased{w.store, w, l}).args(first, last, data)
		all, err := rows(ctx, w.store, "select "+partColumns+" from $.worker_outputs($1, $2, $3, $4, $5, $6, $7)", scanOutputs, args...)
		return all, w.answered(ctx, id, err)
	}
}

func (s *Store) outputs(ctx context.Context, first, last int, fetch func(first int) ([]part, error)) iter.Seq2[store.Value, error] {
	return func(yield func(store.Value, error) bool) {
		err := s.walk(ctx, first, last, fetch, func(u *unpacking, wanted bool) (ok bool, err error) {
			_, v, ok := u.next()
			if !ok || !wanted {
				return ok, nil
			}
			return true, leftUnless(yield(v, nil))
		})
		if err != nil && !errors.Is(err, errLeft) {
			yield(store.Value{}, err)
		}
	}
}

// errLeft ends a walk whose consumer has left.
var errLeft = errors.New("left")

func leftUnless(goes bool) error {
	if goes {
		return nil
	}
	return errLeft
}

// unpack takes the next output, and uses it if it is wanted. It is not ok if there is none;
// an error ends the walk.
type unpack func(u *unpacking, wanted bool) (ok bool, err error)

// walk unpacks the outputs of the chunks first..last-1, which are wanted, and those in front
// of them in their parts.
func (s *Store) walk(ctx context.Context, first, last int, fetch func(first int) ([]part, error), next unpack) error {
	for first < last {
		parts, err := fetch(first)
		if err != nil {
			return err
		}
		before := first
		for i := range parts {
			if first == last {
				break
			}
			if first, err = s.walkPart(ctx, &parts[i], first, last, next); err != nil {
				return err
			}
		}
		if first == before {
			return ErrGap
		}
	}
	return nil
}

// walkPart walks through one part, and returns the chunk after it. It drops a part that is
// damaged.
func (s *Store) walkPart(ctx context.Context, p *part, first, last int, next unpack) (int, error) {
	if p.first > first {
		return first, ErrGap
	}
	sound := p.sound()
	u := unpacking{p.heads, p.data}
	for i := p.first; sound && i < min(last, p.first+p.count); i++ {
		var err error
		if sound, err = next(&u, i >= first); err != nil {
			return first, err
		}
		if sound && i >= first {
			first++
		}
	}
	if sound {
		return first, nil
	}
	if s.options.Damaged != nil {
		s.options.Damaged(Damage{Pack: p.id, Count: p.count})
	}
	var dropped bool
	_ = s.one(ctx, "select $.drop_damaged($1)", []any{p.id}, &dropped) // a role that only reads cannot drop it
	return first, ErrGap
}
