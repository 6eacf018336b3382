package sdk_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// compressed reads a module that gzip has compressed.
func compressed(path string) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		z, err := gzip.NewReader(bytes.NewReader(file(path)(t)))
		if err != nil {
			t.Fatal(err)
		}
		wasm, err := io.ReadAll(z)
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
}

// withoutDWARF leaves out the sections that say which line an instruction comes from.
func withoutDWARF(module func(t *testing.T) []byte) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		wasm := module(t)
		m, problems := binary.Parse(wasm)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		out := slices.Clone(wasm[:8])
		for _, s := range m.Sections {
			if !strings.HasPrefix(s.Name, ".debug_") {
				out = append(out, wasm[s.Head:s.End]...)
			}
		}
		if len(out) == len(wasm) {
			t.Fatal("the module has no DWARF")
		}
		return out
	}
}

// documented reports whether a row of the table in docs/failures.md has all parts.
func documented(t *testing.T, parts []string) bool {
	t.Helper()
	rows := strings.Split(string(file("../docs/failures.md")(t)), "\n| ")
	return slices.ContainsFunc(rows, func(row string) bool {
		return !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(row, part) })
	})
}

// TestPanics makes the same mistake in every language: an index outside of an array.
// The failure has the message of the panic, the author's own function first, and what
// the guest logged before. Each frame of the author's has its line, which AssemblyScript
// does not write.
func TestPanics(t *testing.T) {
	for _, c := range []struct {
		language string
		module   func(t *testing.T) []byte
		message  string
		frame    []string // parts of the first frame
		caller   string   // a part of the second
	}{
		{"go", goGuest("./panics/go"), "panic: index out of range [5] with length 3", []string{"main.pick (", "panics/go/main.go:9)"}, "panics/go/main.go:"},
		{"rust", compressed("panics/rust.wasm.gz"), "panicked at 'index out of bounds: the len is 3 but the index is 5', panic.rs:11:5",
			[]string{"panic::pick(i64) i64 (", "panic.rs:11)"}, "panic.rs:16)"},
		{"rust without DWARF", withoutDWARF(compressed("panics/rust.wasm.gz")), "panicked at 'index out of bounds: the len is 3 but the index is 5', panic.rs:11:5",
			[]string{"panic::pick(i64) i64"}, "exec(i32,i32) i64"},
		{"c", file("panics/c.wasm"), "panic: index 5 out of bounds for 'uint64_t[3]' at panic.c:8", []string{"pick(i64) i64 (", "panic.c:8)"}, "panic.c:15)"},
		{"zig", compressed("panics/zig.wasm.gz"), "panic: index out of bounds: index 5, len 3", []string{"panic.pick(i32) i64 (", "panic.zig:11)"}, "panic.zig:16)"},
		{"zig without DWARF", withoutDWARF(compressed("panics/zig.wasm.gz")), "panic: index out of bounds: index 5, len 3", []string{"panic.pick(i32) i64"}, "Export.run(i32,i32) i64"},
		{"assemblyscript", file("panics/assemblyscript.wasm"), "panic: Index out of range at ~lib/array.ts:114:42", []string{"panic/pick("}, ""},
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
			if len(f.Stack) < 2 || !strings.Contains(f.Stack[1], c.caller) {
				t.Errorf("stack %q, want %s second", f.Stack, c.caller)
			}
			if len(f.Logs) < 2 || f.Logs[0] != "before" {
				t.Errorf("logs %q", f.Logs)
			}
			if !strings.Contains(c.language, "without") && !documented(t, append(c.frame, c.message)) {
				t.Errorf("docs/failures.md has no row with %s and %q", c.message, c.frame)
			}
		})
	}
}
