package rewrite_test

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// faultTests has a test for each known fault of the engine.
var faultTests = map[string]func(t *testing.T){
	"zero-against-and": testZeroAgainstAnd,
	"and-against-zero": testAndAgainstZero,
	"stale-remainder":  testRemainders,
	"stale-copysign":   testCopysign,
	"lost-select":      func(t *testing.T) { testMadeAgain(t, "f64.select", []byte{0x1b}, f64s, f64s, "i") },
	"stale-bitselect": func(t *testing.T) {
		testMadeAgain(t, "v128.bitselect", []byte{0xfd, 0x52}, "v", "v", "v")
		testFound(t, "stale-bitselect")
	},
	"stale-multiplication": func(t *testing.T) { testMadeAgain(t, "i64x2.mul", []byte{0xfd, 0xd5, 1}, "v", "v") },
	"stale-minimum": func(t *testing.T) {
		for _, op := range []byte{0xe8, 0xe9, 0xf4, 0xf5} {
			testMadeAgain(t, fmt.Sprintf("min or max %x", op), []byte{0xfd, op, 1}, "v", "v")
		}
	},
	"stale-conversion": func(t *testing.T) {
		testMadeAgain(t, "f64x2.convert_low_i32x4_u", []byte{0xfd, 0xff, 1}, "v")
		testFound(t, "stale-conversion")
	},
	"stale-count":       func(t *testing.T) { testMadeAgain(t, "i8x16.popcnt", []byte{0xfd, 0x62}, "v") },
	"lost-replace-lane": func(t *testing.T) { testMadeAgain(t, "f64x2.replace_lane", []byte{0xfd, 0x22, 0}, "v", f64s) },
	"half-reload":       func(t *testing.T) { testMadeAgain(t, "f64.convert_i64_u", []byte{0xba}, "l") },
}

const f64s = "d"

// TestFaults checks that code that the engine compiles wrongly does not reach
// it.
func TestFaults(t *testing.T) {
	var names []string
	for _, f := range rewrite.Faults() {
		names = append(names, f.Name)
		test, ok := faultTests[f.Name]
		if !ok {
			t.Errorf("%s has no test", f.Name)
			continue
		}
		t.Run(f.Name, test)
	}
	for name := range faultTests {
		if !slices.Contains(names, name) {
			t.Errorf("%s is tested but not in the table", name)
		}
	}
	report, err := os.ReadFile("ENGINE_FAULTS.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if !bytes.Contains(report, []byte("## "+name+"\n")) {
			t.Errorf("ENGINE_FAULTS.md has no section %s", name)
		}
	}
}

// TestEngineVersion checks that the table is for the version in use. For
// another version, run make fuzz-engine, and check which faults remain.
func TestEngineVersion(t *testing.T) {
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(mod, []byte("github.com/tetratelabs/wazero "+rewrite.EngineVersion+"\n")) {
		t.Errorf("go.mod has another version of the engine than %s, the version with known faults", rewrite.EngineVersion)
	}
}

// everyWay calls f with instances of a module for all rewrite options, on both
// engines, for this architecture and for arm64, which has all remedies.
func everyWay(t *testing.T, wasm []byte, f func(how string, mod api.Module)) {
	t.Helper()
	for _, engine := range engines {
		for _, arch := range []string{"", "arm64"} {
			for _, o := range []rewrite.Options{{}, {Metering: true}, {NativeNaNs: true}, {Metering: true, NativeNaNs: true}} {
				o.Arch = arch
				mod := instance(t, engine.config(), rewritten(t, wasm, o).Wasm)
				f(fmt.Sprintf("%s, %+v", engine.name, o), mod)
				mod.Close(t.Context())
			}
		}
	}
}

// comparisons are the comparisons of integers, in the order of the opcodes.
var comparisons = []func(a, b int64) bool{
	func(a, b int64) bool { return a < b }, func(a, b int64) bool { return uint64(a) < uint64(b) },
	func(a, b int64) bool { return a > b }, func(a, b int64) bool { return uint64(a) > uint64(b) },
	func(a, b int64) bool { return a <= b }, func(a, b int64) bool { return uint64(a) <= uint64(b) },
	func(a, b int64) bool { return a >= b }, func(a, b int64) bool { return uint64(a) >= uint64(b) },
}

