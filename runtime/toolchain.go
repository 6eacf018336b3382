package runtime

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// toolchain describes imports that are meant for another host, and how to
// compile without them.
type toolchain struct {
	name   string
	advice string
	makes  func(module, name string) bool
}

// toolchains are checked in this order.
var toolchains = []toolchain{
	{"AssemblyScript", "compile with --use abort=wasm_jobs/panic, which is in the SDK, or --use abort= (and --use trace=, --use seed=)", func(module, name string) bool {
		return module == "env" && slices.Contains([]string{"abort", "trace", "seed", "console.log"}, name)
	}},
	{"wasm-bindgen, for JavaScript", "build without it, for wasm32-wasip1 or wasm32-unknown-unknown with crate-type cdylib, and export the functions of the ABI", func(module, name string) bool {
		return module == "wbg" || strings.HasPrefix(module, "__wbindgen") || strings.HasPrefix(name, "__wbindgen") || strings.HasPrefix(name, "__wbg_")
	}},
	{"Go, for browsers", "build with GOOS=wasip1 GOARCH=wasm and -buildmode=c-shared", func(module, _ string) bool {
		return module == "gojs" || module == "go"
	}},
	{"a compiler for the WASI of before preview 1", "use a newer compiler or wasi-libc, with the target wasm32-wasi or wasm32-wasip1", func(module, _ string) bool {
		return module == "wasi_unstable" || module == "wasi_snapshot_preview0"
	}},
	{"a compiler for WASI preview 2 (components)", "build for wasm32-wasip1 (TinyGo: -target=wasip1)", func(module, _ string) bool {
		return strings.HasPrefix(module, "wasi:") || strings.HasPrefix(module, "cm32p2") || module == "$root"
	}},
	{"a compiler for threads", "build without -pthread, for wasm32-wasip1 instead of wasm32-wasip1-threads", func(module, name string) bool {
		return module == "wasi" && name == "thread-spawn"
	}},
	{"a linker, for a dynamic library", "link without -shared and -fPIC (Emscripten: without -sSIDE_MODULE and -sMAIN_MODULE)", func(module, _ string) bool {
		return module == "GOT.mem" || module == "GOT.func"
	}},
	{"Emscripten, for JavaScript", "link with -sSTANDALONE_WASM and --no-entry, or build with clang --target=wasm32-wasi -mexec-model=reactor", func(module, name string) bool {
		return module == "a" && len(name) <= 2 || module == "env" && isEmscripten(name)
	}},
	{"a linker that was told to", "link without --import-memory (Emscripten: -sIMPORTED_MEMORY=0; AssemblyScript: without --importMemory)", func(module, name string) bool {
		return module == "env" && name == "memory"
	}},
}

func isEmscripten(name string) bool {
	for _, prefix := range []string{"emscripten_", "_emscripten_", "invoke_", "__syscall_", "__cxa_", "_embind_", "_emval_", "_abort_js", "_mmap_js", "_munmap_js", "_tzset_js", "_localtime_js"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{"setTempRet0", "getTempRet0", "__assert_fail", "segfault", "alignfault", "__main_argc_argv"}, name)
}

// toolchainOf returns the toolchain of an import, or nil.
func toolchainOf(i binary.Import) *toolchain {
	for n := range toolchains {
		if toolchains[n].makes(i.Module, i.Name) {
			return &toolchains[n]
		}
	}
	return nil
}

// foreign are the imports of one toolchain.
type foreign struct {
	from  *toolchain
	first binary.Import
	n     int
}

func foreignOf(m *binary.Module) (all []foreign) {
	for _, i := range m.Imports {
		from := toolchainOf(i)
		if from == nil {
			continue
		}
		at := slices.IndexFunc(all, func(f foreign) bool { return f.from == from })
		if at < 0 {
			all = append(all, foreign{from, i, 1})
		} else {
			all[at].n++
		}
	}
	return all
}

// foreignImports returns a line for each toolchain whose imports a module has.
func foreignImports(m *binary.Module) (problems []string) {
	for _, f := range foreignOf(m) {
		others := ""
		if f.n > 1 {
			others = fmt.Sprintf(", and %d more like it", f.n-1)
		}
		problems = append(problems, fmt.Sprintf("import %s.%s (%s)%s: made by %s: %s",
			quote(f.first.Module), quote(f.first.Name), f.first.Kind, others, f.from.name, f.from.advice))
	}
	return problems
}

