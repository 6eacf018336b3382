package flow

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Redrive is a person's decision: an item that failed, or is held or uncertain,
// goes to another state with the data with which it entered its own.
type Redrive struct {
	ID   abi.ID `json:"id"`
	From string `json:"from"`
	Step int    `json:"step"` // steps that the item had begun
	To   string `json:"to"`
	// Children is set for an item that failed because of its children: its step is made,
	// and the children go on, but it does not wait for them.
	Children bool `json:"children,omitempty"`
	// Last gives such an item the data of the move that emitted them. It has no effect
	// on others, since a step that failed has no output.
	Last bool `json:"last,omitempty"`
}

// key names the visit that the decision is about.
func (d *Redrive) key() string { return fmt.Sprintf("%d %s %s", d.Step, d.From, idText(d.ID)) }

// KeepRedrives records decisions about items of a run, after those recorded before.
// They take effect when the run starts again.
func KeepRedrives(ctx context.Context, s store.Store, run string, all []Redrive) error {
	id := IDOf(run)
	before, err := loadRedrives(ctx, s, id)
	if err != nil {
		return err
	}
	records := make([]store.Record, len(all))
	for i := range all {
		b, err := json.Marshal(&all[i])
		if err != nil {
			return err
		}
		n := binary.BigEndian.AppendUint64(nil, uint64(len(before)+i+1))
		records[i] = store.Record{Key: store.Key{Chunk: sha256.Sum256(n), Order: n}, Value: store.Value{Output: b}}
	}
	if err := s.Put(ctx, id.action(kindRedrive), records); err != nil {
		return &StoreError{err}
	}
	return nil
}

// loadRedrives reads the decisions about a run, in order.
func loadRedrives(ctx context.Context, s store.Store, id RunID) (all []Redrive, err error) {
	for r, err := range s.All(ctx, id.action(kindRedrive)) {
		if err != nil {
			return nil, &StoreError{err}
		}
		var d Redrive
		if err := json.Unmarshal(r.Output, &d); err != nil {
			return nil, &StoreError{fmt.Errorf("a redrive of the run is damaged: %w", err)}
		}
		all = append(all, d)
	}
	return all, nil
}

// redrives are the decisions about a run. A nil redrives has none.
type redrives struct {
	all []Redrive
	to  map[string]sent
}

// load reads the decisions. Decisions about states that no longer exist have no
// effect.
func (r *replay) load(ctx context.Context) error {
	all, err := loadRedrives(ctx, r.store, r.run)
	if err == nil && r.given != nil && len(r.given.redrives) > 0 {
		all = r.given.redrives
	}
	if err != nil || len(all) == 0 {
		return err
	}
	index := r.plan.Flow.index()
	r.redrives = &redrives{all: all, to: map[string]sent{}}
	for i := range all {
		if to, known := index[all[i].To]; known {
			r.redrives.to[all[i].key()] = sent{to, all[i].Children, all[i].Last}
		}
	}
	return nil
}

// sent is where a decision sends an item.
type sent struct {
	state    int
	children bool // it does not wait for its children
	last     bool // it has the data of the move that emitted them
}

// find returns the state to which a person sent an item from a state.
func (d *redrives) find(it *item, s *state, in Input) (to sent, ok bool) {
	if d == nil {
		return to, false
	}
	visit := Redrive{ID: it.id(in), From: s.Name, Step: int(it.steps)}
	to, ok = d.to[visit.key()]
	return to, ok
}

// redirect moves the items for which there is a decision, and returns the others.
func (r *replay) redirect(m *machine, s *state, items []*item) (rest []*item) {
	if r.redrives == nil {
		return items
	}
	for _, it := range items {
		if to, ok := m.decided(it, s); ok && to.children {
			rest = append(rest, it)
		} else if to, ok := m.sentOn(it, s); ok {
			m.redirect(it, s, to)
		} else {
			rest = append(rest, it)
		}
	}
	return rest
}

// redirect takes an item out of a state and into another.
func (m *machine) redirect(it *item, s *state, to sent) {
	m.tallies[s.index].left++
	it.tries, it.delay, it.routed, it.via = nil, 0, false, ""
	if it.past != nil {
		clear(it.past.seen)
	}
	m.enter(it, to.state)
}

// root is the Merkle root over [n, id, from, to].
func (d *redrives) trail() Trail {
	var t merkle.Tree
	if d != nil {
		for i := range d.all {
			b := abi.AppendHead(nil, abi.MajorArray, 4)
			b = abi.AppendHead(b, abi.MajorUint, uint64(i+1))
			b = d.all[i].ID.AppendCBOR(b)
			b = abi.AppendText(abi.AppendText(b, d.all[i].From), d.all[i].To)
			t.Add(b)
		}
	}
	return trailOf(&t)
}

// tell passes on the decisions, in order. made may be nil.
func (d *redrives) tell(made func(leaf []byte) error) error {
	if d == nil || made == nil {
		return nil
	}
	for i := range d.all {
		if err := made(d.all[i].appendTo(nil, i+1)); err != nil {
			return err
		}
	}
	return nil
}

func (d *redrives) count() int {
	if d == nil {
		return 0
	}
	return len(d.all)
}
