package wasi

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"hash"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// script is a sequence of calls, read from bytes: the function, and for each
// parameter a small number, an address, a limit or four bytes.
type script []byte

var edges = []uint64{0, 1, 2, 3, 4, 8, 16, 64, 100, 128, 1023, 1024, 1025, 4096, 32768, 60_000, memorySize - 64,
	memorySize - 8, memorySize - 4, memorySize - 1, memorySize, memorySize + 1, 1 << 20, 1<<31 - 1, 1 << 31, 1<<32 - 8, 1<<32 - 1}

func (s *script) byte() byte {
	if len(*s) == 0 {
		return 0
	}
	b := (*s)[0]
	*s = (*s)[1:]
	return b
}

// places are addresses with something for some function.
var places = []uint64{8, 64, 128, 1024, 4096}

func (s *script) arg() uint64 {
	switch b := int(s.byte()); b / 64 {
	case 0:
		return uint64(b % 4)
	case 1:
		return places[b%len(places)]
	case 2:
		return edges[b%len(edges)]
	default:
		return uint64(s.byte()) | uint64(s.byte())<<8 | uint64(s.byte())<<16 | uint64(s.byte())<<24
	}
}

// stateful are the functions that change the state.
var stateful = []string{"clock_time_get", "fd_close", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_read", "fd_renumber",
	"fd_write", "poll_oneoff", "random_get"}

// function picks a function, half of the time a stateful one.
func (s *script) function() int {
	b := int(s.byte())
	if b < 128 {
		return b % len(functions)
	}
	name := stateful[b%len(stateful)]
	return slices.IndexFunc(functions, func(f entry) bool { return f.name == name })
}

// observed collects everything that one run of a script can observe.
type observed struct {
	trace   []string
	out     hash.Hash
	charged uint64
	most    uint64 // that one call may charge
}

// run runs a script on a guest whose memory has some valid spans and subscriptions,
// and checks the guarantees for every call.
func (g *guest) run(s script, call Call) *observed {
	g.t.Helper()
	// The input is hashed once, and nothing is larger than memory or than the limit
	// of a transfer.
	o := &observed{out: sha256.New(), most: uint64(len(call.Input)) + 8*maxSpans + maxTransfer}
	call.Stdout, call.Stderr = o.out, o.out
	g.state.Charge = func(units uint64) { o.charged += units }
	g.state.Reset(call)
	memory := g.arena.memory()
	rnd := rand.New(rand.NewPCG(1, uint64(len(call.Input))))
	for i := 0; i < len(memory); i += 4 {
		le.PutUint32(memory[i:], rnd.Uint32()>>rnd.UintN(33))
	}
	for _, at := range []int{64, 1024} {
		g.put(at, u32(4096), u32(10), u32(32768), u32(3))
	}
	for _, at := range []int{128, 4096} {
		g.put(at, clockSubscription(1, 1, 1000, 0), fileSubscription(2, eventFdWrite, 1))
	}
	for range 32 {
		if len(s) == 0 {
			break
		}
		g.step(&s, o)
	}
	o.trace = append(o.trace, fmt.Sprintf("out %x", o.out.Sum(nil)))
	return o
}

func (g *guest) step(s *script, o *observed) {
	g.t.Helper()
	f := functions[s.function()]
	params, _ := valueTypes(f.signature)
	args := make([]uint64, len(params))
	for i := range args {
		args[i] = s.arg()
	}
	before, start := o.charged, time.Now()
	e, err := g.try(f.name, args...)
	if took := time.Since(start); took > 10*time.Second {
		g.t.Fatalf("%s%v took %v", f.name, args, took)
	}
	if err != nil && exitCode(err) < 0 {
		g.t.Fatalf("%s%v: %v", f.name, args, err)
	}
	if o.charged-before > o.most {
		g.t.Fatalf("%s%v charged %d", f.name, args, o.charged-before)
	}
	g.arena.check(g.t)
	o.trace = append(o.trace, fmt.Sprintf("%s%v: %d %d %d %x", f.name, args, e, exitCode(err), o.charged, sha256.Sum256(g.arena.memory())))
}

// FuzzCalls runs two scripts. Nothing may panic except an exit, write outside memory
// or work without limit. A script gives the same results after another script and a
// reset as on a new state.
func FuzzCalls(f *testing.F) {
	for i, fn := range functions {
		f.Add([]byte{byte(i), 1, 10, 3, 7, byte(i), 0, 14, 1, 20}, []byte{byte(i), byte(len(fn.name)), 200, 1, 2, 3, 4})
	}
	config := testConfig(f)
	f.Fuzz(func(t *testing.T, first, second []byte) {
		call1 := Call{Phase: "a", Seed: 7, Input: first, Stdin: first, Preparing: len(first)%2 == 1}
		call2 := Call{Phase: "b", Seed: 8, Input: second, Stdin: second}
		used, fresh := newGuest(t, config), newGuest(t, config)
		used.run(first, call1)
		compare(t, used.run(second, call2), fresh.run(second, call2))
	})
}

func testConfig(t testing.TB) Config {
	args, err1 := NewStrings("command", "-v")
	env, err2 := NewStrings("A=1")
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	return Config{Args: args, Env: env}
}

func compare(t testing.TB, got, want *observed) {
	t.Helper()
	if !slices.Equal(got.trace, want.trace) {
		t.Fatalf("a reset state differs from a new one:\n%q\n%q", got.trace, want.trace)
	}
}

// TestHostile runs random scripts over all functions on one state, and each also on
// a new state.
func TestHostile(t *testing.T) {
	config := testConfig(t)
	rounds := 100
	if testing.Short() {
		rounds = 10
	}
	rnd := rand.NewChaCha8([32]byte{1})
	used := newGuest(t, config)
	seen := map[string]bool{}
	for range rounds {
		s := make(script, 150)
		rnd.Read(s)
		call := Call{Phase: "call", Seed: rnd.Uint64(), Input: s, Stdin: s}
		got := used.run(s, call)
		compare(t, got, newGuest(t, config).run(s, call))
		for _, line := range got.trace {
			name, _, _ := bytes.Cut([]byte(line), []byte("["))
			seen[string(name)] = true
		}
	}
	if len(seen) <= len(functions) && !testing.Short() {
		t.Errorf("only %d functions were called", len(seen)-1)
	}
}
