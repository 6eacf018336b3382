package flow

import (
	"bytes"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// FuzzMove reads moves: what is accepted has as many children as it says, each with a
// state and one item as data or none.
func FuzzMove(f *testing.F) {
	for _, v := range []any{
		map[string]any{"next": "a", "data": 1, "emit": []any{map[string]any{"next": "b", "data": "x"}, map[string]any{}}, "after": 7},
		map[string]any{}, []any{}, map[string]any{"emit": 1}, map[int]int{1: 2},
	} {
		f.Add(item_(f, v))
	}
	f.Add([]byte{0xbf, 0x64, 'e', 'm', 'i', 't', 0x9f, 0xbf, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		if abi.CheckItem(b) != nil {
			return
		}
		m, err := parseMove(b)
		if err != nil {
			if _, ok := err.(*abi.Failure); !ok {
				t.Errorf("%x: error %T", b, err)
			}
			return
		}
		rest := m.emit
		for range m.count {
			var c child
			if c, rest, err = nextChild(rest); err != nil || c.data != nil && abi.CheckItem(c.data) != nil {
				t.Fatalf("%x: child %+v, error %v", b, c, err)
			}
		}
		if m.data != nil && abi.CheckItem(m.data) != nil || m.after < 0 || len(rest) > 1 {
			t.Errorf("%x: %+v, rest %x", b, m, rest)
		}
	})
}

// FuzzItemID reads ids of items: an id that is read names one root and one path.
func FuzzItemID(f *testing.F) {
	for _, id := range []string{"7", "7->0->3", `"7"->0`, `"a""b"->1`, "a", "->", `"`, "7->", "7->4294967296"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		ref, ok := parseItem(id)
		if !ok {
			return
		}
		n := &name{}
		for _, number := range ref.path {
			n = n.child(number)
		}
		again, ok := parseItem(ref.root + string(n.appendPath(nil)))
		if !ok || again.root != ref.root || len(again.path) != len(ref.path) {
			t.Errorf("%q: %+v, and again %+v", id, ref, again)
		}
		_ = rootOf(ref.root)
	})
}

// FuzzGivenEffects reads files of effects: what is accepted does not panic later.
func FuzzGivenEffects(f *testing.F) {
	sum := make([]byte, 32)
	f.Add(item_(f, []any{1, 1, "call", sum, "out"}))
	f.Add(item_(f, []any{"a->1", 2, "call", sum, "effect", "refused"}))
	f.Add((&Redrive{ID: abi.IntID(7), From: "a", To: "b", Step: 3, Children: true, Last: true}).appendTo(nil, 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		g := &GivenEffects{results: map[string]givenResult{}}
		if abi.CheckItem(b) != nil || !g.add(b) {
			return
		}
		for i := range g.redrives {
			again := &GivenEffects{results: map[string]givenResult{}}
			if leaf := g.redrives[i].appendTo(nil, i+1); !again.add(leaf) || again.redrives[0] != g.redrives[i] {
				t.Errorf("%x: %+v is written as %x", b, g.redrives[i], leaf)
			}
		}
		for _, r := range g.results {
			if r.failure == nil && abi.CheckItem(r.output) != nil {
				t.Errorf("%x: output %x", b, r.output)
			}
		}
	})
}

// FuzzReceipt reads receipts: what is accepted prints to itself.
func FuzzReceipt(f *testing.F) {
	b, err := (&Receipt{Kind: "flow", Version: ReceiptVersion, Ends: map[string]Trail{"done": {}}, States: map[string]StateReceipt{"a": {}}}).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := ParseReceipt(b)
		if err != nil {
			return
		}
		if own, err := r.Marshal(); err != nil || !bytes.Equal(own, b) {
			t.Errorf("%v: %s prints to %s", err, b, own)
		}
	})
}

// FuzzProof checks proofs: none of another receipt holds, and none panics.
func FuzzProof(f *testing.F) {
	p := &Proof{Kind: "flow", Version: ReceiptVersion, Steps: []StepProof{{State: "a", Output: []byte{0xbf}}}, Root: EndProof{Data: []byte{1}}, End: EndProof{State: "done", Data: []byte{1}}}
	b, err := p.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	r := &Receipt{Ends: map[string]Trail{"done": {Count: 1}}, States: map[string]StateReceipt{"a": {Steps: 1}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParseProof(b)
		if err == nil && p.Verify(r) == nil {
			t.Errorf("%s holds", b)
		}
		if err == nil && p.checkForm() == nil {
			_ = p.chain()
		}
	})
}
