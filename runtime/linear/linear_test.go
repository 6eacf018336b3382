package linear

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
)

// instance does the part of wazero with a memory (MemoryInstance.Grow).
type instance struct {
	m     *Memory
	bytes []byte
	max   uint32 // pages
}

// instantiate makes an instance with min pages.
func instantiate(m *Memory, min, max uint32) *instance {
	return &instance{m, m.Allocate(0, 0).Reallocate(uint64(min) * PageSize), max}
}

func (i *instance) Grow(pages uint32) (uint32, bool) {
	n := uint32(len(i.bytes) / PageSize)
	if n+pages > i.max {
		return 0, false
	}
	b := i.m.Reallocate(uint64(n+pages) * PageSize)
	if b == nil {
		return 0, false
	}
	i.bytes = b
	return n, true
}

// variant is a space with a strategy.
type variant struct {
	heap     bool
	strategy Strategy
}

func (v variant) String() string {
	if v.heap {
		return "heap/" + v.strategy.String()
	}
	return v.strategy.String()
}

// variants are all variants of this system, and the portable ones.
func variants() []variant {
	all := []variant{{true, Copy}, {true, Compare}, {false, Auto}}
	for _, s := range Strategies() {
		all = append(all, variant{false, s})
	}
	return all
}

func (v variant) memory(t testing.TB, o Options) *Memory {
	t.Helper()
	o.Strategy = v.strategy
	m, err := New(o)
	if v.heap && err == nil {
		if m.space.free() != nil {
			t.Fatal("not unmapped")
		}
		m.space = newHeap(m.options.Limit)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Free)
	return m
}

func forEachVariant(t *testing.T, f func(*testing.T, variant)) {
	for _, v := range variants() {
		t.Run(v.String(), func(t *testing.T) { f(t, v) })
	}
}

func imageOf(t testing.TB, b []byte) *Image {
	t.Helper()
	img, err := NewImage(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(img.Close)
	return img
}

// pattern has n pages. Only the units in zero have bytes that are 0.
func pattern(n int, zero ...int) []byte {
	b := make([]byte, n*PageSize)
	for i := range len(b) / unit {
		if !slices.Contains(zero, i) {
			copy(b[i*unit:], bytes.Repeat([]byte{byte(i%255) + 1}, unit))
		}
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestResetRestoresBytesAndLength(t *testing.T) {
	for _, pages := range []int{0, 1, 2, 3, 40} {
		forEachVariant(t, func(t *testing.T, v variant) {
			content := pattern(pages, 1, 2, 5, 20)
			m := v.memory(t, Options{Limit: 100 * PageSize})
			i := instantiate(m, uint32(min(pages, 1)), 1000)
			must(t, m.Attach(imageOf(t, content), i))
			for round := range 4 {
				if !bytes.Equal(i.bytes, content) {
					t.Fatalf("round %d: %d pages differ from the image of %d pages", round, len(i.bytes)/PageSize, pages)
				}
				if _, ok := i.Grow(uint32(10 * round)); !ok {
					t.Fatal("no growth")
				}
				if !allZero(i.bytes[len(content):]) {
					t.Fatal("grown memory is not zero")
				}
				for at := round; at < len(i.bytes); at += 3 * unit {
					i.bytes[at] ^= 0x55
				}
				must(t, m.Reset(i))
			}
		})
	}
}

// play runs operations on a memory and on a model of it; two bytes choose one.
func play(t testing.TB, v variant, keep uint64, ops []byte) {
	images := [][]byte{pattern(3, 3, 17), pattern(1), append(pattern(2), make([]byte, 2*PageSize)...), {}}
	m := v.memory(t, Options{Limit: 40 * PageSize, Keep: keep})
	defer m.Free()
	i := instantiate(m, 1, 1000)
	image := images[0]
	model := slices.Clone(image)
	must(t, m.Attach(imageOf(t, image), i))
	denied := false // since the last reset
	for ; len(ops) >= 2; ops = ops[2:] {
		switch op, n := ops[0]%8, int(ops[1]); op {
		case 0:
			_, ok := i.Grow(uint32(n % 16))
			if ok != (len(model)+n%16*PageSize <= 40*PageSize) {
				t.Fatalf("growth of %d pages by %d: %v", len(model)/PageSize, n%16, ok)
			}
			denied = denied || !ok
			if ok {
				model = append(model, make([]byte, n%16*PageSize)...)
			}
		case 1:
			image = images[n%len(images)]
			must(t, m.Attach(imageOf(t, image), i))
			model, denied = slices.Clone(image), false
		case 2, 3:
			must(t, m.Reset(i))
			model, denied = slices.Clone(image), false
		default:
			for k := range int(op) * 40 {
				if at := (n*unit*3 + k*77) + k%3*PageSize; at < len(model) {
					model[at] ^= byte(op)
					i.bytes[at] ^= byte(op)
				}
			}
		}
		if !bytes.Equal(i.bytes, model) {
			t.Fatalf("%s: after %d: memory differs from the model", v, ops[0]%8)
		}
		if denied != m.Denied() {
			t.Fatalf("%s: after %d: denied %v, want %v", v, ops[0]%8, m.Denied(), denied)
		}
	}
}

func TestRandomSequences(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		r := rand.New(rand.NewPCG(1, uint64(v.strategy)))
		for range 5 {
			ops := make([]byte, 150)
			for i := range ops {
				ops[i] = byte(r.Uint32())
			}
			play(t, v, 1<<(12+r.UintN(10)), ops)
		}
	})
}

func FuzzSequences(f *testing.F) {
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), []byte{0, 5, 7, 9, 2, 0, 0, 15, 4, 1, 1, 1, 0, 3, 2, 2})
	f.Fuzz(func(t *testing.T, keep uint8, ops []byte) {
		for _, v := range variants() {
			play(t, v, uint64(keep)<<12, ops[:min(len(ops), 200)])
		}
	})
}

