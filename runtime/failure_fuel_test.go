package runtime_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// TestFuelOfFailures makes each call twice on the compiler, the second time
// after other calls, and once on the interpreter. The fuel at the failure must
// be the same.
func TestFuelOfFailures(t *testing.T) {
	s := runtime.Settings{Fuel: 3_000_000, Memory: 1 << 20, MaxOutput: 1 << 10, Timeout: time.Minute}
	var pools []*runtime.Pool
	for _, interpreter := range []bool{false, true} {
		m, err := newRuntime(t, runtime.Config{Interpreter: interpreter}).Compile(t.Context(), faulty(t), runtime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		pool, err := m.Prepare(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { pool.Close() })
		pools = append(pools, pool)
	}
	compiled, interpreted := pools[0].Borrow(nil), pools[1].Borrow(nil)
	defer compiled.Release()
	defer interpreted.Release()
	for _, do := range []string{"trap", "oob", "div0", "permanent", "retryable", "requeue", "loop", "calls", "badptr", "malformed", "big", "grow", "exit", "stack"} {
		t.Run(do, func(t *testing.T) {
			chunk, err := cbor.Marshal(map[string]any{"do": do, "size": 2000})
			if err != nil {
				t.Fatal(err)
			}
			first := failed(t, compiled, chunk)
			if first.Fuel == 0 {
				t.Fatalf("%v: no fuel", first)
			}
			if first.Class == abi.ClassFuel && first.Fuel <= s.Fuel {
				t.Errorf("%v: used %d", first, first.Fuel)
			}
			others := []*abi.Failure{failed(t, compiled, chunk)}
			if do != "stack" { // the interpreter fails at 2,000 calls
				others = append(others, failed(t, interpreted, chunk))
			}
			for _, other := range others {
				if got, want := fmt.Sprint(other.Fuel, other, other.Stack), fmt.Sprint(first.Fuel, first, first.Stack); got != want {
					t.Errorf("got %s, and first %s", got, want)
				}
			}
		})
	}
}

func failed(t *testing.T, i *runtime.Instance, chunk []byte) *abi.Failure {
	t.Helper()
	_, _, err := i.Call(context.Background(), abi.ExportExec, chunk, nil)
	failure, ok := errors.AsType[*abi.Failure](err)
	if !ok {
		t.Fatalf("got %v, want a failure", err)
	}
	return failure
}
