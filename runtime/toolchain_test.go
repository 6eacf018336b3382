package runtime_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// importing returns a guest with imports of type () -> (), each "module name".
func importing(names ...string) []byte {
	g := &guest{}
	for _, n := range names {
		module, name, _ := strings.Cut(n, " ")
		g.imports = append(g.imports, functionImport(module, name, typeVoid))
	}
	return g.bytes()
}

func withCustom(wasm []byte, name string, content ...byte) []byte {
	c := append(wasmName(name), content...)
	return slices.Concat(wasm, []byte{0}, leb(len(c)), c)
}

// TestToolchainMistakes builds common mistakes. Each is refused in one line
// that names the option that helps.
func TestToolchainMistakes(t *testing.T) {
	exporting := withCustom(module(section(1, 1, 0x60, 0, 0), section(2, append([]byte{1}, slices.Concat(wasmName("env"), wasmName("__linear_memory"), []byte{2, 0, 0})...)...),
		section(3, 1, 0), section(7, append([]byte{1}, wasmExport("exec", 0, 0)...)...), section(10, 1, 2, 0, 0x0b)), "linking", 2)
	object := withCustom(module(section(2, append([]byte{1}, slices.Concat(wasmName("env"), wasmName("__linear_memory"), []byte{2, 0, 0})...)...)), "linking", 2)
	for _, test := range []struct {
		name string
		wasm []byte
		want string // contained in the only problem
	}{
		{"object file", object, "an object file, not linked: link it with wasm-ld"},
		{"object file with exports", exporting, "an object file, not linked"},
		{"object file with relocations", withCustom(module(), "reloc.CODE"), "an object file, not linked"},
		{"component", []byte("\x00asm\x0d\x00\x01\x00"), "wasm32-wasip1"},
		{"Emscripten", importing("env emscripten_memcpy_js", "env __syscall_openat", "env _emscripten_throw_longjmp"), "-sSTANDALONE_WASM"},
		{"Emscripten, minified", importing("a a", "a b", "a ab"), "-sSTANDALONE_WASM"},
		{"wasm-bindgen", importing("wbg __wbindgen_throw", "wbg __wbg_log_1", "wbg x"), "build without it"},
		{"wasm-bindgen, not yet processed", importing("__wbindgen_placeholder__ __wbindgen_describe", "__wbindgen_externref_xform__ __wbindgen_externref_table_grow"), "build without it"},
		{"AssemblyScript", importing("env abort"), "--use abort="},
		{"Go for browsers", importing("gojs runtime.wasmExit", "gojs runtime.wasmWrite"), "GOOS=wasip1"},
		{"WASI before preview 1", importing("wasi_unstable fd_write", "wasi_unstable proc_exit"), "wasm32-wasip1"},
		{"WASI preview 2", importing("wasi:io/streams@0.2.0 write"), "wasm32-wasip1"},
		{"threads", importing("wasi thread-spawn"), "without -pthread"},
		{"a dynamic library", importing("GOT.mem x", "GOT.func y"), "without -shared"},
		{"undefined", importing("env missing"), "define it"},

		{"shared memory", module(section(5, 1, 3, 1, 1)), "without -pthread"},
		{"atomic instruction", function(0, 0xfe, 0x03, 0, 0x0b), "-mno-atomics"},
		{"exception handling", function(0, 0x06, 0x40, 0x0b, 0x0b), "-fno-exceptions"},
		{"tag section", module(section(1, 1, 0x60, 0, 0), section(13, 1, 0, 0)), "panic=abort"},
		{"tail call", function(0, 0x12, 0, 0x0b), "-mno-tail-call"},
		{"garbage collection", module(section(1, 1, 0x5f, 0, 0, 0)), "-mno-gc"},
		{"an instruction of garbage collection", function(0, 0xfb, 0, 0, 0x0b), "-mno-gc"},
		{"typed references", function(0, 0x14, 0, 0x0b), "-mno-gc"},
		{"memory64", module(section(5, 1, 4, 1)), "--target=wasm32"},
		{"several memories", module(section(5, 2, 0, 1, 0, 1)), "-mno-multimemory"},
		{"a second memory that is filled", function(0, 0x41, 0, 0x41, 0, 0x41, 0, 0xfc, 11, 1, 0x0b), "-mno-multimemory"},
		{"relaxed SIMD", function(0, 0xfd, 0x80, 0x02, 0x0b), "-mno-relaxed-simd"},
	} {
		d := runtime.Inspect(test.wasm)
		problems := d.Problems
		if test.name == "several memories" {
			problems = problems[:1] // it does not export a memory
		}
		if d.Accepted || len(problems) != 1 || !strings.Contains(strings.Join(problems, "\n"), test.want) {
			t.Errorf("%s: %q, want one problem with %q", test.name, d.Problems, test.want)
		}
		_, err := newRuntime(t, runtime.Config{}).Admit(t.Context(), test.wasm, runtime.Options{})
		if refused, ok := errors.AsType[*runtime.RefusedError](err); !ok || !slices.Equal(refused.Problems, d.Problems) {
			t.Errorf("%s: Admit says %v", test.name, err)
		}
	}
}

