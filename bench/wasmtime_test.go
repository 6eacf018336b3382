//go:build cgo && (amd64 || (arm64 && !windows)) && (linux || darwin || windows)

package main

import (
	"testing"

	"github.com/bytecodealliance/wasmtime-go/v39"
)

// TestPoolIsUsed checks that the number of instances is limited, which it is only with
// the pooling allocator.
func TestPoolIsUsed(t *testing.T) {
	w, err := newWork(t.Context(), kernels()[0], toolsOf(t))
	if err != nil {
		t.Fatal(err)
	}
	r, err := openWasmtime(false)(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	c := r.(*cranelift)
	stores := make([]*wasmtime.Store, pooled+1)
	for i := range stores {
		stores[i] = wasmtime.NewStore(c.engine)
		_, err = c.linker.Instantiate(stores[i], c.module)
		if (err != nil) != (i == pooled) {
			t.Errorf("instance %d: %v", i, err)
		}
	}
	for _, s := range stores {
		s.Close()
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
}
