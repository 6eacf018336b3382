package rewrite_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

const (
	canonical32 = 0x7fc00000
	canonical64 = 0x7ff8000000000000
)

// Values that make NaNs, by an operation or by passing one on.
var (
	bits32 = []uint64{0x7fa00001, 0x7fc00123, 0xffc0beef, 0xff800001, 0x7f800000, 0xff800000, 0, 0x80000000, 0xbf800000, 0x3f800000}
	bits64 = []uint64{0x7ff0000000000001, 0x7ff8000000000123, 0xfff800000000beef, 0xfff4000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0, 1 << 63, 0xbff0000000000000, 0x3ff0000000000000}
)

// shape is a form of floats in a value.
type shape struct {
	name      string
	canonical uint64
	lanes     int // of a vector; 0 for a scalar
	wide      bool
	bits      []uint64
	unary     [][]byte
	binary    [][]byte
}

func simd(ops ...byte) (codes [][]byte) {
	for _, op := range ops {
		code := []byte{0xfd, op}
		if op >= 0x80 {
			code = append(code, 1)
		}
		codes = append(codes, code)
	}
	return codes
}

func ops(from, to byte) (codes [][]byte) {
	for op := from; op <= to; op++ {
		codes = append(codes, []byte{op})
	}
	return codes
}

var shapes = []shape{
	{"f32", canonical32, 0, false, bits32, ops(0x8d, 0x91), ops(0x92, 0x97)},
	{"f64", canonical64, 0, true, bits64, ops(0x9b, 0x9f), ops(0xa0, 0xa5)},
	{"f32x4", canonical32, 4, false, bits32, simd(0x67, 0x68, 0x69, 0x6a, 0xe3), simd(0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9)},
	{"f64x2", canonical64, 2, true, bits64, simd(0x74, 0x75, 0x7a, 0x94, 0xef), simd(0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5)},
}

// typeCode returns the type of the bits as they come from outside: i32 or i64.
func (s shape) typeCode() byte {
	if s.wide {
		return 0x7e
	}
	return 0x7f
}

// get pushes a parameter as a float, in every lane.
func (s shape) get(local byte) []byte {
	code := []byte{0x20, local}
	switch {
	case s.lanes == 4:
		return append(code, 0xfd, 0x11)
	case s.lanes == 2:
		return append(code, 0xfd, 0x12)
	case s.wide:
		return append(code, 0xbf)
	}
	return append(code, 0xbe)
}

// bitsOf converts the float on the stack to its bits, for one lane.
func (s shape) bitsOf(lane byte) []byte {
	switch {
	case s.lanes == 4:
		return []byte{0xfd, 0x1b, lane}
	case s.lanes == 2:
		return []byte{0xfd, 0x1d, lane}
	case s.wide:
		return []byte{0xbd}
	}
	return []byte{0xbc}
}

func (s shape) local() byte {
	switch {
	case s.lanes > 0:
		return 0x7b
	case s.wide:
		return 0x7c
	}
	return 0x7d
}

// functions returns a module that exports functions "0", "1" ..., which take
// two values and return one, all as bits, and have two locals of the shape. It
// has a memory and a global.
func (s shape) functions(bodies ...[]byte) []byte {
	bits := s.typeCode()
	section := func(id byte, contents []byte) []byte {
		return append(uleb([]byte{id}, len(contents)), contents...)
	}
	out := []byte("\x00asm\x01\x00\x00\x00")
	out = append(out, section(1, []byte{2, 0x60, 2, bits, bits, 1, bits, 0x60, 1, s.local(), 1, s.local()})...)
	// Function 0 returns its parameter.
	declared, exports := append(uleb(nil, len(bodies)+1), 1), uleb(nil, len(bodies))
	code := append(uleb(nil, len(bodies)+1), 4, 0, 0x20, 0, 0x0b)
	for i, b := range bodies {
		declared = append(declared, 0)
		name := fmt.Sprint(i)
		exports = append(append(uleb(exports, len(name)), name...), 0)
		exports = uleb(exports, i+1)
		b = append([]byte{1, 2, s.local()}, b...)
		code = append(append(uleb(code, len(b)+1), b...), 0x0b)
	}
	zero := map[byte][]byte{0x7d: {0x43, 0, 0, 0, 0, 0x0b}, 0x7c: {0x44, 0, 0, 0, 0, 0, 0, 0, 0, 0x0b},
		0x7b: append(append([]byte{0xfd, 0x0c}, make([]byte, 16)...), 0x0b)}[s.local()]
	out = append(out, section(3, declared)...)
	out = append(out, section(5, []byte{1, 0, 1})...)
	out = append(out, section(6, append([]byte{1, s.local(), 1}, zero...))...)
	out = append(out, section(7, exports)...)
	return append(out, section(10, code)...)
}

func uleb(b []byte, n int) []byte {
	for n >= 0x80 {
		b = append(b, byte(n)|0x80)
		n >>= 7
	}
	return append(b, byte(n))
}

