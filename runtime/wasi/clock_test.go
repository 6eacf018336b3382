package wasi

import (
	"bytes"
	"crypto/sha256"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	g := newGuest(t, Config{})
	for _, preparing := range []bool{false, true, false} {
		wall, mono := callWall, callMono
		if preparing {
			wall, mono = prepareWall, prepareMono
		}
		g.state.Reset(Call{Preparing: preparing})
		for i, id := range []uint64{0, 1, 2, 3, 0} {
			want := mono
			if id == 0 {
				want = wall
			}
			want += time.Duration(i+1) * time.Millisecond
			if got := time.Duration(g.now(id)); got != want {
				t.Errorf("reading %d of clock %d: %v, want %v", i, id, got, want)
			}
		}
	}
	g.must("clock_res_get", 3, 64)
	if g.uint64(64) != 1_000_000 {
		t.Errorf("resolution %d", g.uint64(64))
	}
	for _, id := range []uint64{4, 1 << 31, 1<<32 - 1} {
		if e := g.call("clock_time_get", id, 0, 64); e != errInval {
			t.Errorf("clock %d: errno %d", id, e)
		}
		if e := g.call("clock_res_get", id, 64); e != errInval {
			t.Errorf("resolution of clock %d: errno %d", id, e)
		}
	}
}

// TestClockLimit sleeps forever: time stops at its limit. While the guest is being
// prepared, the limit is before the first call.
func TestClockLimit(t *testing.T) {
	g := newGuest(t, Config{})
	for _, preparing := range []bool{true, false} {
		g.state.Reset(Call{Preparing: preparing})
		last := g.now(1)
		for range 3 {
			if n := g.sleep(1, math.MaxUint64, 0); n != 1 {
				t.Fatalf("%d events", n)
			}
			now := g.now(1)
			if now < last || now > math.MaxInt64 {
				t.Errorf("clock went from %d to %d", last, now)
			}
			if preparing && (now >= uint64(callMono) || g.now(0) >= uint64(callWall)) {
				t.Errorf("preparing reached the time of the calls: %d", now)
			}
			last = now
		}
		if wall := g.now(0); wall > math.MaxInt64 {
			t.Errorf("wall clock at %d", wall)
		}
	}
}

// clockSubscription encodes a subscription to a clock.
func clockSubscription(userdata uint64, id uint32, timeout uint64, flags uint16) []byte {
	return join(u64(userdata), u64(eventClock), u64(uint64(id)), u64(timeout), u64(0), u64(uint64(flags)))
}

// fileSubscription encodes a subscription to a descriptor.
func fileSubscription(userdata uint64, kind byte, fd uint32) []byte {
	return join(u64(userdata), u64(uint64(kind)), u64(uint64(fd)), make([]byte, 24))
}

func event(userdata uint64, e errno, kind byte, bytes uint64, flags uint16) []byte {
	return join(u64(userdata), []byte{byte(e), 0, kind, 0, 0, 0, 0, 0}, u64(bytes), u64(uint64(flags)))
}

// poll calls poll_oneoff and returns the events.
func (g *guest) poll(subscriptions ...[]byte) []byte {
	g.t.Helper()
	g.put(4096, subscriptions...)
	g.put(32768, bytes.Repeat([]byte{0xff}, eventSize*len(subscriptions)))
	g.must("poll_oneoff", 4096, 32768, uint64(len(subscriptions)), 8)
	return g.get(32768, int(g.uint32(8))*eventSize)
}

// sleep polls one clock and returns the number of events.
func (g *guest) sleep(id uint32, timeout uint64, flags uint16) uint32 {
	g.t.Helper()
	g.poll(clockSubscription(1, id, timeout, flags))
	return g.uint32(8)
}