// maxImportProblems bounds the lines about imports: a module for browsers has
// hundreds of unsupported ones.
const maxImportProblems = 50

// checkImports returns a line for each unsupported import, and one for all
// imports of a known toolchain. The functions of a host module are listed only
// once.
func checkImports(m *binary.Module) []string {
	problems := foreignImports(m)
	listed := map[string]bool{}
	for n, i := range m.Imports {
		if len(problems) == maxImportProblems {
			return append(problems, fmt.Sprintf("%d more imports were not checked", len(m.Imports)-n))
		}
		if toolchainOf(i) != nil {
			continue
		}
		if problem := checkImport(m, i, listed); problem != "" {
			problems = append(problems, fmt.Sprintf("import %s.%s (%s): %s", quote(i.Module), quote(i.Name), i.Kind, problem))
		}
	}
	return problems
}

// checkImport returns what is wrong with an import, or "". listed are the modules
// whose functions were listed before.
func checkImport(m *binary.Module, i binary.Import, listed map[string]bool) string {
	served, known := imports[i.Module]
	switch {
	case i.Module == "env" && !listed["env"]:
		listed["env"] = true
		return fmt.Sprintf("only %s and %s are served; it was undefined when the module was linked: define it, or link the library that does", abi.WASIModule, abi.ImportModule)
	case !known:
		return fmt.Sprintf("only %s and %s are served", abi.WASIModule, abi.ImportModule)
	}
	want, known := served[i.Name]
	switch {
	case !known && listed[i.Module]:
		return "not served either"
	case !known:
		listed[i.Module] = true
		return "not served; " + i.Module + " has " + strings.Join(slices.Sorted(maps.Keys(served)), ", ")
	case i.Kind != binary.KindFunc:
		return "want func " + want
	}
	if got := m.Types[i.Type].String(); got != want {
		return fmt.Sprintf("has type %s: want %s", got, want)
	}
	return ""
}

// objectFile is the problem of an object file.
const objectFile = "an object file, not linked: link it with wasm-ld (clang without -c)"

// isObject reports whether a module is an object file for a linker (Tool
// Conventions, Linking.md): it has a section for linking and no memory. Linked
// modules can keep such sections.
func isObject(m *binary.Module) bool {
	imported := 0
	for _, i := range m.Imports {
		if i.Kind == binary.KindMemory {
			imported++
		}
	}
	return imported == len(m.Memories) && slices.ContainsFunc(m.Sections, func(s binary.Section) bool {
		return s.ID == binary.SectionCustom && (s.Name == "linking" || strings.HasPrefix(s.Name, "reloc."))
	})
}

// notes returns likely mistakes of a module whose exports could be read.
func notes(m *binary.Module) (all []string) {
	_, hasExec := m.Export(abi.ExportExec)
	_, hasStart := m.Export(abi.ExportStart)
	if hasExec && hasStart {
		all = append(all, fmt.Sprintf("%q is not called, since there is %q: what it would set up is missing; build a reactor: %s", abi.ExportStart, abi.ExportExec, reactor(m)))
	}
	if hasExec && m.CommandExports {
		all = append(all, "its exports are those of a command (NAME.command_export), which set up and tear down the program in each call; build a reactor: "+reactor(m))
	}
	if slices.ContainsFunc(m.Sections, func(s binary.Section) bool { return strings.HasPrefix(s.Name, "dylink") }) {
		all = append(all, "it is a dynamic library: link without -shared (Emscripten: without -sSIDE_MODULE)")
	}
	return all
}

// reactor returns the option with which the compiler of a module makes
// reactors.
func reactor(m *binary.Module) string {
	made := strings.ToLower(strings.Join(m.Producers, "\n"))
	switch {
	case strings.Contains(made, "tinygo"):
		return "tinygo build -target=wasip1 -buildmode=c-shared"
	case strings.Contains(made, "rust"):
		return "crate-type cdylib"
	case strings.Contains(made, "clang"):
		return "-mexec-model=reactor"
	case strings.Contains(made, "go"):
		return "go build -buildmode=c-shared"
	}
	return "-buildmode=c-shared (Go, TinyGo), -mexec-model=reactor (C, C++), crate-type cdylib (Rust)"
}
