package runtime

import (
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// TestIdleInstancesAreBounded has more pools than instances may be idle. The
// instances of the least recently used pools are closed, and are created again
// when needed.
func TestIdleInstancesAreBounded(t *testing.T) {
	wasm, err := os.ReadFile("../guest-examples/square/c/square.wasm")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	m, err := r.Compile(t.Context(), wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var pools []*Pool
	call := func(p *Pool) {
		i := p.Borrow(nil)
		defer i.Release()
		if out, _, err := i.Call(t.Context(), abi.ExportExec, []byte{3}, nil); err != nil || len(out) == 0 {
			t.Fatal(out, err)
		}
	}
	for seed := range uint64(maxIdle + 10) {
		p, err := m.Prepare(t.Context(), Settings{Seed: seed})
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
		call(p)
		call(pools[0]) // stays the most recently used one
	}
	if n := r.idle.order.Len(); n != maxIdle {
		t.Errorf("%d instances are idle, more than the limit of %d", n, maxIdle)
	}
	if s := pools[0].Stats(); s.Created != 1 || s.Closed != 0 {
		t.Errorf("the pool in use: %+v", s)
	}
	if s := pools[1].Stats(); s.Created != 1 || s.Closed != 1 {
		t.Errorf("the pool that was used longest ago: %+v", s)
	}
	call(pools[1])
	if s := pools[1].Stats(); s.Created != 2 {
		t.Errorf("it was used again: %+v", s)
	}
	for _, p := range pools {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if s := p.Stats(); s.Created != s.Closed {
			t.Errorf("%+v", s)
		}
	}
	if n := r.idle.order.Len(); n != 0 {
		t.Errorf("%d instances are idle without a pool", n)
	}
}

// One job keeps as many instances as it used at once, however many those are.
func TestIdleInstancesOfOnePool(t *testing.T) {
	wasm, err := os.ReadFile("../guest-examples/square/c/square.wasm")
	if err != nil {
		t.Fatal(err)
	}
	r, err := New(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	m, err := r.Compile(t.Context(), wasm, Options{})
	if err != nil {
		t.Fatal(err)
	}
	p, err := m.Prepare(t.Context(), Settings{})
	if err != nil {
		t.Fatal(err)
	}
	const n = maxIdle + 20
	for range 2 {
		var all []*Instance
		for range n {
			i := p.Borrow(nil)
			all = append(all, i)
			if _, _, err := i.Call(t.Context(), abi.ExportExec, []byte{3}, nil); err != nil {
				t.Fatal(err)
			}
		}
		for _, i := range all {
			i.Release()
		}
	}
	if s := p.Stats(); s.Created != n || s.Closed != 0 {
		t.Errorf("%+v", s)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