func TestGrowthEndsAtTheLimit(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		m := v.memory(t, Options{Limit: 4*PageSize + 1})
		i := instantiate(m, 1, 1000)
		must(t, m.Attach(imageOf(t, pattern(1)), i))
		if _, ok := i.Grow(3); !ok || m.Denied() {
			t.Fatal("denied below the limit")
		}
		if _, ok := i.Grow(1); ok || !m.Denied() {
			t.Fatal("not denied above the limit")
		}
		must(t, m.Reset(i))
		if m.Denied() {
			t.Fatal("still denied after Reset")
		}
		if _, ok := i.Grow(3); !ok {
			t.Fatal("denied below the limit after Reset")
		}
	})
}

func TestTheGuestsOwnMaximumIsNoDenial(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		m := v.memory(t, Options{Maximum: 3 * PageSize})
		i := instantiate(m, 1, 4) // one page more than the maximum
		must(t, m.Attach(imageOf(t, pattern(1)), i))
		if _, ok := i.Grow(3); ok || m.Denied() {
			t.Fatal("grown above the maximum, or denied")
		}
		if _, ok := i.Grow(2); !ok {
			t.Fatal("not grown to the maximum")
		}
		must(t, m.Reset(i))
	})
}

func TestAMemoryAtItsDeclaredMaximumCannotShrink(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		m := v.memory(t, Options{})
		i := instantiate(m, 1, 3)
		must(t, m.Attach(imageOf(t, pattern(1)), i))
		i.Grow(2)
		if err := m.Reset(i); !errors.Is(err, ErrFixed) {
			t.Fatalf("%v, want ErrFixed", err)
		}
	})
}

func TestAttachAtTheDeclaredMaximum(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		m := v.memory(t, Options{})
		i := instantiate(m, 1, 3)
		i.Grow(1)
		i.Grow(1)
		must(t, m.Attach(imageOf(t, pattern(3)), i))
		i.bytes[5]++
		must(t, m.Reset(i))
		if !bytes.Equal(i.bytes, pattern(3)) {
			t.Fatal("not restored")
		}
	})
}

func TestClonesDoNotSeeEachOther(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		content := pattern(4)
		template := v.memory(t, Options{})
		a := instantiate(template, 4, 1000)
		copy(a.bytes, content)
		img, err := template.Snapshot()
		must(t, err)
		must(t, template.Attach(img, a))
		clone := v.memory(t, Options{})
		b := instantiate(clone, 1, 1000)
		b.bytes[9] = 9 // as a data segment does
		must(t, clone.Attach(img, b))
		img.Close() // its memories keep it
		a.bytes[0], b.bytes[unit] = 77, 78
		if b.bytes[0] != content[0] || a.bytes[unit] != content[unit] {
			t.Fatal("a write to one memory changes the other")
		}
		must(t, template.Reset(a))
		if b.bytes[unit] != 78 {
			t.Fatal("a reset of one memory resets the other")
		}
		must(t, clone.Reset(b))
		if !bytes.Equal(a.bytes, content) || !bytes.Equal(b.bytes, content) {
			t.Fatal("not restored")
		}
	})
}