// testComparisons compares, with branches, the operands of i64 and of i32. left
// and right write them; value returns them for an argument.
func testComparisons(t *testing.T, left, right func(narrow bool) []byte, value func(x int64) (a, b int64)) {
	for n, holds := range comparisons {
		for _, narrow := range []bool{false, true} {
			op, ifType := byte(0x53+n), []byte{0x04, 0x7f, 0x41, 1, 0x05, 0x41, 0, 0x0b}
			if narrow {
				op = byte(0x48 + n)
			}
			body := slices.Concat([]byte{0}, left(narrow), right(narrow), []byte{op}, ifType, []byte{0x0b})
			if bytes.Contains(body, []byte{0x20, 1}) {
				body = append([]byte{1, 1, typeOf(narrow)}, body[1:]...)
			}
			wasm := single(typeOf(narrow), 0x7f, body)
			everyWay(t, wasm, func(how string, mod api.Module) {
				for _, x := range []int64{0, 1, -1, 5, math.MinInt64, math.MaxInt64, math.MinInt32} {
					if narrow {
						x = int64(int32(x))
					}
					want, arg := uint64(0), uint64(x)
					if narrow {
						arg = uint64(uint32(x))
					}
					if holds(value(x)) {
						want = 1
					}
					if got, err := mod.ExportedFunction("f").Call(t.Context(), arg); err != nil || uint64(uint32(got[0])) != want {
						t.Errorf("%s: %x of %d: %v, %v, expected %d", how, body, x, got, err, want)
					}
				}
			})
		}
	}
}

func typeOf(narrow bool) byte {
	if narrow {
		return 0x7f
	}
	return 0x7e
}

// single returns a module with one function "f" with one parameter and one
// result.
func single(param, result byte, body []byte) []byte {
	section := func(id byte, contents []byte) []byte {
		return append(uleb([]byte{id}, len(contents)), contents...)
	}
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"), section(1, []byte{1, 0x60, 1, param, 1, result}), section(3, []byte{1, 0}),
		section(7, []byte{1, 1, 'f', 0, 0}), section(10, append(uleb([]byte{1}, len(body)), body...)))
}

func choose(narrow bool, a, b byte) byte {
	if narrow {
		return a
	}
	return b
}

// masked pushes x & x, through a local if through is set.
func masked(through bool) func(narrow bool) []byte {
	return func(narrow bool) []byte {
		code := []byte{0x20, 0, 0x20, 0, choose(narrow, 0x71, 0x83)}
		if through {
			code = append(code, 0x21, 0, 0x20, 0)
		}
		return code
	}
}

func zeroConstant(narrow bool) []byte { return []byte{choose(narrow, 0x41, 0x42), 0} }

// unset pushes a local that was never set.
func unset(bool) []byte { return []byte{0x20, 1} }

func testZeroAgainstAnd(t *testing.T) {
	value := func(x int64) (int64, int64) { return 0, x }
	testComparisons(t, zeroConstant, masked(false), value)
	testComparisons(t, unset, masked(false), value)
	testComparisons(t, zeroConstant, masked(true), value)
	wasm, err := os.ReadFile("testdata/faults/zero-against-and.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for chunk, want := range map[string]byte{"\x48\xff\xff\xff\xff\xff\xff\xff\xff": 1, "\x48\x05\x00\x00\x00\x00\x00\x00\x00": 0} {
		testGuest(t, wasm, []byte(chunk), []byte{want})
	}
}

func testAndAgainstZero(t *testing.T) {
	value := func(x int64) (int64, int64) { return x, 0 }
	testComparisons(t, masked(false), zeroConstant, value)
	testComparisons(t, masked(false), unset, value)
	testComparisons(t, masked(true), zeroConstant, value)
}

