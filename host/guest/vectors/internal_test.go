package vectors

import (
	"fmt"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Each seed has instances of its own, with memories: only one seed's instances are
// held.
func TestOnePoolIsHeld(t *testing.T) {
	wasm, err := os.ReadFile("../../../testdata/wasm/echo.wasm")
	if err != nil {
		t.Fatal(err)
	}
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	m, err := r.Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tester := NewTester(m, runtime.Settings{})
	defer tester.Close()
	try := func(seed uint64) *runtime.Pool {
		f, err := Parse(fmt.Appendf(nil, `{"seed": %d, "vectors": [{"name": "v", "chunk": 1, "output": 1}]}`, seed))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := tester.Try(t.Context(), f.Vectors[0]); err != nil || !f.Vectors[0].Holds(&got) {
			t.Fatalf("seed %d: %+v, %v", seed, got, err)
		}
		return tester.pool
	}
	first := try(1)
	if again := try(1); again != first {
		t.Error("a vector with the same seed has other instances")
	}
	if s := first.Stats(); s.Created == 0 || s.Closed == s.Created {
		t.Errorf("in use: %+v", s)
	}
	second := try(2)
	if second == first {
		t.Error("another seed has the same instances")
	}
	if s := first.Stats(); s.Closed != s.Created {
		t.Errorf("no longer in use: %+v", s)
	}
	if err := tester.Close(); err != nil || second.Stats().Closed != second.Stats().Created {
		t.Errorf("closed: %+v, %v", second.Stats(), err)
	}
	if err := tester.Close(); err != nil {
		t.Errorf("closed again: %v", err)
	}
}
