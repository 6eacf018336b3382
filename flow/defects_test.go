package flow

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// refusing fails for every item.
var refusing = pureFunc("refusing", func(any) any { return abi.Failf(abi.ClassGuest, "no") })

// runOn runs a flow on a store, and returns the lines of its dead letter.
func runOn(t *testing.T, s *store.Memory, r *Run) (*Result, *gathered) {
	t.Helper()
	g := &gathered{}
	r.Sink = g
	res, err := NewRunner(Config{Store: s, Records: s}).Run(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return res, g
}

// TestRefusalsEnd routes an item that a state refuses back into the state: it fails,
// and does not go round for ever.
func TestRefusalsEnd(t *testing.T) {
	for name, f := range map[string]*Flow{
		"itself": {Name: "f", States: []State{
			{Name: "a", Exec: refusing, Next: "done", On: map[abi.Class]string{AnyClass: "a"}},
			{Name: "done", End: true},
		}},
		"each other": {Name: "f", States: []State{
			{Name: "a", Exec: refusing, Next: "done", On: map[abi.Class]string{AnyClass: "b"}},
			{Name: "b", Exec: refusing, Next: "done", On: map[abi.Class]string{AnyClass: "a"}},
			{Name: "done", End: true},
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := store.NewMemory()
			defer s.Close()
			for range 2 {
				_, g := runOn(t, s, &Run{Flow: f, Input: inputOf(t, 1)})
				if len(g.dead) != 1 || !strings.Contains(g.dead[0], " loop ") {
					t.Errorf("dead letter %q, want one item of class loop", g.dead)
				}
			}
		})
	}
}

// TestRedrivesEnd sends items to states that refuse them, and to the end where they
// are: each decision counts once.
func TestRedrivesEnd(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "a", Exec: pureFunc("plus", func(v any) any { return v.(uint64) + 1 }), Next: "a", MaxVisits: 3, On: map[abi.Class]string{abi.ClassGuest: "lost"}},
		{Name: "b", Exec: pureFunc("id", func(v any) any { return v }), Next: "lost"},
		{Name: "lost", Failed: true}, {Name: "gone", Failed: true},
	}}
	f.States[1].Next, f.States[0].On["trap"] = "gone", "b"
	s := store.NewMemory()
	defer s.Close()
	run := func() *gathered {
		_, g := runOn(t, s, &Run{Flow: f, Input: inputOf(t, 1)})
		return g
	}
	keep := func(d Redrive) {
		t.Helper()
		d.ID = abi.IntID(0)
		if err := KeepRedrives(context.Background(), s, "f", []Redrive{d}); err != nil {
			t.Fatal(err)
		}
	}
	run()
	for i, d := range []Redrive{
		{From: "a", Step: 3, To: "a"}, {From: "a", Step: 3, To: "lost"}, {From: "lost", Step: 3, To: "lost"},
		{From: "lost", Step: 3, To: "gone"}, {From: "gone", Step: 3, To: "lost"},
	} {
		keep(d)
		if g := run(); len(g.dead) != 1 {
			t.Errorf("after decision %d: dead letter %q, want one item", i, g.dead)
		}
	}
}

// TestRedriveOfAWait sends an item on that waits.
func TestRedriveOfAWait(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "wait", Wait: time.Hour, Next: "a"},
		{Name: "a", Exec: pureFunc("id", func(v any) any { return v }), Next: "done", Retry: queue.DefaultPolicy()},
		{Name: "done", End: true},
	}}
	s := store.NewMemory()
	defer s.Close()
	stop := make(chan struct{})
	close(stop)
	r := NewRunner(Config{Store: s, Records: s})
	if _, err := r.Run(context.Background(), &Run{Flow: f, Input: inputOf(t, 1), Stop: stop}); !errors.Is(err, ErrInterrupted) {
		t.Fatal(err)
	}
	if err := KeepRedrives(context.Background(), s, "f", []Redrive{{ID: abi.IntID(0), From: "wait", Step: 1, To: "a"}}); err != nil {
		t.Fatal(err)
	}
	_, g := runOn(t, s, &Run{Flow: f, Input: inputOf(t, 1)})
	if !slices.Equal(g.lines, []string{"0 done 1"}) {
		t.Errorf("ends %q", g.lines)
	}
}

// TestMessagesAreText joins a child that failed with a message that is not UTF-8: the
// message is data of the join, the same in the run and in each later one.
func TestMessagesAreText(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "plan", Moves: true, To: []string{"work", "join"}, Children: &Children{Join: "join", Tolerate: 1}, Exec: pureFunc("plan", func(any) any {
			return map[string]any{"next": "join", "emit": []any{map[string]any{"next": "work", "data": 1}}}
		})},
		{Name: "work", Exec: pureFunc("work", func(any) any { return abi.Failf(abi.ClassGuest, "bad \xff byte") }), Next: "done"},
		{Name: "join", Exec: pureFunc("join", func(v any) any { return fmt.Sprint(v.(map[any]any)["failed"]) }), Next: "done"},
		{Name: "done", End: true},
	}}
	s := store.NewMemory()
	defer s.Close()
	for range 2 {
		_, g := runOn(t, s, &Run{Flow: f, Input: inputOf(t, 1)})
		if len(g.lines) != 1 || !strings.Contains(g.lines[0], "bad ? byte") {
			t.Errorf("ends %q", g.lines)
		}
	}
}

// TestFalseProofs changes what a proof says about its item, or makes its data
// malformed.
func TestFalseProofs(t *testing.T) {
	f := &Flow{Name: "f", States: []State{
		{Name: "a", Exec: pureFunc("id", func(v any) any { return v }), Next: "done"}, {Name: "done", End: true},
	}}
	s := store.NewMemory()
	defer s.Close()
	in := inputOf(t, 1, 2)
	res, _ := runOn(t, s, &Run{Flow: f, Input: in})
	for name, change := range map[string]func(*Proof){
		"id":        func(p *Proof) { p.ID = abi.IntID(9) },
		"end":       func(p *Proof) { p.End.ID = abi.TextID("0->1") },
		"step":      func(p *Proof) { p.Steps[0].ID = abi.IntID(1) },
		"truncated": func(p *Proof) { p.Steps[0].Output = receipt.Hex{0xbf} },
		"empty":     func(p *Proof) { p.Root.Data = nil },
	} {
		p, err := (&Look{Name: "f", Flow: f, Input: in, Store: s}).Prove(context.Background(), "0", res.Receipt)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Verify(res.Receipt); err != nil {
			t.Fatal(err)
		}
		if change(p); !errors.Is(p.Verify(res.Receipt), receipt.ErrNotProved) {
			t.Errorf("a proof with another %s holds", name)
		}
	}
}

// TestDigestOfAFlow compares flows that were built by hand.
func TestDigestOfAFlow(t *testing.T) {
	a := &Flow{Name: "f", States: []State{{Name: "a", End: true}}}
	b := &Flow{Name: "f", States: []State{{Name: "b", End: true}}}
	first, again := a.digest(), a.digest()
	if first == b.digest() || first != again {
		t.Error("different flows have the same digest, or one has two")
	}
}
