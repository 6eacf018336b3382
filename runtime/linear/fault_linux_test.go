package linear

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
)

var errInjected = errors.New("injected")

// failing fails the n-th system call, from 0, and counts all calls.
type failing struct {
	n, calls int
	failed   string // the call that failed
}

func (f *failing) fault(call string) error {
	f.calls++
	if f.calls-1 != f.n {
		return nil
	}
	f.failed = call
	return errInjected
}

// life makes a memory, takes a snapshot and resets it after calls that grow it
// and write everywhere. Other memory is in use than before the snapshot. The
// image is large enough to be tracked. The error is from the first step that
// failed; all steps before it must have been right.
func life(t *testing.T, s Strategy, f *failing) (err error) {
	const pages, limit = 4, 40 * PageSize
	m, err := New(Options{Limit: limit, Strategy: s, Fault: f.fault})
	if err != nil {
		return err
	}
	defer m.Free()
	b := m.Reallocate(pages * PageSize)
	if b == nil {
		return fmt.Errorf("first growth: %w", m.Failed())
	}
	i := &instance{m, b, limit / PageSize}
	want := pattern(pages)
	copy(i.bytes, want)
	img, err := m.Snapshot()
	if err != nil {
		return err
	}
	defer img.Close()
	if err := m.Attach(img, i); err != nil {
		return err
	}
	for round := range sweepEvery + 2 {
		if !bytes.Equal(i.bytes, want) || m.Denied() || m.Failed() != nil {
			t.Fatalf("%s, call %d fails (%s): round %d: not the image", s, f.n, f.failed, round)
		}
		for at := 0; at < len(i.bytes); at += PageSize * (1 + round%3) {
			i.bytes[at] ^= 0xff
		}
		if round%8 == 3 {
			if _, ok := i.Grow(uint32(round % 30)); !ok {
				if m.Denied() || !errors.Is(m.Failed(), errInjected) {
					t.Fatalf("%s: after a growth that the system refused: denied %v, failed %v", s, m.Denied(), m.Failed())
				}
				return m.Failed()
			}
			i.bytes[len(i.bytes)-1] = 9
		}
		if err := m.Reset(i); err != nil {
			return err
		}
	}
	return nil
}

// TestFailuresOfTheSystem fails each system call in turn: a memory is right or
// reports that it is not.
func TestFailuresOfTheSystem(t *testing.T) {
	live := Live()
	calls := map[string]int{}
	for _, s := range append(Strategies(), Auto) {
		whole := &failing{n: -1}
		if err := life(t, s, whole); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		for n := range whole.calls {
			f := &failing{n: n}
			if err := life(t, s, f); err != nil && !errors.Is(err, errInjected) {
				t.Errorf("%s, call %d (%s): %v", s, n, f.failed, err)
			}
			calls[f.failed]++
		}
	}
	for _, call := range []string{"mmap", "mprotect", "madvise", "memfd_create", "ftruncate", "pwrite", "fcntl"} {
		if calls[call] == 0 {
			t.Errorf("no %s was made", call)
		}
	}
	if n := Live(); n != live {
		t.Errorf("%d memories and images are left", n-live)
	}
	t.Log(calls)
}
