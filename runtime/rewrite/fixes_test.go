package rewrite_test

import (
	"os"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// compares returns a module of one function (i64) -> i32 with a local of type i64.
func compares(code ...byte) []byte {
	body := slices.Concat([]byte{1, 1, 0x7e}, code, []byte{0x0b})
	return slices.Concat([]byte("\x00asm\x01\x00\x00\x00"),
		[]byte{1, 6, 1, 0x60, 1, 0x7e, 1, 0x7f, 3, 2, 1, 0},
		[]byte{10, byte(len(body) + 2), 1, byte(len(body))}, body)
}

// TestFixes checks that a module has fixes if the engine compiled part of it wrongly
// before, on any architecture, and not because code is replaced as a precaution.
func TestFixes(t *testing.T) {
	read := func(path string) []byte {
		wasm, err := os.ReadFile("../../" + path)
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
	and := []byte{0x20, 0, 0x20, 0, 0x83}
	less := func(left ...byte) []byte { return compares(slices.Concat(left, and, []byte{0x53})...) }
	for _, tt := range []struct {
		name string
		wasm []byte
		o    rewrite.Options
		want int
	}{
		{"nothing of the table", read("testdata/wasm/echo.wasm"), rewrite.Options{Metering: true}, 0},
		{"a guest in C", read("guest-examples/square/c/square.wasm"), rewrite.Options{Metering: true}, 0},
		{"another guest in C", read("guest-examples/wordcount/c/wordcount.wasm"), rewrite.Options{Metering: true}, 0},
		{"a conversion from u64", read("guest-examples/pi/c/pi.wasm"), rewrite.Options{Metering: true}, 1},
		{"a conversion of unsigned lanes", read("runtime/rewrite/testdata/faults/stale-conversion.wasm"), rewrite.Options{Metering: true}, 2},
		{"floats", read("testdata/wasm/floats.wasm"), rewrite.Options{Metering: true}, 1},
		{"canonical NaNs", read("runtime/rewrite/testdata/kernels.wasm"), rewrite.Options{}, 1},
		{"native NaNs", read("runtime/rewrite/testdata/kernels.wasm"), rewrite.Options{NativeNaNs: true}, 0},
		{"a constant 0 against an and", less(0x42, 0), rewrite.Options{}, 1},
		{"a constant 1 against an and", less(0x42, 1), rewrite.Options{}, 0},
		{"a local that is 0 against an and", less(0x20, 1), rewrite.Options{}, 1},
		{"a parameter against an and", less(0x20, 0), rewrite.Options{}, 0},
		{"a local that is set against an and", less(0x20, 0, 0x21, 1, 0x20, 1), rewrite.Options{}, 0},
	} {
		m, problems := binary.Parse(tt.wasm)
		if len(problems) > 0 {
			t.Fatal(tt.name, problems)
		}
		for _, tt.o.Arch = range []string{"amd64", "arm64"} {
			result, err := rewrite.Rewrite(tt.wasm, m, tt.o)
			if err != nil {
				t.Fatal(tt.name, err)
			}
			if result.Fixes != tt.want {
				t.Errorf("%s on %s: fixes %d, want %d", tt.name, tt.o.Arch, result.Fixes, tt.want)
			}
		}
	}
}
