package runtime

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Runtimes print why they give up in their own ways.
func TestWords(t *testing.T) {
	for _, c := range []struct{ name, printed, message, stack string }{
		{"nothing", "", "", ""},
		{"an ordinary line", "hello\n", "", ""},
		{"Go", "panic: runtime error: index out of range [5] with length 3 [recovered, repanicked]\n\ngoroutine 1 [running]:\nmain.pick({0x2ede18, 0x3}, 0x5)\n\tm/main.go:25 +0x4\nmain.exec(...)\n\tm/main.go:9\n\ngoroutine 2 [select]:\nother()\n\tm/o.go:1\n",
			"panic: index out of range [5] with length 3", "main.pick (m/main.go:25); main.exec (m/main.go:9)"},
		{"Rust", "thread '<unnamed>' panicked at src/lib.rs:3:5:\nno\nnote: run with RUST_BACKTRACE=1\n", "thread '<unnamed>' panicked at src/lib.rs:3:5: no", ""},
		{"C", "Assertion failed: x (main.c: f: 3)\n", "Assertion failed: x (main.c: f: 3)", ""},
		{"control characters", "panic: \x1b[2J\n", `panic: \x1b[2J`, ""},
	} {
		var l logger
		l.start(nil)
		_, _ = l.Write([]byte(c.printed))
		l.finish()
		if got := l.words.message(); got != c.message {
			t.Errorf("%s: message %q, want %q", c.name, got, c.message)
		}
		if got := strings.Join(l.words.trace.stack(), "; "); got != c.stack {
			t.Errorf("%s: stack %q, want %q", c.name, got, c.stack)
		}
	}
}

// The last 8 lines are kept, each up to 4 KiB, whoever listens; a panic is a line of
// level error with nothing after it.
func TestLastWords(t *testing.T) {
	var l logger
	l.start(nil)
	for n := range 20 {
		l.line(int32(n%2*8), fmt.Append(nil, "line ", n))
	}
	l.line(0, []byte(strings.Repeat("x", 5000)))
	if got := l.words.message(); got != "" {
		t.Errorf("message %q, although the guest went on", got)
	}
	l.line(8, []byte("at last"))
	last := l.words.last()
	if len(last) != 8 || last[0] != "line 14" || len(last[6]) != 4096 || last[7] != "at last" || l.words.message() != "at last" {
		t.Errorf("%d lines %.20q, message %q", len(last), last, l.words.message())
	}
	l.start(nil)
	if l.words.last() != nil || l.words.message() != "" {
		t.Error("words of an earlier call are left")
	}
}

// The stack begins at the author's own function, under its own name.
func TestOwnFrames(t *testing.T) {
	for _, c := range [][]string{
		{"rust_panic(i32)", "a.wasm._ZN4core9panicking5panic17h0123456789abcdefE()", "a.wasm._ZN3app4pick17h0123456789abcdefE(i64)", "core::f()", "->", "app::pick(i64)", "core::f()"},
		{"core::panicking::panic::h0123456789abcdef()", "app::pick::h0123456789abcdef(i32)", "->", "app::pick(i32)"},
		{"runtime.abort(i32)", "runtime.gopanic(i32)", "x_wasmjobs.__Function_.Serve.func1(i32)", "main.pick(i32)", "->", "main.pick(i32)"},
		{"c.wasm.wj_panic(i32)", "c.wasm.pick(i32)", "->", "c.wasm.pick(i32)"},
		{"runtime.abort()", "->", "runtime.abort()"},
		{"$3()", "$2()", "->", "$3()", "$2()"},
	} {
		at := slices.Index(c, "->")
		var frames []frame
		for _, name := range c[:at] {
			frames = append(frames, frame{name: name})
		}
		if got := own(bounded(frames, frame.readable)); !slices.Equal(got, c[at+1:]) {
			t.Errorf("%q: %q, want %q", c[:at], got, c[at+1:])
		}
	}
}
