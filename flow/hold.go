package flow

import (
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// effectPool adapts the pool of an effect for workers.
type effectPool struct {
	worker.Pool
	holds  *holds // nil unless an effect that may have been made is held
	broken func(error)
}

// Borrow implements [worker.Pool].
func (p effectPool) Borrow(log runtime.Log) worker.Instance {
	return effectInstance{p.Pool.Borrow(log), p}
}

type effectInstance struct {
	worker.Instance
	pool effectPool
}

// Call implements [worker.Instance]. If effects are held, the intent is durable
// before the effect is begun, and an attempt that is known to have failed is
// recorded.
func (i effectInstance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	key, _ := Effect(input)
	if err := i.pool.holds.begin(ctx, key); err != nil {
		i.pool.broken(err)
		return dst, 0, err
	}
	out, fuel, err := i.Instance.Call(ctx, function, input, dst)
	if err != nil && ctx.Err() == nil {
		if err := i.pool.holds.over(ctx, key); err != nil {
			i.pool.broken(err)
		}
	}
	return out, fuel, asFailure(err)
}

// holds are the intents of a run: records that an attempt at an effect is begun,
// and that it is over without a result. If only the first exists, the effect may
// have been made. A nil holds has none. It is safe for concurrent use.
type holds struct {
	*journal
	mu       sync.Mutex
	attempts map[store.Digest]int // that are over, by the key of the step
}

func newHolds(j *journal) *holds { return &holds{journal: j, attempts: map[store.Digest]int{}} }

func intentKey(what string, key store.Digest, attempt int) store.Digest {
	return sha256.Sum256(fmt.Appendf(nil, "wasm-jobs flow %s 1\n%x\n%d\n", what, key[:], attempt))
}

func (h *holds) attempt(key store.Digest) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.attempts[key]
}

func (h *holds) note(ctx context.Context, what string, key store.Digest) error {
	at := intentKey(what, key, h.attempt(key))
	return h.put(ctx, kindIntent, []store.Record{{Key: store.Key{Chunk: at}, Value: store.Value{Output: []byte(what)}}})
}

func (h *holds) begin(ctx context.Context, key store.Digest) error {
	if h == nil {
		return nil
	}
	return h.note(ctx, "intent", key)
}

func (h *holds) over(ctx context.Context, key store.Digest) error {
	if h == nil {
		return nil
	}
	err := h.note(ctx, "over", key)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attempts[key]++
	return err
}

// madeRecord notes, apart from the result of an effect, that the result was recorded.
// If a result is damaged later, any process may be the one that drops it, and the
// effect must not be made again without a person's decision.
func madeRecord(key store.Digest, order []byte) store.Record {
	return store.Record{Key: store.Key{Chunk: intentKey("made", key, 0), Order: order}, Value: store.Value{Output: []byte("made")}}
}

// lookMade reports for each item whether the result of its effect was recorded.
func (r *replay) lookMade(ctx context.Context, s *state, items []*item) ([]bool, error) {
	keys, made := make([]store.Key, len(items)), make([]bool, len(items))
	for i, it := range items {
		keys[i] = madeRecord(r.effectKey(it, s), it.order(r.roots)).Key
	}
	err := r.store.Get(ctx, r.run.action(kindIntent), keys, func(i int, _ store.Value) error {
		made[i] = true
		return nil
	})
	if err != nil {
		return nil, &StoreError{err}
	}
	return made, nil
}

// lookUncertain separates the items without a result whose effect may have been
// made.
func (r *replay) lookUncertain(ctx context.Context, s *state, items []*item) (rest, uncertain []*item, err error) {
	if s.pure || s.Exec == nil || len(items) == 0 {
		return items, nil, nil
	}
	made, err := r.lookMade(ctx, s, items)
	if err != nil {
		return nil, nil, err
	}
	for i, it := range items {
		key := r.effectKey(it, s)
		unsure := made[i] || it.damaged || r.damaged != nil && r.damaged(key)
		if s.Hold && !unsure {
			if unsure, err = r.intended(ctx, key); err != nil {
				return nil, nil, err
			}
		}
		if unsure {
			uncertain = append(uncertain, it)
		} else {
			rest = append(rest, it)
		}
	}
	return rest, uncertain, nil
}

// intended reports whether an attempt was begun whose end is not recorded.
func (r *replay) intended(ctx context.Context, key store.Digest) (bool, error) {
	for n := 0; ; n++ {
		var found [2]bool
		keys := []store.Key{{Chunk: intentKey("intent", key, n)}, {Chunk: intentKey("over", key, n)}}
		err := r.store.Get(ctx, r.run.action(kindIntent), keys, func(i int, _ store.Value) error {
			found[i] = true
			return nil
		})
		switch {
		case err != nil:
			return false, &StoreError{err}
		case !found[0]:
			r.holds.mu.Lock()
			r.holds.attempts[key] = n
			r.holds.mu.Unlock()
			return false, nil
		case !found[1]:
			return true, nil
		}
	}
}
