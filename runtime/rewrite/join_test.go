package rewrite_test

import (
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// TestJoin counts the charges in functions: the code after a block is charged
// with the code before it if both are always executed together. A call is also
// charged to the stack.
func TestJoin(t *testing.T) {
	get := []byte{0x20, 0}
	when := func(code ...byte) []byte { return slices.Concat(get, []byte{0x04, 0x40}, code, []byte{0x0b}, get) }
	for name, c := range map[string]struct {
		code    []byte
		charges int
	}{
		"no block":                    {get, 1},
		"if":                          {when(0x01), 2},
		"if, with a trap":             {when(0x00), 2},
		"if and else":                 {when(0x01, 0x05, 0x01), 3},
		"if after if":                 {append(append(when(0x01), 0x1a), when(0x01)...), 3},
		"if in if":                    {when(append(when(0x01), 0x1a)...), 3},
		"a block with a branch":       {slices.Concat([]byte{0x02, 0x40}, get, []byte{0x0d, 0, 0x01, 0x0b}, get), 2},
		"a branch beyond the block":   {slices.Concat([]byte{0x02, 0x40, 0x02, 0x40}, get, []byte{0x0d, 1, 0x01, 0x0b, 0x01, 0x0b}, get), 2},
		"a branch beyond a block, if": {slices.Concat([]byte{0x02, 0x40}, get, []byte{0x04, 0x40, 0x0c, 1, 0x0b, 0x01, 0x0b}, get), 3},
		"if, with a return":           {when(0x20, 0, 0x0f), 3},
		"if, with a call of itself":   {when(0x20, 0, 0x10, 0, 0x1a), 5},
		"if, with a loop":             {when(0x03, 0x40, 0x20, 0, 0x0d, 0, 0x0b), 4},
	} {
		t.Run(name, func(t *testing.T) {
			wasm := rewritten(t, numbered(c.code), rewrite.Options{Metering: true}).Wasm
			m, problems := binary.Parse(wasm)
			if len(problems) > 0 {
				t.Fatal(problems)
			}
			charges := 0
			for r := binary.NewReader(wasm, m.Bodies[0].Code, m.Bodies[0].End); r.More(); {
				if r.Next().Op == 0x7d { // i64.sub
					charges++
				}
			}
			if charges != c.charges {
				t.Errorf("%d charges, want %d", charges, c.charges)
			}
		})
	}
}
