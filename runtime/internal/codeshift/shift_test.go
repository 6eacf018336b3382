package codeshift_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/internal/codeshift"
)

// TestShift shifts the code of a module, which stays one, and nothing else.
func TestShift(t *testing.T) {
	kernels, err := os.ReadFile("../../rewrite/testdata/kernels.wasm")
	if err != nil {
		t.Fatal(err)
	}
	before, _ := binary.Parse(kernels)
	last := before.Bodies[len(before.Bodies)-1]
	for n := range codeshift.Positions {
		shifted, err := codeshift.Shift(kernels, n)
		if err != nil {
			t.Fatal(err)
		}
		m, problems := binary.Parse(shifted)
		if len(problems) > 0 || len(m.Bodies) != len(before.Bodies) || len(m.Sections) != len(before.Sections) {
			t.Fatalf("%d: %v", n, problems)
		}
		if want := len(kernels) + 13 + 15*n; len(shifted) < want || len(shifted) > want+2 {
			t.Errorf("%d: %d bytes, want %d and the growth of two lengths", n, len(shifted), want)
		}
		if b := m.Bodies[len(m.Bodies)-1]; !bytes.Equal(shifted[b.Offset:b.End], kernels[last.Offset:last.End]) {
			t.Errorf("%d: the last function changed", n)
		}
	}
	if _, err := codeshift.Shift([]byte("no module"), 1); err == nil {
		t.Error("no module was shifted")
	}
}
