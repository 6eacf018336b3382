package wasi

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"
)

// prepareLoops writes the arguments for the loops of the module to its memory.
func (g *guest) prepareLoops() {
	g.put(0, u32(1040), u32(20))
	g.put(1024, clockSubscription(1, 1, 1, 0), fileSubscription(2, eventFdWrite, 1))
	g.state.Reset(Call{Stdout: io.Discard})
}

// TestAllocations checks that calls of guests do not allocate, and Reset does not
// either.
func TestAllocations(t *testing.T) {
	g := newGuest(t, Config{Charge: func(uint64) {}})
	input := make([]byte, 100_000)
	for name := range loops {
		f := g.mod.ExportedFunction("loop " + name)
		stack := make([]uint64, 1)
		got := testing.AllocsPerRun(20, func() {
			g.prepareLoops()
			g.state.call.Input = input
			stack[0] = 100
			if err := f.CallWithStack(g.ctx, stack); err != nil {
				t.Fatal(err)
			}
		})
		// prepareLoops allocates; that is measured without any call.
		idle := testing.AllocsPerRun(20, func() {
			g.prepareLoops()
			stack[0] = 1
			if err := f.CallWithStack(g.ctx, stack); err != nil {
				t.Fatal(err)
			}
		})
		if got != idle {
			t.Errorf("%s: 100 calls make %v allocations, one call %v", name, got, idle)
		}
	}
	if n := testing.AllocsPerRun(100, func() { g.state.Reset(Call{Phase: "call", Input: input}) }); n > 0 {
		t.Errorf("Reset makes %v allocations", n)
	}
}

// BenchmarkCall measures one call from guest to host, in comparison with the
// engine's own implementation. sched_yield does nothing else.
func BenchmarkCall(b *testing.B) {
	ctx := context.Background()
	r := wazero.NewRuntime(ctx)
	defer r.Close(ctx)
	wasi_snapshot_preview1.MustInstantiate(ctx, r)
	theirs, err := r.InstantiateModule(ctx, compile(r, module(1, loops)), wazero.NewModuleConfig().WithStdout(io.Discard))
	if err != nil {
		b.Fatal(err)
	}
	ours := newGuest(b, Config{Charge: func(uint64) {}})
	ours.prepareLoops()
	theirs.Memory().Write(0, ours.get(0, 4096))
	for _, name := range []string{"sched_yield", "clock_time_get", "random_get", "fd_write", "poll_oneoff"} {
		for who, mod := range map[string]api.Module{"ours": ours.mod, "engine": theirs} {
			b.Run(name+"/"+who, func(b *testing.B) {
				f := mod.ExportedFunction("loop " + name)
				b.ReportAllocs()
				b.ResetTimer()
				if err := f.CallWithStack(ours.ctx, []uint64{uint64(b.N)}); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

func BenchmarkReset(b *testing.B) {
	s := New(Config{})
	input := make([]byte, 1<<20)
	b.ReportAllocs()
	for b.Loop() {
		s.Reset(Call{Phase: "call", Seed: 1, Input: input})
	}
}

// BenchmarkKey measures the first random_get of a call with an input of 100 bytes.
func BenchmarkKey(b *testing.B) {
	s := New(Config{})
	s.Reset(Call{Phase: "call", Input: make([]byte, 100)})
	b.ReportAllocs()
	for b.Loop() {
		s.key()
	}
}

// BenchmarkFind compares ways to find the state from a call.
func BenchmarkFind(b *testing.B) {
	g := newGuest(b, Config{})
	only, states := g.state, map[api.Module]*State{g.mod: g.state}
	var ctx context.Context = g.ctx
	var mutex sync.RWMutex
	var shared sync.Map
	shared.Store(g.mod, g.state)
	for _, find := range []struct {
		name string
		by   Find
	}{
		{"none", func(context.Context, api.Module) *State { return only }},
		{"context type", findByType},
		{"context value", findByValue},
		{"map", func(_ context.Context, m api.Module) *State {
			mutex.RLock()
			defer mutex.RUnlock()
			return states[m]
		}},
		{"sync.Map", func(_ context.Context, m api.Module) *State {
			s, _ := shared.Load(m)
			return s.(*State)
		}},
	} {
		b.Run(find.name, func(b *testing.B) {
			for b.Loop() {
				if find.by(ctx, g.mod) == nil {
					b.Fatal("not found")
				}
			}
		})
	}
}

// BenchmarkMemoryOf measures the check for a nil pointer in an interface.
func BenchmarkMemoryOf(b *testing.B) {
	g := newGuest(b, Config{})
	b.Run("plain", func(b *testing.B) {
		for b.Loop() {
			if g.mod.Memory() == nil {
				b.Fatal("no memory")
			}
		}
	})
	b.Run("checked", func(b *testing.B) {
		for b.Loop() {
			if memoryOf(g.mod) == nil {
				b.Fatal("no memory")
			}
		}
	})
}
