package runtime_test

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// TestFuelIsExact checks that a budget equal to the fuel of a call is enough
// for it, and that one unit less is not, on every repeat and with every
// isolation.
func TestFuelIsExact(t *testing.T) {
	r := newRuntime(t, runtime.Config{})
	m, err := r.Compile(t.Context(), faulty(t), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	work := append([]byte{0xa2}, request("work")[1:]...)
	work = append(abi.AppendText(work, "n"), 0x1a, 0, 0x0f, 0x42, 0x40) // a million
	for _, chunk := range [][]byte{{1}, request("counter"), request("random"), request("clock"), request("log"), request("print"), request("grown"), request("dirty"), work} {
		budget := uint64(0)
		for _, isolation := range []runtime.Isolation{runtime.IsolationReset, runtime.IsolationInstance} {
			s := runtime.Settings{Memory: 8 << 20, Isolation: isolation}
			i := pool(t, m, s).Borrow(nil)
			defer i.Release()
			_, fuel, err := i.Call(t.Context(), abi.ExportExec, chunk, nil)
			if err != nil || budget != 0 && fuel != budget || fuel == 0 {
				t.Fatalf("%x, %s: fuel %d, %v, and before %d", chunk, isolation, fuel, err, budget)
			}
			budget = fuel
			for round := range 20 {
				for _, less := range []uint64{0, 1} {
					s.Fuel = budget - less
					i := leased(t, m, s)
					_, fuel, err := i.Call(t.Context(), abi.ExportExec, chunk, nil)
					if less == 0 && (err != nil || fuel != budget) || less == 1 && classOf(err) != abi.ClassFuel {
						t.Fatalf("%x, %s, repeat %d: budget %d: fuel %d, %v", chunk, isolation, round, s.Fuel, fuel, err)
					}
					// The instance still works.
					if _, _, err := i.Call(t.Context(), abi.ExportExec, chunk, nil); (err != nil) != (less == 1) {
						t.Fatalf("%x, %s, again with budget %d: %v", chunk, isolation, s.Fuel, err)
					}
				}
			}
		}
	}
}

// leased returns an instance that is released at the end of the test.
func leased(t *testing.T, m *runtime.Module, s runtime.Settings) *runtime.Instance {
	t.Helper()
	i := pool(t, m, s).Borrow(nil)
	t.Cleanup(i.Release)
	return i
}
