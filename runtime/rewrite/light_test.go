package rewrite_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// TestLight checks which functions check the fuel at their entry: with slices
// of 1 unit, each check is a yield.
func TestLight(t *testing.T) {
	call := func(f byte) []byte { return []byte{0x20, 0, 0x10, f} }
	// unless makes a call if the parameter is 0, and then runs more code.
	unless := func(f byte, more ...byte) []byte {
		return slices.Concat([]byte{0x20, 0, 0x45, 0x04, 0x40, 0x41, 1, 0x10, f}, more, []byte{0x0b, 0x20, 0})
	}
	leaf := []byte{0x20, 0, 0x41, 1, 0x6a}
	long := append(bytes.Repeat([]byte{0x01}, 600), leaf...)
	for name, c := range map[string]struct {
		functions [][]byte
		arg       uint64
		yields    int
	}{
		"a call of a function without calls":    {[][]byte{call(1), leaf}, 1, 0},
		"calls of calls":                        {[][]byte{call(1), call(2), call(3), leaf}, 1, 0},
		"a long callee":                         {[][]byte{call(1), long}, 1, 2},
		"a call of itself":                      {[][]byte{unless(0, 0x1a)}, 0, 2},
		"calls in a circle":                     {[][]byte{unless(1, 0x1a), call(0)}, 0, 3},
		"a call of itself that does not return": {[][]byte{unless(0, 0x00)}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			mod := instance(t, wazero.NewRuntimeConfigInterpreter(), rewritten(t, numbered(c.functions...), rewrite.Options{Metering: true}).Wasm)
			m := &meter{budget: unlimited, slice: 1}
			if _, _, err := m.call(mod, "0", suiteStack, c.arg); err != nil || m.yields != c.yields {
				t.Errorf("%d yields, %v; want %d", m.yields, err, c.yields)
			}
		})
	}
}

// TestLightStack checks that a function that does not check the fuel at its
// entry takes its stack there, as any function that makes calls.
func TestLightStack(t *testing.T) {
	// 6 slots, and one each for the parameter, for the operand, and for two
	// values: only a call here.
	const frame = 8
	wasm := numbered([]byte{0x20, 0, 0x04, 0x40, 0x20, 0, 0x10, 1, 0x1a, 0x0b, 0x20, 0}, []byte{0x20, 0})
	for _, engine := range engines {
		mod := instance(t, engine.config(), rewritten(t, wasm, rewrite.Options{Metering: true}).Wasm)
		for _, arg := range []uint64{0, 1} {
			var over *overflowError
			if _, _, err := (&meter{budget: unlimited, slice: 1}).call(mod, "0", frame-1, arg); !errors.As(err, &over) {
				t.Errorf("%d with too small a stack: %v", arg, err)
			}
			if _, _, err := (&meter{budget: unlimited, slice: 1}).call(mod, "0", frame, arg); err != nil {
				t.Errorf("%d: %v", arg, err)
			}
			var out *fuelError
			if _, _, err := (&meter{budget: 1, slice: 1}).call(mod, "0", frame-1, arg); !errors.As(err, &out) {
				t.Errorf("%d with too small a budget and stack: %v", arg, err)
			}
		}
	}
}

// TestAssertions checks that endless recursion through calls that are followed
// by unreachable runs out of fuel.
func TestAssertions(t *testing.T) {
	for _, engine := range engines {
		mod := instance(t, engine.config(), rewritten(t, numbered([]byte{0x20, 0, 0x10, 0, 0x00}), rewrite.Options{Metering: true}).Wasm)
		var out *fuelError
		if _, used, err := (&meter{budget: 1000, slice: 10}).call(mod, "0", suiteStack, 1); !errors.As(err, &out) || used > 1010 {
			t.Errorf("used %d, %v", used, err)
		}
	}
}