func join(parts ...[]byte) []byte { return slices.Concat(parts...) }

// run calls each function with all pairs of the shape's values, rewritten, on
// both engines, with and without metering, and calls check with the results.
// Scalars become canonical by selects and, in functions that are longer, by
// branches.
func (s shape) run(t *testing.T, bodies [][]byte, check func(function int, a, b, got uint64)) {
	s.runOf(t, s.functions(bodies...), bodies, check)
	long := make([][]byte, len(bodies))
	for i, b := range bodies {
		long[i] = append(slices.Clip(b), nops...)
	}
	s.runOf(t, s.functions(long...), bodies, check)
}

// nops make a function so long that branches do not make it grow too much.
var nops = bytes.Repeat([]byte{0x01}, 200)

func (s shape) runOf(t *testing.T, wasm []byte, bodies [][]byte, check func(function int, a, b, got uint64)) {
	ctx := context.Background()
	for _, engine := range engines {
		for _, metering := range []bool{false, true} {
			mod := instance(t, engine.config(), rewritten(t, wasm, rewrite.Options{Metering: metering}).Wasm)
			for i := range bodies {
				f := mod.ExportedFunction(fmt.Sprint(i))
				for _, a := range s.bits {
					for _, b := range s.bits {
						got, err := f.Call(ctx, a, b)
						if err != nil {
							t.Fatalf("%s %x on the %s: %v", s.name, bodies[i], engine.name, err)
						}
						check(i, a, b, got[0])
					}
				}
			}
		}
	}
}

func (s shape) isNaN(bits uint64) bool {
	if s.wide {
		return bits<<1 > 0x7ff<<53
	}
	return bits<<33 > 0xff<<56
}

// ways returns the ways in which a float that the given code makes can be used.
func (s shape) ways(value []byte) [][]byte {
	store, load := []byte{0x38, 2, 0}, []byte{0x2a, 2, 0}
	if s.wide {
		store, load = []byte{0x39, 3, 0}, []byte{0x2b, 3, 0}
	}
	if s.lanes > 0 {
		store, load = []byte{0xfd, 0x0b, 4, 0}, []byte{0xfd, 0x00, 4, 0}
	}
	return [][]byte{
		value,
		join(value, []byte{0x10, 0}), // call
		join([]byte{0x41, 8}, value, store, []byte{0x41, 8}, load),           // memory
		join(value, []byte{0x24, 0, 0x23, 0}),                                // global
		join(value, []byte{0x21, 2, 0x20, 2}),                                // local
		join(value, []byte{0x22, 3, 0x1a, 0x20, 3}),                          // local.tee
		join([]byte{0x02, s.local()}, value, []byte{0x0c, 0, 0x0b}),          // br
		join([]byte{0x02, s.local()}, value, []byte{0x41, 1, 0x0d, 0, 0x0b}), // br_if
		join(value, s.get(0), []byte{0x41, 1, 0x1c, 1, s.local()}),           // select
		join([]byte{0x41, 1, 0x04, s.local()}, value, []byte{0x05}, s.get(0), []byte{0x0b}),
		join(value, []byte{0x21, 2}, s.get(0), []byte{0x21, 3, 0x03, 0x40, 0x0b, 0x20, 2}),
	}
}

// TestArithmeticIsCanonical checks every arithmetic instruction, and every use
// of its result.
func TestArithmeticIsCanonical(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			var bodies [][]byte
			for _, op := range s.unary {
				bodies = append(bodies, join(s.get(0), op, s.bitsOf(0)))
			}
			for _, op := range s.binary {
				bodies = append(bodies, join(s.get(0), s.get(1), op, s.bitsOf(byte(max(s.lanes-1, 0)))))
			}
			sum := join(s.get(0), s.get(1), s.binary[0])
			for _, way := range s.ways(sum) {
				bodies = append(bodies, join(way, s.bitsOf(0)))
			}
			for _, chain := range s.ways(join(sum, s.get(0), s.binary[2], s.unary[4])) {
				bodies = append(bodies, join(chain, s.bitsOf(0)))
			}
			nans := map[int]int{}
			s.run(t, bodies, func(function int, a, b, got uint64) {
				if s.isNaN(got) {
					nans[function]++
					if got != s.canonical {
						t.Errorf("%x of %#x and %#x is %#x", bodies[function], a, b, got)
					}
				}
			})
			if len(nans) != len(bodies) {
				t.Errorf("only %d of %d functions made a NaN", len(nans), len(bodies))
			}
		})
	}
}

