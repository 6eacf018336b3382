package binary

import (
	"bytes"
	"fmt"
)

// looks has the first bytes of files that people mistake for a module.
var looks = []struct{ prefix, what string }{
	{"\x1f\x8b", "it looks like gzip: unpack it first"},
	{"\x28\xb5\x2f\xfd", "it looks like Zstandard: unpack it first"},
	{"BZh", "it looks like bzip2: unpack it first"},
	{"PK\x03\x04", "it looks like a zip archive: unpack it first"},
	{"\x7fELF", "it looks like an ELF program of this machine: compile it to WebAssembly"},
	{"MZ", "it looks like a Windows program: compile it to WebAssembly"},
	{"\xcf\xfa\xed\xfe", "it looks like a macOS program: compile it to WebAssembly"},
	{"!<arch>\n", "it looks like an archive of object files: link it"},
	{"BC\xc0\xde", "it looks like LLVM bitcode: compile it to WebAssembly"},
	{"#!", "it looks like a script"},
	{"<", "it looks like HTML or XML"},
}

// sniff checks the first 8 bytes. If the file is not a module, it says which
// format it looks like.
func sniff(b []byte) *Problem {
	switch {
	case len(b) == 0:
		return &Problem{0, "the file is empty, not a WebAssembly module"}
	case len(b) > MaxModuleSize:
		return &Problem{0, fmt.Sprintf("too large: a module of %d bytes, want at most %d", len(b), MaxModuleSize)}
	case !bytes.HasPrefix(b, []byte("\x00asm")):
		if len(b) < 4 && bytes.HasPrefix([]byte("\x00asm"), b) {
			return &Problem{len(b), "truncated: a WebAssembly module begins with 8 bytes"}
		}
		return &Problem{0, "not a WebAssembly module: " + look(b)}
	case len(b) < 8:
		return &Problem{len(b), "truncated: a WebAssembly module begins with 8 bytes"}
	}
	return version(b[4:8])
}

func version(v []byte) *Problem {
	switch {
	case bytes.Equal(v, []byte{1, 0, 0, 0}):
		return nil
	case v[2] == 1 && v[3] == 0:
		return &Problem{4, "a WebAssembly component is not supported: build a core module (Rust: the target wasm32-wasip1; TinyGo: -target=wasip1; others: without wasm-tools component new)"}
	}
	return &Problem{4, fmt.Sprintf("unknown version % x of the binary format: want 01 00 00 00", v)}
}

func look(b []byte) string {
	for _, l := range looks {
		if bytes.HasPrefix(b, []byte(l.prefix)) {
			return l.what
		}
	}
	text := bytes.TrimLeft(b[:min(len(b), 4096)], " \t\r\n")
	if bytes.HasPrefix(text, []byte("(module")) || bytes.HasPrefix(text, []byte(";;")) || bytes.HasPrefix(text, []byte("(;")) {
		return "it looks like the WebAssembly text format: run wat2wasm on it first"
	}
	if isText(text) {
		return "it looks like text"
	}
	return fmt.Sprintf("it begins with % x, want 00 61 73 6d", b[:min(len(b), 4)])
}

func isText(b []byte) bool {
	for _, c := range b {
		if c < ' ' && c != '\n' && c != '\r' && c != '\t' && c != '\f' || c == 0x7f {
			return false
		}
	}
	return true
}
