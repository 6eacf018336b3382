//go:build unix

package effects

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
)

func TestCommandArguments(t *testing.T) {
	t.Setenv("KEPT", "kept")
	t.Setenv("DROPPED", "dropped")
	c := &Command{Args: []string{"sh", "-c", `printf '%s|' "$@"; printf '%s %s %s' "$KEPT" "$DROPPED" "$WASM_JOBS_STEP"; cat`, "-", "a{x}b", "{n}", "-{x}"}, Env: []string{"KEPT"}, Stdin: "json"}
	for _, x := range []string{"plain", "two words", `"quoted" 'both'`, "$(id) `id` $HOME", "-rf", "a;b|c\nd"} {
		out, err := call(t, c, map[string]any{"x": x, "n": 7})
		if err != nil {
			t.Fatal(err)
		}
		want := "a" + x + "b|7|-" + x + "|kept  " + strings.Repeat("0", 64)
		if got := string(out["stdout"].([]byte)); !strings.HasPrefix(got, want) || !strings.Contains(got[len(want):], `"n":7`) {
			t.Errorf("%q: %q, want %q and the data", x, got, want)
		}
	}
	_, err := call(t, c, map[string]any{"n": 7})
	wantClass(t, err, flow.ClassEffect, "{x}")
	_, err = call(t, c, map[string]any{"x": "a\x00b", "n": 7})
	wantClass(t, err, flow.ClassEffect, "zero byte")
}

func TestCommandExits(t *testing.T) {
	c := &Command{Args: []string{"sh", "-c", "echo why >&2; exit $0", "{n}"}, RetryExit: []int{75}}
	_, err := call(t, c, map[string]any{"n": 75})
	wantClass(t, err, abi.ClassGuestRetryable, "why")
	_, err = call(t, c, map[string]any{"n": 3})
	wantClass(t, err, abi.ClassExit, "why")
	_, err = call(t, &Command{Args: []string{"no-such-program-here"}}, 1)
	wantClass(t, err, flow.ClassEffect, "no-such-program")
	_, err = call(t, &Command{Args: []string{"sh", "-c", "head -c 5000 /dev/zero"}, MaxOutput: 1000, Grace: time.Second}, 1)
	wantClass(t, err, flow.ClassEffect, "1000 bytes")
}

// TestCommandGroupDies: a command that ignores SIGTERM dies with its group.
func TestCommandGroupDies(t *testing.T) {
	pids := filepath.Join(t.TempDir(), "pids")
	script := `trap "" TERM; sh -c 'trap "" TERM; echo $$ >> ` + pids + `; sleep 60; sleep 60' & echo $$ >> ` + pids + `; wait; wait`
	start := time.Now()
	_, err := call(t, &Command{Args: []string{"sh", "-c", script}, Timeout: 300 * time.Millisecond, Grace: 300 * time.Millisecond}, 1)
	wantClass(t, err, abi.ClassTimeout, "")
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("it took %v to end", took)
	}
	b, err := os.ReadFile(pids)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Fields(string(b)) {
		pid, err := strconv.Atoi(line)
		if err != nil {
			t.Fatal(err)
		}
		alive := true
		for range 1000 { // it dies at once, but is listed until its parent has waited for it
			if alive = syscall.Kill(pid, 0) == nil && !isZombie(pid); !alive {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if alive {
			t.Errorf("process %d is still there", pid)
		}
	}
}

func isZombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	return err != nil || strings.Contains(string(b), ") Z ")
}
