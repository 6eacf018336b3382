package rewrite_test

import (
	"bytes"
	_ "embed"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

//go:embed testdata/bulk.wasm
var bulkWasm []byte

// TestPieces checks that fills and copies in pieces leave the same bytes, trap
// without writing if they are out of bounds, cost the same for every slice, and
// call yield for every mebibyte.
func TestPieces(t *testing.T) {
	const mib, all = 1 << 20, 5 << 20
	for _, engine := range engines {
		original := instance(t, engine.config(), bulkWasm)
		metered := instance(t, engine.config(), rewritten(t, bulkWasm, rewrite.Options{Metering: true}).Wasm)
		want, _ := original.Memory().Read(0, all)
		got, _ := metered.Memory().Read(0, all)
		for _, c := range []struct {
			name string
			args [3]uint64
		}{
			{"fill", [3]uint64{0, 1, all}},
			{"fill", [3]uint64{3, 2, mib}},
			{"fill", [3]uint64{3, 3, mib + 1}},
			{"fill", [3]uint64{5, 4, 2 * mib}},
			{"fill", [3]uint64{1, 5, all}}, // traps, like the next ones
			{"fill", [3]uint64{mib, 6, 1<<32 - 1}},
			{"fill", [3]uint64{1<<32 - 1, 7, 2 * mib}},
			{"copy", [3]uint64{0, 1, all - 1}},
			{"copy", [3]uint64{1, 0, all - 1}},
			{"copy", [3]uint64{mib, 0, 4 * mib}},
			{"copy", [3]uint64{0, mib, 4 * mib}},
			{"copy", [3]uint64{mib/2 + 1, 7, 3*mib + 5}},
			{"copy", [3]uint64{7, mib/2 + 1, 3*mib + 5}},
			{"copy", [3]uint64{9, 9, 2*mib + 1}},
			{"copy", [3]uint64{1, 0, all}}, // traps, like the next ones
			{"copy", [3]uint64{0, 1, all}},
			{"copy", [3]uint64{0, 1<<32 - 1, 2 * mib}},
		} {
			for _, slice := range []int64{1, 1000, 1e9} {
				for i := range got { // different bytes at every address, and the same in both
					got[i] = byte(i>>10 ^ i*7)
				}
				copy(want, got)
				_, failed := original.ExportedFunction(c.name).Call(t.Context(), c.args[:]...)
				m := &meter{budget: unlimited, slice: slice}
				_, used, err := m.call(metered, c.name, suiteStack, c.args[:]...)
				if (err == nil) != (failed == nil) || err != nil && kindOf(err) != kindOf(failed) {
					t.Fatalf("%s %d on the %s: %v, and originally %v", c.name, c.args, engine.name, err, failed)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s %d on the %s: the bytes differ from the original", c.name, c.args, engine.name)
				}
				// Three local.get and the instruction.
				if units := int64(4 + c.args[2]/8); err == nil && used != units {
					t.Errorf("%s %d on the %s, slice %d: %d units, expected %d", c.name, c.args, engine.name, slice, used, units)
				}
				if pieces := int(c.args[2]-1) / mib; err == nil && m.yields < pieces {
					t.Errorf("%s %d on the %s: %d yields in %d pieces", c.name, c.args, engine.name, m.yields, pieces)
				}
			}
		}
	}
}

// TestOutOfBounds checks that an instruction out of bounds traps, whatever the
// budget: it does nothing that has a cost.
func TestOutOfBounds(t *testing.T) {
	data, elem := []byte{0xfc, 0x08, 0, 0}, []byte{0xfc, 0x0c, 0, 0}
	for name, code := range map[string][]byte{
		"memory.fill":         {0x41, 0, 0x41, 0, 0x41, 0x7f, 0xfc, 0x0b, 0},
		"memory.fill, little": {0x41, 0x7f, 0x41, 0, 0x41, 0xe4, 0, 0xfc, 0x0b, 0},
		"memory.copy":         {0x41, 0, 0x41, 0, 0x41, 0x7f, 0xfc, 0x0a, 0, 0},
		"memory.copy, source": {0x41, 0, 0x41, 0x7f, 0x41, 0x80, 0x80, 0xc0, 0, 0xfc, 0x0a, 0, 0},
		"memory.init":         append([]byte{0x41, 0, 0x41, 0, 0x41, 0x7f}, data...),
		"table.fill":          {0x41, 0, 0xd0, 0x70, 0x41, 0x7f, 0xfc, 0x11, 0},
		"table.copy":          {0x41, 0, 0x41, 0, 0x41, 0x7f, 0xfc, 0x0e, 0, 0},
		"table.init":          append([]byte{0x41, 0, 0x41, 0, 0x41, 0x7f}, elem...),
	} {
		wasm := withBulk(code)
		for _, engine := range engines {
			original := instance(t, engine.config(), wasm)
			_, want := original.ExportedFunction("f").Call(t.Context())
			metered := instance(t, engine.config(), rewritten(t, wasm, rewrite.Options{Metering: true}).Wasm)
			for _, budget := range []int64{4, 5, 1000, unlimited} {
				_, used, err := (&meter{budget: budget, slice: 100}).call(metered, "f", suiteStack)
				if want == nil || err == nil || kindOf(err) != kindOf(want) || used > 4 {
					t.Errorf("%s on the %s, budget %d: %v for %d units, and originally %v", name, engine.name, budget, err, used, want)
				}
			}
		}
	}
}

// withBulk returns a module with one function "f" () -> (), a page of memory, a
// table of one entry, and a passive data and element segment.
func withBulk(code []byte) []byte {
	section := func(id byte, contents ...byte) []byte {
		return append(uleb([]byte{id}, len(contents)), contents...)
	}
	body := append(append([]byte{0}, code...), 0x0b)
	return bytes.Join([][]byte{[]byte("\x00asm\x01\x00\x00\x00"), section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(4, 1, 0x70, 0, 1),
		section(5, 1, 0, 1), section(7, 1, 1, 'f', 0, 0), section(9, 1, 1, 0, 1, 0), section(12, 1),
		section(10, append(uleb([]byte{1}, len(body)), body...)...), section(11, 1, 1, 3, 'a', 'b', 'c')}, nil)
}