// TestPayloadsStay checks that the bits of NaNs that a program made itself
// never change, as in the original.
func TestPayloadsStay(t *testing.T) {
	for _, s := range shapes {
		t.Run(s.name, func(t *testing.T) {
			abs, neg := []byte{0x8b}, []byte{0x8c}
			switch {
			case s.lanes == 4:
				abs, neg = []byte{0xfd, 0xe0, 1}, []byte{0xfd, 0xe1, 1}
			case s.lanes == 2:
				abs, neg = []byte{0xfd, 0xec, 1}, []byte{0xfd, 0xed, 1}
			case s.wide:
				abs, neg = []byte{0x99}, []byte{0x9a}
			}
			var bodies [][]byte
			for _, value := range [][]byte{s.get(0), join(s.get(0), abs), join(s.get(0), neg)} {
				for _, way := range s.ways(value) {
					bodies = append(bodies, join(way, s.bitsOf(0)))
				}
			}
			ctx := context.Background()
			original := instance(t, wazero.NewRuntimeConfigInterpreter(), s.functions(bodies...))
			s.run(t, bodies, func(function int, a, b, got uint64) {
				want, err := original.ExportedFunction(fmt.Sprint(function)).Call(ctx, a, b)
				if err != nil || got != want[0] {
					t.Errorf("%x of %#x and %#x is %#x, expected %#x, %v", bodies[function], a, b, got, want, err)
				}
			})
		})
	}
}

// TestMixedLanes checks that bits from lanes of one width are canonical when
// they are read with another.
func TestMixedLanes(t *testing.T) {
	f32x4, f64x2 := shapes[2], shapes[3]
	bodies := [][]byte{
		join(f32x4.get(0), f32x4.get(1), f32x4.binary[0], f64x2.unary[0], f32x4.bitsOf(1)),
		join(f32x4.get(0), f32x4.get(1), f32x4.binary[0], []byte{0xfd, 0x5f}, []byte{0xfd, 0x5e}, f32x4.bitsOf(0)), // promote, demote
		join(f32x4.get(0), f32x4.get(1), f32x4.binary[0], []byte{0x21, 2, 0x20, 2}, []byte{0xfd, 0x4d}, []byte{0xfd, 0x4d}, f32x4.bitsOf(0)),
	}
	f32x4.run(t, bodies, func(function int, a, b, got uint64) {
		if f32x4.isNaN(got) && got != canonical32 {
			t.Errorf("%d of %#x and %#x: %#x", function, a, b, got)
		}
	})
}

// TestConversions checks promotion and demotion, the arithmetic between the
// shapes.
func TestConversions(t *testing.T) {
	s := shapes[1]
	bodies := [][]byte{
		join(s.get(0), []byte{0xb6, 0xbc, 0xad}),       // f32.demote_f64, its bits
		join(s.get(0), []byte{0xb6, 0xbb, 0xbd}),       // and f64.promote_f32
		join(s.get(0), []byte{0xb6, 0x8c, 0xbb, 0xbd}), // with f32.neg between
	}
	s.run(t, bodies, func(function int, a, _, got uint64) {
		want := []uint64{canonical32, canonical64, canonical64}[function]
		if s.isNaN(a) && got != want {
			t.Errorf("%x of %#x: %#x", bodies[function], a, got)
		}
	})
}

// TestBranches checks in which code NaNs are replaced behind a branch: not if it
// would grow too much, and not if the branches would take too long to compile.
func TestBranches(t *testing.T) {
	replace32, replace64 := []byte{0x05, 0x43, 0, 0, 0xc0, 0x7f, 0x0b}, []byte{0x05, 0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0x0b} // else
	for _, c := range []struct {
		name    string
		shape   shape
		replace []byte
		body    []byte
		times   int
		want    func(branches int) bool
	}{
		{"f32", shapes[0], replace32, nops, 1, func(n int) bool { return n == 1 }},
		{"f64", shapes[1], replace64, nops, 1, func(n int) bool { return n == 1 }},
		{"short", shapes[1], replace64, nil, 1, func(n int) bool { return n == 0 }},
		{"many small functions", shapes[1], replace64, nops, 5000, func(n int) bool { return n == 5000 }},
		{"a large function", shapes[1], replace64, bytes.Repeat(append([]byte{0x9f, 0xbd, 0xbf}, nops...), 9000), 2, func(n int) bool { return n == 0 }},
		{"many of them", shapes[1], replace64, bytes.Repeat(append([]byte{0x9f, 0xbd, 0xbf}, nops...), 1000), 60, func(n int) bool { return n > 1000 && n < 60000 }},
	} {
		sum := join(c.shape.get(0), c.shape.get(1), c.shape.binary[0], c.body, c.shape.bitsOf(0))
		wasm := c.shape.functions(slices.Repeat([][]byte{sum}, c.times)...)
		first := rewritten(t, wasm, rewrite.Options{Metering: true}).Wasm
		if n := bytes.Count(first, c.replace); !c.want(n) {
			t.Errorf("%s: %d branches", c.name, n)
		}
		if again := rewritten(t, wasm, rewrite.Options{Metering: true}).Wasm; !bytes.Equal(again, first) {
			t.Errorf("%s: other code the second time", c.name)
		}
	}
}
