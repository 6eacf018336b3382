package runtime_test

import (
	"os"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// TestEngineVersion compares the version in test binaries, which do not know
// their modules, with go.mod.
func TestEngineVersion(t *testing.T) {
	b, err := os.ReadFile("../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if want := "github.com/tetratelabs/wazero " + runtime.EngineVersion() + "\n"; !strings.Contains(string(b), want) {
		t.Errorf("go.mod does not have %q: change engineVersion, and write testdata/receipts again", want)
	}
}
