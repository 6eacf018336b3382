package linear

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"
)

// guest is a module with a memory of 1 page, and at most max pages if max is not
// 0. It exports grow, load (4 bytes), store (1 byte) and refill, and has a data
// segment "data" at 8. Its start section writes 7 to 64 and grows the memory by a
// page.
func guest(max byte) []byte {
	limits := []byte{0, 1}
	if max > 0 {
		limits = []byte{1, 1, max}
	}
	return slices.Concat(
		[]byte("\x00asm\x01\x00\x00\x00"),
		section(1, 3, // types
			0x60, 1, 0x7f, 1, 0x7f,
			0x60, 2, 0x7f, 0x7f, 0,
			0x60, 0, 0),
		section(3, 5, 0, 0, 1, 1, 2), // functions
		section(5, 1, limits...),     // memories
		section(7, 4, // exports
			slices.Concat(export("grow", 0), export("load", 1), export("store", 2), export("refill", 3))...),
		section(8, 4), // start
		section(10, 5, // code
			slices.Concat(
				code(0x20, 0, 0x40, 0),                                           // memory.grow
				code(0x20, 0, 0x28, 0, 0),                                        // i32.load
				code(0x20, 0, 0x20, 1, 0x3a, 0, 0),                               // i32.store8
				code(0x20, 0, 0x20, 1, 0x3f, 0, 0xfc, 0x0b, 0),                   // memory.fill(at, value, memory.size)
				code(0x41, 0xc0, 0, 0x41, 7, 0x3a, 0, 0, 0x41, 1, 0x40, 0, 0x1a), // i32.store8 64 7, memory.grow 1
			)...),
		section(11, 1, slices.Concat([]byte{0, 0x41, 8, 0x0b, 4}, []byte("data"))...),
	)
}

func section(id, first byte, rest ...byte) []byte {
	return slices.Concat([]byte{id, byte(len(rest) + 1), first}, rest)
}

func export(name string, function byte) []byte {
	return slices.Concat([]byte{byte(len(name))}, []byte(name), []byte{0, function})
}

func code(instructions ...byte) []byte {
	return slices.Concat([]byte{byte(len(instructions) + 2), 0}, instructions, []byte{0x0b})
}

// module is an instance of guest.
type module struct {
	t testing.TB
	m *Memory
	api.Module
}

// host compiles guest on one engine.
type host struct {
	wazero.Runtime
	compiled wazero.CompiledModule
}

func newHost(t testing.TB, config wazero.RuntimeConfig, max byte) *host {
	t.Helper()
	r := wazero.NewRuntimeWithConfig(context.Background(), config.WithMemoryLimitPages(MaxLimit/PageSize))
	t.Cleanup(func() { r.Close(context.Background()) })
	compiled, err := r.CompileModule(context.Background(), guest(max))
	must(t, err)
	return &host{r, compiled}
}

