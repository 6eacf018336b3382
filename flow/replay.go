package flow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// replay finds the known results of steps. It only looks up, and executes nothing.
type replay struct {
	*journal
	plan     *plan
	redrives *redrives
	holds    *holds
	damaged  func(key store.Digest) bool // reports a record that the store dropped; may be nil
	given    *GivenEffects
	changed  OnChanged
	rerun    bool          // stored outputs of pure steps are not looked up, until they are executed again
	stale    *ChangedError // effects that were made for other data; nil = none
	keys     []store.Key
	orders   []byte
	hasher   merkle.Hasher
}

// StoreError reports a failure of the store: nothing more can be kept.
type StoreError struct{ Err error }

func (e *StoreError) Error() string { return "the store failed: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *StoreError) Unwrap() error { return e.Err }

// OnChanged selects how a run treats an effect whose data has changed since it was
// made.
type OnChanged int

// The values of OnChanged.
const (
	Refuse OnChanged = iota // the run ends before anything is executed
	Rerun                   // it is made again
)

// ChangedError reports effects whose data has changed since they were made, because
// the input or a module before them has.
type ChangedError struct {
	State string
	ID    abi.ID // of the first
	Count int
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("%d effects of state %s, the first of item %v, were made for other data: a module or the input before them has changed since", e.Count, e.State, e.ID)
}

// look moves the items whose steps in a state are known, and returns the others.
func (r *replay) look(ctx context.Context, m *machine, s *state, items []*item) (rest []*item, err error) {
	if items = r.given.give(r, m, s, items); len(items) == 0 {
		return nil, nil
	}
	if r.rerun && s.pure {
		return items, nil
	}
	r.keys, r.orders = r.keys[:0], r.orders[:0]
	for _, it := range items {
		from := len(r.orders)
		r.orders = it.id(r.roots).AppendOrderKey(r.orders)
		r.keys = append(r.keys, store.Key{Chunk: r.keyOf(m, it, s), Order: r.orders[from:len(r.orders):len(r.orders)]})
	}
	action := s.action
	if !s.pure {
		action = r.run.action(kindEffect)
	}
	rest, err = r.get(ctx, action, m, s, items)
	if err != nil || s.pure || !slices.ContainsFunc(rest, isStale) {
		return rest, err
	}
	return r.lookStale(ctx, m, s, rest)
}

func isStale(it *item) bool { return it.stale }

// get looks up r.keys.
func (r *replay) get(ctx context.Context, action store.Action, m *machine, s *state, items []*item) (rest []*item, err error) {
	next := 0
	err = r.store.Get(ctx, action, r.keys, func(i int, v store.Value) error {
		rest = append(rest, items[next:i]...)
		next = i + 1
		m.sum, m.summed = r.keys[i].Chunk, s.pure
		if !r.found(m, s, items[i], v) {
			rest = append(rest, items[i])
		}
		m.summed = false
		return nil
	})
	if err != nil {
		return nil, &StoreError{err}
	}
	return append(rest, items[next:]...), nil
}

// lookStale looks up effects that were made again, and notes those that would have
// to be made again.
func (r *replay) lookStale(ctx context.Context, m *machine, s *state, items []*item) (rest []*item, err error) {
	r.keys = r.keys[:0]
	for _, it := range items {
		r.keys = append(r.keys, store.Key{Chunk: r.effectKey(it, s), Order: it.order(r.roots)})
	}
	rest, err = r.get(ctx, r.run.action(kindEffect), m, s, items)
	for _, it := range rest {
		if it.stale {
			r.differs(s, it)
		}
	}
	return rest, err
}

func (r *replay) keyOf(m *machine, it *item, s *state) store.Digest {
	if !s.pure {
		return r.effectKey(it, s)
	}
	if sum, known := m.slots.sumOf(it); known {
		return sum
	}
	return r.hasher.Sum256(it.data)
}

// found uses the stored result of a step, if it is valid.
func (r *replay) found(m *machine, s *state, it *item, v store.Value) bool {
	output := v.Output
	if !s.pure {
		made, out, ok := parseEffectRecord(v.Output)
		sum := digestOf(it.data)
		switch {
		case !ok:
			it.damaged = true
			return false
		case !bytes.Equal(made, sum[:]):
			it.stale = true
			return false
		}
		output = out
	}
	m.advance(it, output, v.Fuel, true)
	return true
}

// differs notes an effect whose data has changed.
func (r *replay) differs(s *state, it *item) {
	if r.changed != Refuse {
		return
	}
	if r.stale == nil {
		r.stale = &ChangedError{State: s.Name, ID: it.id(r.roots)}
	}
	r.stale.Count++
}

// effectRecord is the stored result of an effect: [H(data), output].
func effectRecord(data, output []byte) []byte {
	sum := digestOf(data)
	b := abi.AppendHead(nil, abi.MajorArray, 2)
	b = append(abi.AppendHead(b, abi.MajorBytes, uint64(len(sum))), sum[:]...)
	return append(b, output...)
}

func parseEffectRecord(b []byte) (sum, output []byte, ok bool) {
	if len(b) <= effectHead || abi.CheckItem(b) != nil || b[0] != 0x82 || b[1] != 0x58 || b[2] != sha256.Size {
		return nil, nil, false
	}
	return b[3:effectHead], b[effectHead:], true
}

// foldAction is the key of a module's aggregates, by the digest of their entries.
// Jobs over the module have the same key.
func foldAction(m Folder) store.Action {
	action, _ := m.Action()
	return sha256.Sum256(append(action[:], "fold"...))
}

// root returns the digest of the children that a join folds.
func (j *join) root(in Input) store.Digest {
	var t merkle.Tree
	for i := range j.ended.len() {
		e := j.ended.at(i)
		t.AddEntry(e.child.id(in), j.arena[e.from:e.to])
	}
	return t.Root()
}

// lookFold returns the stored aggregate of a module over entries; nil if there is
// none.
func (r *replay) lookFold(ctx context.Context, m Folder, root store.Digest) (v store.Value, err error) {
	if r.rerun {
		return v, nil
	}
	err = r.store.Get(ctx, foldAction(m), []store.Key{{Chunk: root}}, func(_ int, found store.Value) error {
		v = store.Value{Output: bytes.Clone(found.Output), Fuel: found.Fuel}
		return nil
	})
	if err != nil {
		return v, &StoreError{err}
	}
	return v, nil
}

// resumeKnown resumes parents whose children have ended, and returns those whose
// fold is not known.
func (r *replay) resumeKnown(ctx context.Context, m *machine) (rest []*join, err error) {
	for len(m.folds) > 0 {
		j := m.folds[len(m.folds)-1]
		m.folds[len(m.folds)-1] = nil
		m.folds = m.folds[:len(m.folds)-1]
		if j.from.Children.Fold == nil {
			m.resume(j, r.roots, nil)
			continue
		}
		v, err := r.lookFold(ctx, j.from.Children.Fold, j.root(r.roots))
		if err != nil {
			return rest, err
		}
		if v.Output == nil {
			rest = append(rest, j)
			continue
		}
		m.resume(j, r.roots, v.Output)
	}
	return rest, nil
}

// passed separates the items that wait before their step. Of the others, ready are
// to be looked up; items that come out of a wait state move on.
func (r *replay) passed(ctx context.Context, m *machine, s *state, items []*item) (ready, waiting []*item, err error) {
	delayed := slices.ContainsFunc(items, func(it *item) bool { return it.delay > 0 })
	if !delayed && s.Exec != nil {
		return items, nil, nil
	}
	if err := r.lookDue(ctx, s, items); err != nil {
		return nil, nil, err
	}
	now := time.Now().UnixMilli()
	for _, it := range items {
		switch {
		case it.delay > 0 && (it.due == 0 || it.due > now):
			waiting = append(waiting, it)
		case s.Exec == nil:
			it.delay = 0
			m.advance(it, it.data, 0, false)
		default:
			it.delay = 0
			ready = append(ready, it)
		}
	}
	return ready, waiting, nil
}

// lookDue looks up when the waits of items end.
func (r *replay) lookDue(ctx context.Context, s *state, items []*item) error {
	keys := make([]store.Key, len(items))
	for i, it := range items {
		keys[i] = store.Key{Chunk: r.dueKey(it, s), Order: it.order(r.roots)}
	}
	err := r.store.Get(ctx, r.run.action(kindDue), keys, func(i int, v store.Value) error {
		if len(v.Output) == 8 {
			items[i].due = int64(binary.BigEndian.Uint64(v.Output))
		}
		return nil
	})
	if err != nil {
		return &StoreError{err}
	}
	return nil
}

// keepDue records when the waits of items end, if that was not known.
func (r *replay) keepDue(ctx context.Context, s *state, items []*item) error {
	var records []store.Record
	now := time.Now()
	for _, it := range items {
		if it.due != 0 {
			continue
		}
		it.due = now.Add(it.delay).UnixMilli()
		value := binary.BigEndian.AppendUint64(nil, uint64(it.due))
		records = append(records, store.Record{Key: store.Key{Chunk: r.dueKey(it, s), Order: it.order(r.roots)}, Value: store.Value{Output: value}})
	}
	if err := r.put(ctx, kindDue, records); err != nil {
		return &StoreError{err}
	}
	return nil
}

// dueKey names the wait of one step of an item.
func (r *replay) dueKey(it *item, s *state) store.Digest {
	h := sha256.New()
	fmt.Fprintf(h, "wasm-jobs flow due 1\n%q\n%q\n%d\n", idText(it.id(r.roots)), s.Name, it.steps)
	return store.Digest(h.Sum(nil))
}
