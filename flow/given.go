package flow

import (
	"bytes"
	"context"
	"fmt"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// GivenEffects are results of effects that replace making them: the leaves
// [id, step, state, H(input), output] of a receipt's tree of effects, failures
// [id, step, state, H(input), class, message], and the decisions of persons,
// ["intervention", n, id, from, to, step, how], which replace those in the store. A nil
// GivenEffects is empty.
type GivenEffects struct {
	results  map[string]givenResult
	redrives []Redrive
}

type givenResult struct {
	input   store.Digest
	output  []byte
	failure *abi.Failure // instead of output; nil = it succeeded
}

// ReadEffects reads a sequence of leaves as [Run.Effects] receives them.
func ReadEffects(leaves iter.Seq2[[]byte, error]) (*GivenEffects, error) {
	g := &GivenEffects{results: map[string]givenResult{}}
	n := 0
	for leaf, err := range leaves {
		if err != nil {
			return nil, err
		}
		if !g.add(leaf) {
			return nil, fmt.Errorf("item %d is not the result of an effect, [id, step, state, digest, output], nor another item that flow run writes", n)
		}
		n++
	}
	return g, nil
}

// add reads one leaf, which is one well-formed item.
func (g *GivenEffects) add(leaf []byte) bool {
	h, err := abi.ReadHead(leaf)
	if err != nil || h.Major != abi.MajorArray || h.Indefinite || h.Arg < 5 || h.Arg > 7 {
		return false
	}
	parts := make([][]byte, h.Arg)
	rest := leaf[h.Size:]
	for i := range parts {
		if parts[i], rest, err = cutItem(rest); err != nil {
			return false
		}
	}
	if len(parts) == 7 {
		return g.addRedrive(parts)
	}
	id, ok := idOfItem(parts[0])
	step, stepErr := abi.ReadHead(parts[1])
	state, stateErr := textOf(parts[2], "state")
	sum := parts[3]
	if !ok || stepErr != nil || step.Major != abi.MajorUint || stateErr != nil || len(sum) != 34 || sum[0] != 0x58 || sum[1] != 32 {
		return false
	}
	found := givenResult{input: store.Digest(sum[2:]), output: bytes.Clone(parts[4])}
	if len(parts) == 6 {
		class, classErr := textOf(parts[4], "class")
		message, messageErr := textOf(parts[5], "message")
		if classErr != nil || messageErr != nil {
			return false
		}
		found.failure = &abi.Failure{Class: abi.Class(class), Message: message}
	}
	g.results[givenKey(id, step.Arg, state)] = found
	return true
}

// intervention is the first element of a decision in a file of effects.
const intervention = "intervention"

// addRedrive reads a decision, the next in order.
func (g *GivenEffects) addRedrive(parts [][]byte) bool {
	var d Redrive
	var how string
	for i, to := range map[int]*string{3: &d.From, 4: &d.To, 6: &how} {
		text, err := textOf(parts[i], "")
		if err != nil {
			return false
		}
		*to = text
	}
	what, err := textOf(parts[0], "")
	n, nErr := abi.ReadHead(parts[1])
	step, stepErr := abi.ReadHead(parts[5])
	if err != nil || nErr != nil || stepErr != nil || what != intervention || n.Major != abi.MajorUint || n.Arg != uint64(len(g.redrives)+1) || step.Major != abi.MajorUint || step.Arg > 1<<32 {
		return false
	}
	d.Step, d.Children, d.Last = int(step.Arg), how != "", how == "last"
	if id, err := abi.ReadHead(parts[2]); err == nil && id.Major == abi.MajorUint {
		d.ID = abi.IntID(id.Arg)
	} else if text, err := textOf(parts[2], ""); err == nil {
		d.ID = abi.TextID(text)
	} else {
		return false
	}
	g.redrives = append(g.redrives, d)
	return true
}

// appendTo appends the decision as [GivenEffects] reads it. how is "children" or
// "last" for an item that failed because of its children, by its data.
func (d *Redrive) appendTo(b []byte, n int) []byte {
	how := ""
	switch {
	case d.Last && d.Children:
		how = "last"
	case d.Children:
		how = "children"
	}
	b = abi.AppendText(abi.AppendHead(b, abi.MajorArray, 7), intervention)
	b = d.ID.AppendCBOR(abi.AppendHead(b, abi.MajorUint, uint64(n)))
	b = abi.AppendText(abi.AppendText(b, d.From), d.To)
	return abi.AppendText(abi.AppendHead(b, abi.MajorUint, uint64(d.Step)), how)
}

func idOfItem(item []byte) (text string, ok bool) {
	h, err := abi.ReadHead(item)
	switch {
	case err != nil:
		return "", false
	case h.Major == abi.MajorUint:
		return idText(abi.IntID(h.Arg)), true
	}
	text, err = textOf(item, "id")
	return text, err == nil
}

func givenKey(id string, step uint64, state string) string {
	return fmt.Sprintf("%d %s %s", step, state, id)
}

// give moves those items on whose effects are given. A nil g gives none.
func (g *GivenEffects) give(r *replay, m *machine, s *state, items []*item) (rest []*item) {
	if g == nil || s.pure || s.Exec == nil {
		return items
	}
	for _, it := range items {
		found, ok := g.results[givenKey(idText(it.id(r.roots)), uint64(it.steps), s.Name)]
		switch {
		case !ok || found.input != digestOf(it.data):
			rest = append(rest, it)
		case found.failure != nil:
			m.giveUp(it, found.failure)
		default:
			m.advance(it, found.output, 0, true)
		}
	}
	return rest
}

// Sampled is a store for a verification: it hides a share of the outputs of another
// store, so that they are computed again. It writes nothing to the other store.
type Sampled struct {
	*store.Memory             // outputs of this run
	Of            store.Store // nil = everything is executed
	Again         func(chunk store.Digest) bool
}

// Get implements [store.Store].
func (s *Sampled) Get(ctx context.Context, action store.Action, keys []store.Key, found func(i int, v store.Value) error) error {
	there := make([]bool, len(keys))
	values := make([]store.Value, len(keys))
	take := func(i int, v store.Value) error {
		there[i], values[i] = true, store.Value{Output: append([]byte(nil), v.Output...), Fuel: v.Fuel}
		return nil
	}
	if s.Of != nil {
		err := s.Of.Get(ctx, action, keys, func(i int, v store.Value) error {
			if s.Again(keys[i].Chunk) {
				return nil
			}
			return take(i, v)
		})
		if err != nil {
			return err
		}
	}
	if err := s.Memory.Get(ctx, action, keys, take); err != nil {
		return err
	}
	for i := range keys {
		if there[i] {
			if err := found(i, values[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// All implements [store.Store].
func (s *Sampled) All(ctx context.Context, action store.Action) iter.Seq2[store.Record, error] {
	if s.Of != nil {
		return s.Of.All(ctx, action)
	}
	return s.Memory.All(ctx, action)
}
