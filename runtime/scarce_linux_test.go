package runtime_test

import (
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
)

// TestSystemWithoutMemory prepares a guest in a process that may not have the
// initial memory of the guest (ulimit -d). Prepare fails, and the process
// survives.
func TestSystemWithoutMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs more memory")
	}
	const limited = "WASM_JOBS_TEST_LIMITED"
	if os.Getenv(limited) == "" {
		child := exec.Command(os.Args[0], "-test.run=^TestSystemWithoutMemory$")
		child.Env = append(os.Environ(), limited+"=1")
		if out, err := child.CombinedOutput(); err != nil {
			t.Errorf("%v: %.2000s", err, out)
		}
		return
	}
	m, err := newRuntime(t, runtime.Config{}).Compile(t.Context(), wasmFile(t, "large-memory"), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	live := linear.Live()
	if err := unix.Setrlimit(unix.RLIMIT_DATA, &unix.Rlimit{Cur: 512 << 20, Max: 512 << 20}); err != nil {
		t.Fatal(err)
	}
	_, err = m.Prepare(t.Context(), runtime.Settings{Memory: 2 * gib})
	if classOf(err) != abi.ClassHost || linear.Live() != live {
		t.Errorf("%v, want class host; %d memories are left", err, linear.Live()-live)
	}
}
