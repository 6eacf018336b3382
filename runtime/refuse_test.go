package runtime_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// section returns a section of a module. Contents of 128 bytes or more get
// their length in four bytes.
func section(id byte, contents ...byte) []byte {
	n := len(contents)
	return slices.Concat([]byte{id, byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n >> 21)}, contents)
}

func module(sections ...[]byte) []byte {
	return append([]byte("\x00asm\x01\x00\x00\x00"), slices.Concat(sections...)...)
}

// function returns a module with one function () -> () with the given body.
func function(body ...byte) []byte {
	code := append([]byte{byte(len(body)) | 0x80, byte(len(body)>>7) | 0x80, byte(len(body)>>14) | 0x80, byte(len(body) >> 21)}, body...)
	return module(section(1, 1, 0x60, 0, 0), section(3, 1, 0), section(10, append([]byte{1}, code...)...))
}

// TestRefusals builds modules for which wat2wasm would need flags.
func TestRefusals(t *testing.T) {
	r := newRuntime(t, runtime.Config{})
	table := func(limits ...byte) []byte { return append([]byte{0x70}, limits...) }
	grown := func(tables int, limits ...byte) []byte {
		var all, grow []byte
		for i := range tables {
			all = append(all, table(limits...)...)
			grow = append(grow, 0xd0, 0x70, 0x41, 0, 0xfc, 15, byte(i), 0x1a) // by 0 entries
		}
		m := function(append(append([]byte{0}, grow...), 0x0b)...)
		types, rest := m[:8+5+4+5+2], m[8+5+4+5+2:] // after the function section
		return slices.Concat(types, section(4, append([]byte{byte(tables)}, all...)...), rest)
	}
	for _, test := range []struct {
		name string
		wasm []byte
		want string
	}{
		{"shared memory", module(section(5, 1, 3, 1, 1)), "threads are not supported"},
		{"atomic instruction", function(0, 0xfe, 0x03, 0, 0x0b), "threads"},
		{"tag section", module(section(1, 1, 0x60, 0, 0), section(13, 1, 0, 0)), "exception handling is not supported"},
		{"try", function(0, 0x06, 0x40, 0x0b, 0x0b), "exception handling"},
		{"try_table", function(0, 0x1f, 0x40, 0, 0x0b, 0x0b), "exception handling"},
		{"throw", function(0, 0x08, 0, 0x0b), "exception handling"},
		{"memory64", module(section(5, 1, 4, 1)), "memory64"},
		{"two memories", module(section(5, 2, 0, 1, 0, 1)), "memor"},
		{"memory of 4 GiB", module(section(5, 1, 0, 0x80, 0x80, 0x04)), "65536 pages"},
		{"billions of locals", function(1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0x7f, 0x0b), "locals"},
		{"table of 2^27 entries", module(section(4, 1, 0x70, 0, 0x80, 0x80, 0x80, 0x40)), "table of 134217728 entries"},
		{"tables that are too large together", module(section(4, append([]byte{40}, slices.Repeat(table(0, 0x80, 0x80, 0x10), 40)...)...)), "together"},
		{"table.grow without a maximum", grown(1, 0, 0), "table.grow"},
		{"table.grow to 2^27", grown(1, 1, 0, 0x80, 0x80, 0x80, 0x40), "table.grow"},
		{"table.grow of many tables", grown(100, 1, 0, 0x80, 0x80, 0x20), "together"},
		{"tail call", function(0, 0x12, 0, 0x0b), "tail call"},
	} {
		_, err := r.Compile(t.Context(), test.wasm, runtime.Options{})
		refused, ok := errors.AsType[*runtime.RefusedError](err)
		if !ok || !strings.Contains(refused.Error(), test.want) {
			t.Errorf("%s: %v, want a refusal with %q", test.name, err, test.want)
		}
		if runtime.Inspect(test.wasm).Accepted {
			t.Errorf("%s: inspect accepts it", test.name)
		}
	}
}
