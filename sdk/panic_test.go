package sdk_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// TestPanics makes the same mistake in every language: an index outside of an array.
// The failure has the message of the panic, the author's own function first, and what
// the guest logged before.
func TestPanics(t *testing.T) {
	for _, c := range []struct {
		language string
		module   func(t *testing.T) []byte
		message  string
		frame    []string // parts of the first frame
	}{
		{"go", goGuest("./panics/go"), "panic: index out of range [5] with length 3", []string{"main.pick (", "panics/go/main.go:9)"}},
		{"rust", file("panics/rust.wasm"), "panicked at 'index out of bounds: the len is 3 but the index is 5', panic.rs:11:5", []string{"::pick("}},
		{"c", file("panics/c.wasm"), "panic: index 5 out of bounds for 'uint64_t[3]' at panic.c:8", []string{"pick(i64) i64 (", "panic.c:8)"}},
		{"zig", file("panics/zig.wasm"), "panic: index out of bounds", []string{"panic.pick("}},
		{"assemblyscript", file("panics/assemblyscript.wasm"), "panic: Index out of range at ~lib/array.ts:114:42", []string{"panic/pick("}},
	} {
		t.Run(c.language, func(t *testing.T) {
			got := runJob(t, 1, &host.Job{Module: c.module(t)}, encode(t, 5))
			if len(got.result.Report.Failures) != 1 {
				t.Fatalf("outputs %x", got.outputs)
			}
			f := &got.result.Report.Failures[0].Failure
			if f.Class != abi.ClassTrap || !strings.HasPrefix(f.Message, c.message) {
				t.Errorf("%v, want %s", f, c.message)
			}
			if len(f.Stack) == 0 || slices.ContainsFunc(c.frame, func(part string) bool { return !strings.Contains(f.Stack[0], part) }) {
				t.Errorf("stack %q, want %q first", f.Stack, c.frame)
			}
			if c.language == "c" && (len(f.Stack) < 2 || !strings.Contains(f.Stack[1], "panic.c:15)")) {
				t.Errorf("stack %q, want the line of the call second", f.Stack)
			}
			if len(f.Logs) < 2 || f.Logs[0] != "before" {
				t.Errorf("logs %q", f.Logs)
			}
		})
	}
}