func TestPoll(t *testing.T) {
	const ms = uint64(time.Millisecond)
	mono, wall := uint64(callMono), uint64(callWall)
	for _, test := range []struct {
		name   string
		in     [][]byte
		want   []byte
		passed uint64 // in nanoseconds
	}{
		{"relative", [][]byte{clockSubscription(7, 1, 5*ms+1, 0)}, event(7, 0, 0, 0, 0), 5*ms + 1},
		{"relative to the wall clock", [][]byte{clockSubscription(7, 0, 5*ms, 0)}, event(7, 0, 0, 0, 0), 5 * ms},
		{"now", [][]byte{clockSubscription(7, 1, 0, 0)}, event(7, 0, 0, 0, 0), 0},
		{"absolute", [][]byte{clockSubscription(7, 1, mono+9*ms, 1)}, event(7, 0, 0, 0, 0), 9 * ms},
		{"absolute wall", [][]byte{clockSubscription(7, 0, wall+9*ms, 1)}, event(7, 0, 0, 0, 0), 9 * ms},
		{"absolute past", [][]byte{clockSubscription(7, 0, 0, 1)}, event(7, 0, 0, 0, 0), 0},
		{"the earliest", [][]byte{clockSubscription(1, 1, 9*ms, 0), clockSubscription(2, 0, 3*ms, 0), clockSubscription(3, 1, mono+4*ms, 1)},
			event(2, 0, 0, 0, 0), 3 * ms},
		{"several at once, in their order", [][]byte{clockSubscription(1, 1, 3*ms, 0), clockSubscription(2, 1, 4*ms, 0), clockSubscription(3, 0, wall+3*ms, 1)},
			join(event(1, 0, 0, 0, 0), event(3, 0, 0, 0, 0)), 3 * ms},
		{"unknown clock", [][]byte{clockSubscription(1, 4, 3*ms, 0), clockSubscription(2, 1, 4*ms, 0)}, event(1, errInval, 0, 0, 0), 0},
		{"unknown flag", [][]byte{clockSubscription(1, 1, 3*ms, 2)}, event(1, errInval, 0, 0, 0), 0},
		{"input", [][]byte{clockSubscription(1, 1, 3*ms, 0), fileSubscription(2, eventFdRead, 0)}, event(2, 0, 1, 5, 0), 0},
		{"output", [][]byte{fileSubscription(1, eventFdWrite, 1), fileSubscription(2, eventFdWrite, 2), clockSubscription(3, 1, 0, 0)},
			join(event(1, 0, 2, piece, 0), event(2, 0, 2, piece, 0), event(3, 0, 0, 0, 0)), 0},
		{"wrong direction", [][]byte{fileSubscription(1, eventFdWrite, 0), fileSubscription(2, eventFdRead, 1)},
			join(event(1, errBadf, 2, 0, 0), event(2, errBadf, 1, 0, 0)), 0},
		{"not open", [][]byte{fileSubscription(1, eventFdRead, 3), fileSubscription(2, eventFdWrite, 1<<32-1)},
			join(event(1, errBadf, 1, 0, 0), event(2, errBadf, 2, 0, 0)), 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			g := newGuest(t, Config{})
			g.state.Reset(Call{Stdin: []byte("input")})
			if got := g.poll(test.in...); !bytes.Equal(got, test.want) {
				t.Errorf("got  %x\nwant %x", got, test.want)
			}
			if now := g.now(1); now != mono+test.passed+ms {
				t.Errorf("%d ns passed, want %d", now-mono-ms, test.passed)
			}
		})
	}
}

func TestPollAtEnd(t *testing.T) {
	g := newGuest(t, Config{})
	if got := g.poll(fileSubscription(1, eventFdRead, 0)); !bytes.Equal(got, event(1, 0, eventFdRead, 0, hangup)) {
		t.Errorf("got %x", got)
	}
}

func TestPollRefuses(t *testing.T) {
	g := newGuest(t, Config{})
	for _, n := range []uint64{0, maxSubscriptions + 1, 1 << 31, 1<<32 - 1} {
		if e := g.call("poll_oneoff", 0, 0, n, 0); e != errInval {
			t.Errorf("%d subscriptions: errno %d", n, e)
		}
	}
	g.put(4096, clockSubscription(1, 1, 10, 0), fileSubscription(2, 3, 0))
	if e := g.call("poll_oneoff", 4096, 32768, 2, 8); e != errInval {
		t.Errorf("unknown kind: errno %d", e)
	}
	if now := g.now(1); now != uint64(callMono+tick) {
		t.Errorf("time passed: %d", now)
	}
}

// TestPollInPlace writes the events over the subscriptions, which must have been
// read before.
func TestPollInPlace(t *testing.T) {
	g := newGuest(t, Config{})
	for i := range maxSubscriptions {
		g.put(4096+subscriptionSize*i, clockSubscription(uint64(i), 1, 5, 0))
	}
	g.must("poll_oneoff", 4096, 4096, maxSubscriptions, 8)
	if g.uint32(8) != maxSubscriptions {
		t.Fatalf("%d events", g.uint32(8))
	}
	for i := range maxSubscriptions {
		if got := g.get(4096+eventSize*i, eventSize); !bytes.Equal(got, event(uint64(i), 0, 0, 0, 0)) {
			t.Fatalf("event %d: %x", i, got)
		}
	}
}

// TestRandom computes the stream from its definition.
func TestRandom(t *testing.T) {
	g := newGuest(t, Config{})
	call := Call{Phase: "call", Seed: 0x0102030405060708, Input: bytes.Repeat([]byte{0x82, 0x01, 0x02}, 50_000)}
	key := sha256.Sum256(join([]byte("wasm-jobs random 1 call\x00\x01\x02\x03\x04\x05\x06\x07\x08"), call.Input))
	want := make([]byte, 10_000)
	rand.NewChaCha8(key).Read(want)

	g.state.Reset(call)
	if got := g.random(len(want)); !bytes.Equal(got, want) {
		t.Error("other bytes in one call")
	}
	g.state.Reset(call)
	var got []byte
	for n := 0; len(got) < len(want); n++ {
		got = append(got, g.random(min(n%41, len(want)-len(got)))...)
	}
	if !bytes.Equal(got, want) {
		t.Error("other bytes in many calls")
	}
	for name, other := range map[string]Call{
		"phase": {Phase: "prepare", Seed: call.Seed, Input: call.Input},
		"seed":  {Phase: "call", Seed: 1, Input: call.Input},
		"input": {Phase: "call", Seed: call.Seed},
	} {
		g.state.Reset(other)
		if bytes.Equal(g.random(16), want[:16]) {
			t.Errorf("another %s gives the same bytes", name)
		}
	}
}