func (h *host) instantiate(t testing.TB, m *Memory) *module {
	t.Helper()
	ctx := experimental.WithMemoryAllocator(context.Background(), m)
	mod, err := h.InstantiateModule(ctx, h.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	must(t, err)
	return &module{t, m, mod}
}

// call calls an export. It returns false after a trap.
func (m *module) call(name string, args ...uint64) (uint64, bool) {
	results, err := m.ExportedFunction(name).Call(context.Background(), args...)
	if err != nil || len(results) == 0 {
		return 0, err == nil
	}
	return results[0], true
}

func (m *module) bytes() []byte {
	b, ok := m.Memory().Read(0, m.Memory().Size())
	if !ok {
		m.t.Fatal("no memory")
	}
	return b
}

// mustEnd fails unless the guest can load below offset n, and not from n on.
func (m *module) mustEnd(load api.Function, n int) {
	m.t.Helper()
	stack := []uint64{uint64(n) - 4}
	if err := load.CallWithStack(context.Background(), stack); err != nil {
		m.t.Fatalf("load below %d: %v", n, err)
	}
	for _, at := range []int{n - 3, n, n + PageSize - 4, n + 9*PageSize} {
		stack[0] = uint64(at)
		if err := load.CallWithStack(context.Background(), stack); err == nil {
			m.t.Fatalf("load at %d of a memory of %d bytes: no trap", at, n)
		}
	}
}

func forEachEngine(t *testing.T, f func(*testing.T, wazero.RuntimeConfig, variant)) {
	for name, config := range map[string]wazero.RuntimeConfig{
		"compiler":    wazero.NewRuntimeConfigCompiler(),
		"interpreter": wazero.NewRuntimeConfigInterpreter(),
	} {
		t.Run(name, func(t *testing.T) {
			forEachVariant(t, func(t *testing.T, v variant) { f(t, config, v) })
		})
	}
}

func TestInstancesGoBackToTheSnapshot(t *testing.T) {
	forEachEngine(t, func(t *testing.T, config wazero.RuntimeConfig, v variant) {
		h := newHost(t, config, 0)
		template := h.instantiate(t, v.memory(t, Options{Limit: 30 * PageSize}))
		template.call("grow", 3)
		template.call("store", 5*PageSize-1, 99)
		template.call("store", 9, 'o')
		img, err := template.m.Snapshot()
		must(t, err)
		defer img.Close()
		want := bytes.Clone(template.bytes())
		if len(want) != 5*PageSize || string(want[8:12]) != "dota" || want[64] != 7 {
			t.Fatal("not the memory that the guest made")
		}
		clone := h.instantiate(t, v.memory(t, Options{Limit: 30 * PageSize}))
		for _, mod := range []*module{template, clone} {
			load := mod.ExportedFunction("load")
			must(t, mod.m.Attach(img, mod.Memory()))
			for round := range 5 {
				if !bytes.Equal(mod.bytes(), want) {
					t.Fatalf("round %d: not the image", round)
				}
				mod.mustEnd(load, len(want))
				mod.call("store", 8, uint64(round))
				if previous, _ := mod.call("grow", uint64(4*round)); previous != 5 {
					t.Fatalf("round %d: grown from %d pages", round, previous)
				}
				mod.mustEnd(load, len(want)+4*round*PageSize)
				mod.call("refill", 0, 3) // as many bytes as there are pages
				mod.call("store", uint64(len(mod.bytes()))-2, 1)
				mod.call("store", 1<<31, 1) // a trap
				if previous, _ := mod.call("grow", 100); int32(previous) != -1 || !mod.m.Denied() {
					t.Fatalf("round %d: grown above the limit", round)
				}
				must(t, mod.m.Reset(mod.Memory()))
			}
		}
	})
}

func TestAModuleWithAMaximum(t *testing.T) {
	forEachEngine(t, func(t *testing.T, config wazero.RuntimeConfig, v variant) {
		h := newHost(t, config, 5+1)
		mod := h.instantiate(t, v.memory(t, Options{Maximum: 5 * PageSize}))
		img, err := mod.m.Snapshot()
		must(t, err)
		defer img.Close()
		must(t, mod.m.Attach(img, mod.Memory()))
		for range 3 {
			if previous, _ := mod.call("grow", 4); int32(previous) != -1 || mod.m.Denied() {
				t.Fatal("grown above the maximum, or denied")
			}
			if previous, _ := mod.call("grow", 3); previous != 2 {
				t.Fatalf("grown from %d pages", previous)
			}
			must(t, mod.m.Reset(mod.Memory()))
			mod.mustEnd(mod.ExportedFunction("load"), 2*PageSize)
		}
	})
}

func TestClosingAnInstanceFreesItsMemory(t *testing.T) {
	before := Live()
	h := newHost(t, wazero.NewRuntimeConfigInterpreter(), 0)
	mod := h.instantiate(t, variant{}.memory(t, Options{}))
	img, err := mod.m.Snapshot()
	must(t, err)
	must(t, mod.m.Attach(img, mod.Memory()))
	img.Close()
	must(t, mod.Close(context.Background()))
	if n := Live() - before; n != 0 {
		t.Errorf("%d memories and images left", n)
	}
}
