package runtime_test

import (
	"os"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// TestEngineVersion holds what test binaries say to go.mod: they know nothing of
// the modules they are made of.
func TestEngineVersion(t *testing.T) {
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/tetratelabs/wazero " + runtime.EngineVersion() + "\n"; !strings.Contains(string(b), want) {
		t.Errorf("go.mod has not %q: change engineVersion, and write testdata/receipts again", want)
	}
}
