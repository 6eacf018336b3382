package wasi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// module encodes a module that imports every function of the table and exports each
// again through a function of its own. For each function in loops it exports "loop
// <name>", which takes a number and calls the function that many times with the
// given arguments. It exports its memory of one page, unless pages is 0.
func module(pages byte, loops map[string][]int64) []byte {
	var types, imports, funcs, exports, code [][]byte
	for _, f := range functions {
		params, results := valueTypes(f.signature)
		types = append(types, slices.Concat([]byte{0x60}, vec(params), vec(results)))
	}
	types = append(types, []byte{0x60, 1, api.ValueTypeI32, 0})
	counting := byte(len(types) - 1)
	export := func(name string, kind byte, index int) {
		exports = append(exports, slices.Concat(text(name), []byte{kind}, leb(uint64(index))))
	}
	for i, f := range functions {
		params, _ := valueTypes(f.signature)
		imports = append(imports, slices.Concat(text(abi.WASIModule), text(f.name), []byte{0, byte(i)}))
		export(f.name, 0, len(functions)+len(funcs))
		funcs = append(funcs, []byte{byte(i)})
		body := []byte{0}
		for n := range params {
			body = append(body, 0x20, byte(n)) // local.get
		}
		code = append(code, vec(append(body, 0x10, byte(i), 0x0b))) // call, end
	}
	for i, f := range functions {
		args, ok := loops[f.name]
		if !ok {
			continue
		}
		export("loop "+f.name, 0, len(functions)+len(funcs))
		funcs = append(funcs, []byte{counting})
		params, _ := valueTypes(f.signature)
		body := []byte{0, 0x03, 0x40} // loop
		for n, t := range params {
			op := byte(0x41) // i32.const
			if t == api.ValueTypeI64 {
				op = 0x42
			}
			body = append(append(body, op), sleb(args[n])...)
		}
		body = append(body, 0x10, byte(i), 0x1a)                                  // call, drop
		body = append(body, 0x20, 0, 0x41, 1, 0x6b, 0x22, 0, 0x0d, 0, 0x0b, 0x0b) // count down, br_if, end
		code = append(code, vec(body))
	}
	sections := [][]byte{[]byte("\x00asm\x01\x00\x00\x00")}
	section := func(id byte, items [][]byte) {
		sections = append(sections, []byte{id}, vec(slices.Concat(leb(uint64(len(items))), slices.Concat(items...))))
	}
	section(1, types)
	section(2, imports)
	section(3, funcs)
	if pages > 0 {
		section(5, [][]byte{{0, pages}})
		export("memory", 2, 0)
	}
	section(7, exports)
	section(10, code)
	return slices.Concat(sections...)
}

func leb(v uint64) []byte { return binary.AppendUvarint(nil, v) }

func sleb(v int64) (b []byte) {
	for ; v >= 64 || v < -64; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v)&0x7f)
}

func vec(b []byte) []byte     { return append(leb(uint64(len(b))), b...) }
func text(s string) []byte    { return vec([]byte(s)) }
func u32(v uint32) []byte     { return le.AppendUint32(nil, v) }
func u64(v uint64) []byte     { return le.AppendUint64(nil, v) }
func join(b ...[]byte) []byte { return slices.Concat(b...) }

const memorySize = 64 << 10

// stateContext carries the state of a guest, like the context of a step in the
// runtime.
type stateContext struct {
	context.Context
	state *State
}

type stateKey struct{}

func (c *stateContext) Value(key any) any {
	if key == (stateKey{}) {
		return c.state
	}
	return c.Context.Value(key)
}

// findByType is the fast way, for contexts that are not wrapped.
func findByType(ctx context.Context, m api.Module) *State {
	if c, ok := ctx.(*stateContext); ok {
		return c.state
	}
	return findByValue(ctx, m)
}

func findByValue(ctx context.Context, _ api.Module) *State {
	return ctx.Value(stateKey{}).(*State)
}

var loops = map[string][]int64{
	"clock_time_get": {1, 0, 64},
	"random_get":     {64, 32},
	"fd_write":       {1, 0, 1, 8}, // of the span at 0
	"sched_yield":    {},
	"poll_oneoff":    {1024, 2048, 2, 8},
}

var engine = sync.OnceValue(func() wazero.Runtime { return newRuntime(findByType) })

var compiled = sync.OnceValue(func() wazero.CompiledModule { return compile(engine(), module(1, loops)) })

func newRuntime(find Find) wazero.Runtime {
	r := wazero.NewRuntimeWithConfig(context.Background(), wazero.NewRuntimeConfig())
	if err := Instantiate(context.Background(), r, find); err != nil {
		panic(err)
	}
	return r
}