// testGuest calls exec of a guest with one chunk.
func testGuest(t *testing.T, wasm, chunk, want []byte) {
	everyWay(t, wasm, func(how string, mod api.Module) {
		at, err := mod.ExportedFunction("alloc").Call(t.Context(), uint64(len(chunk)))
		if err != nil {
			t.Fatal(err)
		}
		mod.Memory().Write(uint32(at[0]), chunk)
		r, err := mod.ExportedFunction("exec").Call(t.Context(), at[0], uint64(len(chunk)))
		if err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		got, _ := mod.Memory().Read(uint32(r[0]>>32), uint32(r[0]))
		if !strings.Contains(how, "NativeNaNs:true") && !bytes.Equal(got, want) {
			t.Errorf("%s: %x, expected %x", how, got, want)
		}
	})
}

// testFound checks that a module that once showed a fault leaves the same
// memory on both engines. Its function is called run, and it makes no NaN.
func testFound(t *testing.T, name string) {
	wasm, err := os.ReadFile("testdata/faults/" + name + ".wasm")
	if err != nil {
		t.Fatal(err)
	}
	var want []byte
	everyWay(t, wasm, func(how string, mod api.Module) {
		if strings.Contains(how, "NativeNaNs:true") {
			return
		}
		if _, err := mod.ExportedFunction("run").Call(t.Context()); err != nil {
			t.Fatalf("%s: %v", how, err)
		}
		got, _ := mod.Memory().Read(0, mod.Memory().Size())
		if want == nil {
			want = slices.Clone(got)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the memory differs", how)
		}
	})
}

func testRemainders(t *testing.T) {
	for op, remainder := range map[byte]func(a, b int64) int64{
		0x6f: func(a, b int64) int64 { return int64(uint32(int32(a) % int32(b))) },
		0x70: func(a, b int64) int64 { return int64(uint32(a) % uint32(b)) },
		0x81: func(a, b int64) int64 { return a % b },
		0x82: func(a, b int64) int64 { return int64(uint64(a) % uint64(b)) },
	} {
		for _, divisor := range []int64{1, -1, 2, 7, -7, math.MaxInt32, math.MinInt32} {
			testRemainder(t, op, divisor, remainder)
		}
		testRemainder(t, op, 0, nil)
	}
	wasm := single(0x7e, 0x7e, []byte{0, 0x20, 0, 0x42, 3, 0x81, 0x0b})
	if r := rewritten(t, wasm, rewrite.Options{Arch: "arm64"}); hasOp(t, r.Wasm, 0x81) {
		t.Errorf("arm64: the remainder is still there: %x", r.Wasm)
	}
	if r := rewritten(t, wasm, rewrite.Options{Arch: "amd64"}); !hasOp(t, r.Wasm, 0x81) {
		t.Errorf("amd64: the remainder is gone: %x", r.Wasm)
	}
	testSpilledRemainder(t)
}

// testSpilledRemainder runs the module of upstream's #2508. On arm64, its compiled code
// reaches an unreachable if the module is not rewritten.
func testSpilledRemainder(t *testing.T) {
	wasm, err := os.ReadFile("testdata/faults/stale-remainder.wasm")
	if err != nil {
		t.Fatal(err)
	}
	const self, stack = 0x100000, 0xfff00
	everyWay(t, wasm, func(how string, mod api.Module) {
		mod.Memory().Grow(300)
		for offset, value := range map[uint32]uint32{8: 8, 12: 2, 16: 1} {
			mod.Memory().WriteUint32Le(self+offset, value)
		}
		mod.ExportedGlobal("__stack_pointer").(api.MutableGlobal).Set(stack)
		got, err := mod.ExportedFunction("fill_blocks").Call(t.Context(), self, 0x120000, 8, stack)
		if err != nil || got[0] != 18 {
			t.Errorf("%s: %v, %v, expected 18", how, got, err)
		}
	})
}

func testRemainder(t *testing.T, op byte, divisor int64, remainder func(a, b int64) int64) {
	narrow := op < 0x80
	body := slices.Concat([]byte{0, 0x20, 0}, signed(choose(narrow, 0x41, 0x42), divisor), []byte{op, 0x0b})
	everyWay(t, single(typeOf(narrow), typeOf(narrow), body), func(how string, mod api.Module) {
		for _, x := range []int64{0, 1, -1, 100, -100, math.MaxInt32, math.MinInt32, math.MinInt64, math.MaxInt64} {
			arg := uint64(x)
			if narrow {
				arg = uint64(uint32(x))
			}
			got, err := mod.ExportedFunction("f").Call(t.Context(), arg)
			if narrow && err == nil {
				got[0] = uint64(uint32(got[0]))
			}
			if remainder == nil {
				if err == nil || !strings.Contains(err.Error(), "integer divide by zero") {
					t.Errorf("%s: %d %% 0: %v", how, x, err)
				}
			} else if err != nil || int64(got[0]) != remainder(x, divisor) {
				t.Errorf("%s: %#x of %d and %d: %v, %v, expected %d", how, op, x, divisor, got, err, remainder(x, divisor))
			}
		}
	})
}

