package flow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// tree is a Merkle tree, or one that can prove some of its leaves.
type tree interface {
	Add(leaf []byte)
	AddHash(leaf [32]byte)
	AddEntry(id abi.ID, item []byte)
	Len() uint64
	Root() [32]byte
}

// Proof is the path of one item from its root to its end: each step of the item and
// of its ancestors is in a tree of the receipt. Its fields are in the order of their
// names in JSON.
type Proof struct {
	End     EndProof    `json:"end"`
	ID      abi.ID      `json:"id"`
	Kind    string      `json:"kind"` // flow
	Root    EndProof    `json:"root"` // the chunk; State is ""
	Steps   []StepProof `json:"steps"`
	Version int         `json:"version"`
}

// EndProof shows that an item at an end, or a chunk of the input, has this data.
type EndProof struct {
	Data  receipt.Hex `json:"data"`
	ID    abi.ID      `json:"id"`
	State string      `json:"state,omitempty"`
	Place
}

// StepProof shows that a step turned its input into its output.
type StepProof struct {
	ID     abi.ID      `json:"id"`
	Input  receipt.Hex `json:"input"`
	Output receipt.Hex `json:"output"`
	State  string      `json:"state"`
	Step   uint32      `json:"step"`
	Place
}

// Place is the position of a leaf in its tree, with its audit path (RFC 6962,
// section 2.1.1).
type Place struct {
	Index uint64             `json:"index"`
	Path  []receipt.HashText `json:"path"`
	Size  uint64             `json:"size"`
}

// Marshal returns the bytes of a proof, in the form of a receipt.
func (p *Proof) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

