package runtime_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// recursive returns a guest that calls itself as often as the length of its
// chunk, and returns the byte at 16.
func recursive() []byte {
	down := slices.Concat([]byte{opGet, 0, opIf, empty, opGet, 0, opConst, 1, 0x6b, opCall, 2, opEnd})
	return (&guest{
		types:  [][]byte{functionType([]byte{codeI32}, nil)},
		bodies: []body{{kind: typeNext, code: down}},
		exec:   slices.Concat([]byte{opGet, 1}, op(opCall, 2), returnByte),
		alloc:  []byte{opConst, 32},
	}).bytes()
}

// TestStack checks that the setting limits the depth of calls, to the byte, on
// both engines if their own limits allow more.
func TestStack(t *testing.T) {
	m, err := newRuntime(t, runtime.Config{}).Compile(t.Context(), recursive(), runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	deepest := map[uint64]int{}
	for _, stack := range []uint64{runtime.MinStack, 64 << 10, 1 << 20} {
		p := pool(t, m, runtime.Settings{Stack: stack})
		i := p.Borrow(nil)
		low, high := 0, int(stack)
		for low+1 < high {
			chunk := abi.AppendHead(nil, abi.MajorBytes, uint64((low+high)/2))
			chunk = append(chunk, make([]byte, (low+high)/2)...)
			_, _, err := i.Call(t.Context(), abi.ExportExec, chunk[:min(len(chunk), 60000)], nil)
			if err == nil {
				low = (low + high) / 2
			} else if high = (low + high) / 2; classOf(err) != abi.ClassTrap {
				t.Fatalf("%d bytes, %d calls: %v", stack, high, err)
			}
			if low >= 60000 {
				break
			}
		}
		i.Release()
		deepest[stack] = low
	}
	if deepest[runtime.MinStack]*12 > deepest[64<<10] || deepest[64<<10]*12 > deepest[1<<20] {
		t.Errorf("deepest calls by stack: %v", deepest)
	}
	for _, stack := range []uint64{1, runtime.MinStack - 1, runtime.MaxStack + 1, 1 << 63} {
		if _, err := m.Prepare(t.Context(), runtime.Settings{Stack: stack}); !refuses(err) {
			t.Errorf("a stack of %d bytes: %v", stack, err)
		}
	}
}

func refuses(err error) bool {
	_, refused := errors.AsType[*runtime.RefusedError](err)
	return refused
}