// TestListsStandOnce imports several functions that WASI does not have. The
// list of functions must appear only once.
func TestListsStandOnce(t *testing.T) {
	d := runtime.Inspect(importing("wasi_snapshot_preview1 nope", "wasi_snapshot_preview1 neither", "wasi_snapshot_preview1 sock_open"))
	if text := strings.Join(d.Problems, "\n"); len(d.Problems) != 3 || strings.Count(text, "fd_fdstat_set_rights") != 1 {
		t.Errorf("%d problems: %s", len(d.Problems), text)
	}
}

// TestLinkedModulesMayKeepRelocations runs a module in which a linker left
// sections of object files.
func TestLinkedModulesMayKeepRelocations(t *testing.T) {
	wasm := withCustom(withCustom((&guest{}).bytes(), "linking", 2), "reloc.CODE")
	if d := runtime.Inspect(wasm); !d.Accepted || len(d.Notes) > 0 {
		t.Errorf("%q, %q", d.Problems, d.Notes)
	}
}

// TestNotReadIsNotMissing checks the problems of a module whose code cannot be
// read, and of one whose exports cannot be read.
func TestNotReadIsNotMissing(t *testing.T) {
	code := (&guest{exec: []byte{0xfe, 3, 0}}).bytes()
	d := runtime.Inspect(code)
	if len(d.Exports) != 3 || d.Imports == nil || len(d.Problems) != 1 {
		t.Errorf("of broken code: exports %v, imports %v, %q", d.Exports, d.Imports, d.Problems)
	}
	d = runtime.Inspect(function()[:12])
	if d.Exports != nil || d.Imports != nil || len(d.Problems) != 1 {
		t.Errorf("of a cut file: exports %v, imports %v, %q", d.Exports, d.Imports, d.Problems)
	}
}

// withStart returns a guest with exec and _start. exec has the given code.
func withStart(exec []byte) *guest {
	return &guest{exec: exec, bodies: []body{{kind: typeVoid}}, exports: [][]byte{wasmExport(abi.ExportStart, 0, 2)}}
}

// TestStartBesideExec has a module that works without its _start, which is
// accepted with a note, and one that traps, whose failure includes the note.
func TestStartBesideExec(t *testing.T) {
	producers := append([]byte{1}, slices.Concat(wasmName("language"), []byte{1}, wasmName("Go"), wasmName("go1.26"))...)
	for _, test := range []struct {
		name, want string
		wasm       []byte
	}{
		{"unknown", "-mexec-model=reactor (C, C++)", withStart(nil).bytes()},
		{"Go", "reactor: go build -buildmode=c-shared", withCustom(withStart(nil).bytes(), "producers", producers...)},
		{"wrapped exports", "NAME.command_export", withCustom((&guest{}).bytes(), "name", slices.Concat([]byte{1, 22, 1, 1}, wasmName("exec.command_export"))...)},
	} {
		d := runtime.Inspect(test.wasm)
		if !d.Accepted || len(d.Notes) != 1 || !strings.Contains(d.Notes[0], test.want) {
			t.Errorf("%s: accepted %v, %q, %q", test.name, d.Accepted, d.Problems, d.Notes)
		}
	}
	if d := runtime.Inspect((&guest{}).bytes()); len(d.Notes) != 0 {
		t.Errorf("without: %q", d.Notes)
	}
	i := prepare(t, withStart([]byte{0}).bytes(), runtime.Settings{}).Borrow(nil)
	defer i.Release()
	if _, _, err := i.Call(t.Context(), abi.ExportExec, []byte{0}, nil); classOf(err) != abi.ClassTrap || !strings.Contains(err.Error(), `"_start" is not called`) {
		t.Errorf("a trap without _start: %v", err)
	}
}
