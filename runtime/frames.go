package runtime

import (
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/ianlancetaylor/demangle"
)

// placed adds the place of a frame to it.
func placed(frame, place string) string {
	if place == "" {
		return frame
	}
	return frame + " (" + place + ")"
}

// readable returns a frame as its author would write it: "app.wasm._ZN3app4pick17h
// 0123456789abcdefE(i32) i64" becomes "app::pick(i32) i64". Frames with other names
// stay as they are.
func readable(frame string) string {
	name, signature, called := strings.Cut(frame, "(")
	if called {
		signature = "(" + signature
	}
	bare := bareName(name)
	if len(bare) > maxMangled {
		return frame
	}
	plain := demangle.Filter(bare, demangle.NoParams, demangle.MaxLength(8))
	if plain = rustHash().ReplaceAllString(plain, ""); plain == bare {
		return frame
	}
	return plain + signature
}

// maxMangled is the maximum length of a name that is demangled: the result can be
// much longer.
const maxMangled = 1 << 10

// rustHash is the last part of names of Rust that the linker has demangled.
var rustHash = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`::h[0-9a-f]{16}$`) })

// bareName returns the name of a function without the module's, which is usually
// that of a file.
func bareName(name string) string {
	if _, bare, ok := strings.Cut(name, ".wasm."); ok {
		return bare
	}
	return name
}

// own returns the stack from the first frame on that is not machinery of the
// language or the SDK: the author of the guest looks for their own function. If
// there is none, it returns the whole stack.
func own(stack []string) []string {
	if at := slices.IndexFunc(stack, func(frame string) bool { return !isMachinery(frame) }); at > 0 {
		return stack[at:]
	}
	return stack
}

// machinery are the beginnings of the names of functions that run between a mistake
// and the trap, and of library functions that find it.
var machinery = []string{
	// Rust
	"core::", "std::", "alloc::", "<core::", "<std::", "<alloc::", "<T as core::", "<I as core::", "<usize as core::", "<[T] as core::",
	"rust_panic", "rust_begin_unwind", "__rust", "panic_abort::", "wasm_jobs::host::",
	// Go
	"runtime.", "panic(", "panic (",
	// Zig
	"builtin.", "debug.", "std.", "wasm_jobs.panic", "root.panic",
	// C and C++
	"abort(", "__assert_fail", "__ubsan_handle", "__cxa_", "__stack_chk_fail", "wj_panic", "wj_must_alloc", "raise(", "abort_message",
	// AssemblyScript
	"~lib/",
}

// sdkFrame matches the functions of the SDKs for Go and AssemblyScript that log a
// panic, wherever the author has put the SDK.
var sdkFrame = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(^|[/_.])(wasmjobs|go)\.(\(\*Function\)|__Function_)\.Serve\.func|(^|/)wasm_jobs/panic\(`)
})

func isMachinery(frame string) bool {
	name := bareName(frame)
	return slices.ContainsFunc(machinery, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) || sdkFrame().MatchString(frame)
}
