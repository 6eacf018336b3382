package runtime_test

import (
	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"testing"
)

// BenchmarkCall makes one call on fresh state, with a chunk of one integer.
func BenchmarkCall(b *testing.B) {
	for name, wasm := range map[string]func(testing.TB) []byte{"C": squareC, "Go": squareGo} {
		b.Run(name, func(b *testing.B) {
			c := caller(b, poolOf(b, wasm(b), runtime.Options{}, limits), abi.AppendHead(nil, abi.MajorUint, 1234), false)
			b.ReportAllocs()
			for b.Loop() {
				c.run(1)
			}
		})
	}
}

// TestCallAllocatesNothing checks calls that succeed: allocations cause garbage
// collections, for which all guests have to wait.
func TestCallAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates: run without -race")
	}
	c := caller(t, poolOf(t, squareC(t), runtime.Options{}, limits), abi.AppendHead(nil, abi.MajorUint, 1234), false)
	if n := testing.AllocsPerRun(100, func() { c.run(1) }); n != 0 {
		t.Errorf("%.0f allocations a call", n)
	}
}