// ParseProof reads the bytes of a proof. The error is [receipt.ErrProofForm].
func ParseProof(b []byte) (*Proof, error) {
	p := &Proof{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(p); err != nil || p.Kind != "flow" || p.Version != ReceiptVersion || len(p.Steps) > 1<<20 {
		return nil, fmt.Errorf("%w of a flow's item", receipt.ErrProofForm)
	}
	return p, nil
}

// prover collects the parts of one item's proof during a walk.
type prover struct {
	proof  *Proof
	root   *merkle.Prover
	states []*merkle.Prover // by state
	ends   []*merkle.Prover
	steps  []int // state of each step
	end    int
}

// Prove returns the proof of an item of a run that succeeded, whose receipt is r.
// The error is [ErrNoItem] if the run has no such item; it is another one if the
// receipt is of another run.
func (l *Look) Prove(ctx context.Context, id string, r *Receipt) (*Proof, error) {
	ref, ok := parseItem(id)
	if !ok {
		return nil, ErrNoItem
	}
	w, err := l.walk()
	if err != nil {
		return nil, err
	}
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	p := &prover{proof: &Proof{Kind: "flow", Version: ReceiptVersion, Steps: []StepProof{}}, root: &merkle.Prover{}, end: -1}
	for i := range w.plan.states {
		p.states, p.ends = append(p.states, &merkle.Prover{}), append(p.ends, &merkle.Prover{})
		w.digests.states[i], w.digests.ends[i] = p.states[i], p.ends[i]
	}
	w.open, w.proving = false, &proving{p, ref, id}
	if err := p.input(ctx, l.Input, ref); err != nil {
		return nil, err
	}
	done, err := w.run(ctx)
	switch {
	case err != nil:
		return nil, err
	case !done || w.failed > 0:
		return nil, errors.New("the run did not succeed, or some of its outputs are missing")
	case p.end < 0:
		return nil, ErrNoItem
	}
	return p.finish(w, r)
}

// input hashes the chunks, and keeps the item's root.
func (p *prover) input(ctx context.Context, in Input, ref itemRef) error {
	return in.Read(ctx, 0, in.Len(), func(i int, chunk []byte) error {
		if idText(rootID(in.ID(i))) == ref.root {
			p.root.Keep()
			p.proof.Root = EndProof{ID: in.ID(i), Data: bytes.Clone(chunk), Place: Place{Index: uint64(i)}}
		}
		p.root.AddEntry(in.ID(i), chunk)
		return nil
	})
}

// finish adds the paths after the last leaf.
func (p *prover) finish(w *walk, r *Receipt) (*Proof, error) {
	if !sameTrees(p, w, r) {
		return nil, errors.New("the receipt is of another run")
	}
	errs := []error{place(p.root, &p.proof.Root.Place), place(p.ends[p.end], &p.proof.End.Place)}
	for i := range p.proof.Steps {
		errs = append(errs, place(p.states[p.steps[i]], &p.proof.Steps[i].Place))
	}
	return p.proof, errors.Join(errs...)
}

func sameTrees(p *prover, w *walk, r *Receipt) bool {
	if p.root.Root() != r.Input {
		return false
	}
	for i := range w.plan.states {
		s := &w.plan.states[i]
		if s.isEnd() && p.ends[i].Root() != r.Ends[s.Name].Root || !s.isEnd() && p.states[i].Root() != r.States[s.Name].Root {
			return false
		}
	}
	return true
}

// place returns the path of a leaf that was kept.
func place(of *merkle.Prover, at *Place) error {
	m, err := of.Proof(at.Index)
	at.Size, at.Path = m.Size, []receipt.HashText{}
	for _, sum := range m.Path {
		at.Path = append(at.Path, sum)
	}
	return err
}

// proving is the item to be proved, for a walk.
type proving struct {
	*prover
	ref itemRef
	id  string
}

// isOf reports whether a name is the item's or an ancestor's.
func (p *proving) isOf(n *name, in Input) (ancestor, itself bool) {
	if n == nil || int(n.depth) > len(p.ref.path) || idText(rootID(in.ID(n.root()))) != p.ref.root {
		return false, false
	}
	for at := n; at.parent != nil; at = at.parent {
		if p.ref.path[at.depth-1] != at.number {
			return false, false
		}
	}
	return true, int(n.depth) == len(p.ref.path)
}

// step is called before the leaf of a step is added.
func (p *proving) step(id abi.ID, s *state, r *fullStep, in Input) {
	if p == nil {
		return
	}
	if ancestor, _ := p.isOf(r.name, in); !ancestor {
		return
	}
	t := p.states[s.index]
	t.Keep()
	p.steps = append(p.steps, s.index)
	p.proof.Steps = append(p.proof.Steps, StepProof{
		ID: id, State: s.Name, Step: r.step, Input: r.in, Output: r.out, Place: Place{Index: t.Len()},
	})
}

// ending is called before the leaf of an end is added.
func (p *proving) ending(e *End, s *state, r *endRecord, in Input) {
	if p == nil {
		return
	}
	if _, itself := p.isOf(r.name, in); !itself {
		return
	}
	t := p.ends[s.index]
	t.Keep()
	p.end, p.proof.ID = s.index, e.ID
	p.proof.End = EndProof{ID: e.ID, State: s.Name, Data: bytes.Clone(e.Data), Place: Place{Index: t.Len()}}
}

// Verify returns nil if the item took the path of the proof in the run of a
// receipt: each leaf is in its tree, and the input of each step is a result of the
// step before it. Nothing else is needed, and nothing is executed. The error is
// [receipt.ErrNotProved].
func (p *Proof) Verify(r *Receipt) error {
	if err := p.checkForm(); err != nil {
		return err
	}
	if err := p.Root.Place.holds(merkle.HashEntry(p.Root.ID, p.Root.Data), r.Input, uint64(p.Root.Size), "input"); err != nil {
		return err
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		leaf := appendStepLeaf(nil, s.ID, s.Step, &stepBytes{input: digestOf(s.Input), output: digestOf(s.Output)})
		of, known := r.States[s.State]
		if !known {
			return fmt.Errorf("%w: the receipt has no state %s", receipt.ErrNotProved, s.State)
		}
		if err := s.Place.holds(hashLeaf(leaf), of.Root, of.Steps, "state "+s.State); err != nil {
			return err
		}
	}
	end, known := r.Ends[p.End.State]
	if !known {
		return fmt.Errorf("%w: the receipt has no end %s", receipt.ErrNotProved, p.End.State)
	}
	if err := p.End.Place.holds(merkle.HashEntry(p.End.ID, p.End.Data), end.Root, end.Count, "end "+p.End.State); err != nil {
		return err
	}
	return p.chain()
}

// checkForm checks that all data is CBOR, and that the leaves are of the item and its
// ancestors.
func (p *Proof) checkForm() error {
	items := []receipt.Hex{p.Root.Data, p.End.Data}
	of := idText(p.ID)
	related := p.End.ID == p.ID && isSelfOrAncestor(idText(rootID(p.Root.ID)), of)
	for i := range p.Steps {
		items = append(items, p.Steps[i].Input, p.Steps[i].Output)
		related = related && isSelfOrAncestor(idText(p.Steps[i].ID), of)
	}
	if !related {
		return fmt.Errorf("%w: it has parts about other items than %v and its ancestors", receipt.ErrNotProved, p.ID)
	}
	for _, item := range items {
		if err := abi.CheckItem(item); err != nil {
			return fmt.Errorf("%w: its data is not one CBOR item: %w", receipt.ErrNotProved, err)
		}
	}
	return nil
}

// isSelfOrAncestor reports whether an item's id is another's, or of an ancestor of it.
func isSelfOrAncestor(id, of string) bool { return id == of || strings.HasPrefix(of, id+"->") }

// holds checks that the leaf is at this place of the tree.
func (at *Place) holds(leaf [32]byte, root receipt.Digest, size uint64, what string) error {
	m := merkle.Proof{Index: at.Index, Size: at.Size}
	for _, sum := range at.Path {
		m.Path = append(m.Path, sum)
	}
	got, err := m.Root(leaf)
	if err != nil || got != root || at.Size != size {
		return fmt.Errorf("%w: the path of a leaf of %s does not lead to the root in the receipt", receipt.ErrNotProved, what)
	}
	return nil
}

// chain checks that the input of each step is a result of the step before it.
func (p *Proof) chain() error {
	data := map[abi.ID][]receipt.Hex{rootID(p.Root.ID): {p.Root.Data}}
	var emitted []receipt.Hex // the data of children that steps emitted
	for i := range p.Steps {
		s := &p.Steps[i]
		known, ok := data[s.ID]
		if !ok {
			known = emitted
		}
		if !anyFollows(known, s.Input) {
			return fmt.Errorf("%w: the input of step %d of item %v is not a result of the step before it", receipt.ErrNotProved, s.Step, s.ID)
		}
		data[s.ID] = left(s)
		emitted = append(emitted, childrenOf(s)...)
	}
	known, ok := data[p.End.ID]
	if !ok {
		known = emitted
	}
	if !anyFollows(known, p.End.Data) {
		return fmt.Errorf("%w: the data of the end is not a result of the last step", receipt.ErrNotProved)
	}
	return nil
}

// anyFollows reports whether data is a possible result of a step, or the data that
// a join made of one.
func anyFollows(known []receipt.Hex, data []byte) bool {
	for _, k := range known {
		if bytes.Equal(k, data) {
			return true
		}
		if item, ok := joined(data); ok && bytes.Equal(item, k) {
			return true
		}
	}
	return false
}

// joined returns the item's own data within the data that a join made.
func joined(data []byte) (item []byte, ok bool) {
	err := eachKey(data, "the data", func(key string, value []byte) error {
		if key == "item" {
			item = value
		}
		return nil
	})
	return item, err == nil && item != nil
}

// left returns the possible results of a step: its output, the data of the move in
// its output and, if a failure was routed, its own input.
func left(s *StepProof) []receipt.Hex {
	all := []receipt.Hex{s.Output, s.Input}
	if m, err := parseMove(s.Output); err == nil && m.data != nil {
		all = append(all, m.data)
	}
	return all
}

// childrenOf returns the data of the children that a step emitted.
func childrenOf(s *StepProof) (all []receipt.Hex) {
	m, err := parseMove(s.Output)
	if err != nil {
		return nil
	}
	for rest := m.emit; len(all) < m.count; {
		var c child
		if c, rest, err = nextChild(rest); err != nil {
			return all
		}
		if c.data == nil {
			c.data = s.Input
		}
		all = append(all, c.data)
	}
	return all
}

// hashLeaf is the hash of a leaf (RFC 6962, section 2.1).
func hashLeaf(leaf []byte) [32]byte {
	return sha256.Sum256(append([]byte{leafPrefix}, leaf...))
}

// leafPrefix is hashed before a leaf (RFC 6962, section 2.1).
const leafPrefix = 0
