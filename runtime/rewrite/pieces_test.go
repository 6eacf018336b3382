package rewrite_test

import (
	"bytes"
	_ "embed"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

//go:embed testdata/bulk.wasm
var bulkWasm []byte

// TestPieces checks that fills and copies leave the same bytes in pieces, trap
// without having written where they would be out of bounds, cost the same for
// every slice, and call yield for every mebibyte.
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
			{"fill", [3]uint64{1, 5, all}}, // traps, as the next ones do
			{"fill", [3]uint64{mib, 6, 1<<32 - 1}},
			{"fill", [3]uint64{1<<32 - 1, 7, 2 * mib}},
			{"copy", [3]uint64{0, 1, all - 1}},
			{"copy", [3]uint64{1, 0, all - 1}},
			{"copy", [3]uint64{mib, 0, 4 * mib}},
			{"copy", [3]uint64{0, mib, 4 * mib}},
			{"copy", [3]uint64{mib/2 + 1, 7, 3*mib + 5}},
			{"copy", [3]uint64{7, mib/2 + 1, 3*mib + 5}},
			{"copy", [3]uint64{9, 9, 2*mib + 1}},
			{"copy", [3]uint64{1, 0, all}}, // traps, as the next ones do
			{"copy", [3]uint64{0, 1, all}},
			{"copy", [3]uint64{0, 1<<32 - 1, 2 * mib}},
		} {
			for _, slice := range []int64{1, 1000, 1e9} {
				for i := range got { // other bytes at every place, and the same in both
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
					t.Errorf("%s %d on the %s: other bytes than originally", c.name, c.args, engine.name)
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