func TestMemoriesOfOneImageRunAtOnce(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		content := pattern(5)
		img := imageOf(t, content)
		var wg sync.WaitGroup
		for worker := range 8 {
			m := v.memory(t, Options{Limit: 20 * PageSize})
			wg.Go(func() {
				defer m.Free()
				i := instantiate(m, 1, 1000)
				if err := m.Attach(img, i); err != nil {
					t.Error(err)
					return
				}
				for round := range 50 {
					i.Grow(uint32(round % 3))
					i.bytes[(worker*round*unit)%len(i.bytes)]++
					if err := m.Reset(i); err != nil || !bytes.Equal(i.bytes, content) {
						t.Errorf("not restored: %v", err)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

// TestResetOfScatteredBytes resets images of single bytes: next to each other, far
// apart, and at both ends.
func TestResetOfScatteredBytes(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		rng := rand.New(rand.NewPCG(5, 6))
		for _, count := range []int{0, 1, 2, 10, 100} {
			want := make([]byte, 2*PageSize)
			for range count {
				want[rng.IntN(len(want))] = 1
			}
			if count == 2 {
				clear(want)
				want[0], want[len(want)-1] = 1, 1
			}
			i := attached(t, v, imageOf(t, want), 0)
			for round := range 6 { // both directions, with the memory as it was and grown
				if round > 3 {
					i.Grow(1)
				}
				for at := range i.bytes {
					i.bytes[at] = 0xff
				}
				must(t, i.m.Reset(i))
				if !bytes.Equal(i.bytes, want) {
					t.Fatalf("%d bytes: the memory differs from the image", count)
				}
			}
		}
	})
}

// useAndFree makes memories and images and frees all of them.
func useAndFree(t *testing.T, v variant) {
	for range 20 {
		m := v.memory(t, Options{})
		i := instantiate(m, 1, 1000)
		for _, pages := range []int{3, 0, 2} {
			img, err := NewImage(pattern(pages))
			must(t, err)
			must(t, m.Attach(img, i))
			img.Close()
			img.Close()
		}
		i.Grow(4)
		must(t, m.Reset(i))
		m.Free()
		m.Free()
	}
}

func TestNothingIsLeft(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		before := Live()
		useAndFree(t, v)
		if n := Live() - before; n != 0 {
			t.Errorf("%d memories and images too many", n)
		}
	})
}

func TestErrors(t *testing.T) {
	if _, err := New(Options{Limit: MaxLimit + 1}); err == nil {
		t.Error("limit of 4 GiB accepted")
	}
	if _, err := New(Options{Strategy: 99}); err == nil {
		t.Error("unknown strategy accepted")
	}
	if _, err := NewImage(make([]byte, 5)); err == nil {
		t.Error("image of 5 bytes accepted")
	}
	img := imageOf(t, pattern(3))
	m := variant{}.memory(t, Options{Limit: 2 * PageSize})
	i := instantiate(m, 1, 1000)
	if err := m.Reset(i); err == nil {
		t.Error("reset without an image")
	}
	if err := m.Attach(img, i); err == nil {
		t.Error("image over the limit accepted")
	}
	other := instantiate(variant{}.memory(t, Options{}), 1, 1000)
	if err := m.Attach(imageOf(t, pattern(2)), other); err == nil {
		t.Error("memory of another instance accepted")
	}
	img.Close()
	if err := other.m.Attach(img, other); !errors.Is(err, ErrClosed) {
		t.Errorf("attach to a closed image: %v", err)
	}
	m.Free()
	_, snapshot := m.Snapshot()
	for _, err := range []error{m.Reset(i), m.Attach(img, i), snapshot} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("after Free: %v", err)
		}
	}
	if m.Reallocate(PageSize) != nil {
		t.Error("memory after Free")
	}
}

func TestStrategyNames(t *testing.T) {
	if got := fmt.Sprint(Auto, Copy, Compare, Scan, Pagemap, Discard, Userfault, Strategy(9)); got != "auto copy compare scan pagemap discard userfault strategy(9)" {
		t.Error(got)
	}
}

func TestResetDoesNotAllocate(t *testing.T) {
	forEachVariant(t, func(t *testing.T, v variant) {
		m := v.memory(t, Options{})
		i := instantiate(m, 1, 1000)
		must(t, m.Attach(imageOf(t, pattern(5)), i))
		n := testing.AllocsPerRun(50, func() {
			i.Grow(1)
			i.bytes[7*unit]++
			must(t, m.Reset(i))
		})
		if n != 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