func compile(r wazero.Runtime, wasm []byte) wazero.CompiledModule {
	c, err := r.CompileModule(context.Background(), wasm)
	if err != nil {
		panic(err)
	}
	return c
}

// guest is an instance of the module above, with the bytes around its memory.
type guest struct {
	t     testing.TB
	ctx   *stateContext
	mod   api.Module
	state *State
	arena *arena
}

func newGuest(t testing.TB, c Config) *guest {
	t.Helper()
	state := New(c)
	arena := newArena()
	ctx := experimental.WithMemoryAllocator(context.Background(), arena)
	mod, err := engine().InstantiateModule(ctx, compiled(), wazero.NewModuleConfig().WithName(""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mod.Close(context.Background()) })
	return &guest{t, &stateContext{context.Background(), state}, mod, state, arena}
}

// try calls a function.
func (g *guest) try(name string, args ...uint64) (errno, error) {
	stack := make([]uint64, max(len(args), 1))
	copy(stack, args)
	err := g.mod.ExportedFunction(name).CallWithStack(g.ctx, stack)
	return errno(stack[0]), err
}

// call is try for calls that must return.
func (g *guest) call(name string, args ...uint64) errno {
	g.t.Helper()
	e, err := g.try(name, args...)
	if err != nil {
		g.t.Fatalf("%s%v: %v", name, args, err)
	}
	return e
}

// must is call for calls that must succeed.
func (g *guest) must(name string, args ...uint64) {
	g.t.Helper()
	if e := g.call(name, args...); e != success {
		g.t.Fatalf("%s%v = errno %d", name, args, e)
	}
}

func (g *guest) put(at int, b ...[]byte) { copy(g.arena.memory()[at:], join(b...)) }

func (g *guest) get(at, size int) []byte { return bytes.Clone(g.arena.memory()[at:][:size]) }

func (g *guest) uint32(at int) uint32 { return le.Uint32(g.get(at, 4)) }
func (g *guest) uint64(at int) uint64 { return le.Uint64(g.get(at, 8)) }

// write writes text to a descriptor and returns the results of fd_write.
func (g *guest) write(fd uint64, text string) (written uint32, e errno) {
	g.t.Helper()
	g.put(1024, u32(1040), u32(uint32(len(text))))
	g.put(1040, []byte(text))
	e = g.call("fd_write", fd, 1024, 1, 1032)
	return g.uint32(1032), e
}

// readInto reads from a descriptor into spans of the given sizes.
func (g *guest) readInto(fd uint64, sizes ...uint32) (parts []string, e errno) {
	g.t.Helper()
	at := uint32(2048)
	for i, size := range sizes {
		g.put(1024+8*i, u32(at), u32(size))
		at += size
	}
	e = g.call("fd_read", fd, 1024, uint64(len(sizes)), 1020)
	left, at := g.uint32(1020), 2048
	for _, size := range sizes {
		n := min(size, left)
		parts = append(parts, string(g.get(int(at), int(n))))
		left -= n
		at += size
	}
	return parts, e
}

// now reads a clock.
func (g *guest) now(id uint64) uint64 {
	g.t.Helper()
	g.must("clock_time_get", id, 0, 64)
	return g.uint64(64)
}

// random reads n random bytes.
func (g *guest) random(n int) []byte {
	g.t.Helper()
	g.must("random_get", 64, uint64(n))
	return g.get(64, n)
}

// arena is the memory of a guest with bytes on both sides that nobody may touch.
type arena struct {
	b []byte
}

const fence = 4096

func newArena() *arena {
	a := &arena{make([]byte, memorySize+2*fence)}
	for i := range fence {
		a.b[i], a.b[len(a.b)-1-i] = 0xa5, 0x5a
	}
	return a
}

func (a *arena) Allocate(_, _ uint64) experimental.LinearMemory { return a }
func (a *arena) Reallocate(size uint64) []byte {
	if size > memorySize {
		return nil
	}
	return a.memory()[:size]
}
func (a *arena) Free() {}

func (a *arena) memory() []byte { return a.b[fence : len(a.b)-fence] }

func (a *arena) check(t testing.TB) {
	t.Helper()
	for i := range fence {
		if a.b[i] != 0xa5 || a.b[len(a.b)-1-i] != 0x5a {
			t.Fatal("a byte outside the guest's memory was written")
		}
	}
}

// exitCode returns the code of an error that is an exit, or -1.
func exitCode(err error) int {
	if exit := (*ExitError)(nil); errors.As(err, &exit) {
		return int(exit.Code)
	}
	return -1
}

func ExampleTypes() {
	fmt.Println(len(Types()), Types()["clock_time_get"])
	// Output: 46 (i32, i64, i32) -> i32
}