func signed(op byte, v int64) []byte {
	b := []byte{op}
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// hasOp reports whether the last function that was not injected has an
// instruction.
func hasOp(t *testing.T, wasm []byte, op binary.Op) bool {
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	for r := binary.NewReader(wasm, m.Bodies[0].Code, m.Bodies[0].End); r.More(); {
		if r.Next().Op == op {
			return true
		}
	}
	return false
}

func testCopysign(t *testing.T) {
	wasm, err := os.ReadFile("testdata/faults/stale-copysign.wasm")
	if err != nil {
		t.Fatal(err)
	}
	chunk, err := os.ReadFile("testdata/faults/stale-copysign.cbor")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/faults/stale-copysign.out")
	if err != nil {
		t.Fatal(err)
	}
	testGuest(t, wasm, chunk, want)
	testMadeAgain(t, "f64.copysign", []byte{0xa6}, f64s, f64s)
}

// testMadeAgain checks that an operand of an instruction is recomputed if it
// comes from a local, is not recomputed if it was computed only for this use,
// and that the result is unchanged. operands are of i32 (i), i64 (l), f64 (d)
// and v128 (v).
func testMadeAgain(t *testing.T, name string, op []byte, operands ...string) {
	get := map[string][]byte{"i": {0x20, 1}, "l": {0x20, 0}, f64s: {0x20, 2}, "v": {0x20, 3}}
	made := map[string][]byte{"i": {0x20, 0, 0x50}, "l": {0x20, 0, 0x42, 1, 0x7c}, f64s: {0x20, 0, 0xbf}, "v": {0x20, 0, 0xfd, 0x12}}
	// local 1 = x == 0, 2 = x as f64, 3 = x as i64x2
	head := []byte{3, 1, 0x7f, 1, 0x7c, 1, 0x7b, 0x20, 0, 0x50, 0x21, 1, 0x20, 0, 0xbf, 0x21, 2, 0x20, 0, 0xfd, 0x12, 0x21, 3}
	code := func(values map[string][]byte) []byte {
		body := slices.Clone(head)
		for _, o := range operands {
			body = append(body, values[o]...)
		}
		body = append(body, op...)
		switch {
		case op[0] == 0xfd:
			return append(body, 0xfd, 0x1d, 0, 0x0b) // i64x2.extract_lane
		default:
			return append(body, 0xbd, 0x0b) // i64.reinterpret_f64
		}
	}
	fromLocals, computed := single(0x7e, 0x7e, code(get)), single(0x7e, 0x7e, code(made))
	o := rewrite.Options{NativeNaNs: true}
	if r := rewritten(t, fromLocals, o); bytes.Equal(r.Wasm, fromLocals) {
		t.Errorf("%s: no operand is recomputed: %x", name, r.Wasm)
	}
	if r := rewritten(t, computed, o); !bytes.Equal(r.Wasm, computed) {
		t.Errorf("%s: an operand that was computed for it is recomputed: %x", name, r.Wasm)
	}
	var want []uint64
	args := []uint64{0, 1, 1 << 63, 0xbff0000000000000, 0x3ff0000000000000, 0x4330000000000001, 0xc330000000000001}
	original := instance(t, engines[1].config(), fromLocals)
	for _, x := range args {
		r, err := original.ExportedFunction("f").Call(t.Context(), x)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, r[0])
	}
	everyWay(t, fromLocals, func(how string, mod api.Module) {
		for i, x := range args {
			if got, err := mod.ExportedFunction("f").Call(t.Context(), x); err != nil || got[0] != want[i] {
				t.Errorf("%s, %s: of %x: %x, %v, expected %x", name, how, x, got, err, want[i])
			}
		}
	})
}
