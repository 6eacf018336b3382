package guest_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// borrow returns an instance of an example guest.
func borrow(t *testing.T, path string) *runtime.Instance {
	t.Helper()
	wasm, err := os.ReadFile("../../guest-examples/" + path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	m, err := r.Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pool, err := m.Prepare(t.Context(), runtime.Settings{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	instance := pool.Borrow(nil)
	t.Cleanup(instance.Release)
	return instance
}

func TestCall(t *testing.T) {
	square := borrow(t, "square/c/square.wasm")
	four, err := guest.Call(t.Context(), square, abi.ExportExec, []byte{2})
	if err != nil || !four.Done || string(four.Output) != "\x04" || four.SHA256 != fmt.Sprintf("%x", sha256.Sum256([]byte{4})) || four.Failure != nil || four.Fuel == 0 || four.Memory < 1<<16 {
		t.Errorf("got %+v, %v", four, err)
	}
	none, err := guest.Call(t.Context(), square, abi.ExportExec, abi.AppendText(nil, "x"))
	if err != nil || !none.Done || none.Output != nil || none.SHA256 != "" || none.Failure == nil || none.Failure.Class != abi.ClassGuest || none.Memory == 0 {
		t.Errorf("got %+v, %v", none, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r, err := guest.Call(ctx, square, abi.ExportExec, []byte{2}); !errors.Is(err, context.Canceled) || r.Done {
		t.Errorf("cancelled: %+v, %v", r, err)
	}
}

// The output of a call does not change when the instance is called again.
func TestOutputsAreOwned(t *testing.T) {
	square := borrow(t, "square/c/square.wasm")
	first, err := guest.Call(t.Context(), square, abi.ExportExec, []byte{2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := guest.Call(t.Context(), square, abi.ExportExec, []byte{3}); err != nil || string(first.Output) != "\x04" {
		t.Errorf("the first output is now %x, %v", first.Output, err)
	}
}

func TestSame(t *testing.T) {
	output := func(digest string, fuel uint64) guest.CallResult {
		return guest.CallResult{Done: true, SHA256: digest, Fuel: fuel}
	}
	failure := func(class abi.Class, message string) guest.CallResult {
		return guest.CallResult{Done: true, Failure: &abi.Failure{Class: class, Message: message, Fuel: 9}}
	}
	deeper := failure(abi.ClassTrap, "a")
	deeper.Failure.Stack = []string{"f"}
	for _, tt := range []struct {
		name             string
		a, b             guest.CallResult
		same, comparable bool
	}{
		{"neither made", guest.CallResult{}, guest.CallResult{}, true, false},
		{"one made", output("aa", 1), guest.CallResult{}, false, false},
		{"outputs", output("aa", 1), output("aa", 1), true, true},
		{"other outputs", output("aa", 1), output("bb", 1), false, true},
		{"other fuel", output("aa", 1), output("aa", 2), false, true},
		{"an output and a failure", output("", 0), failure(abi.ClassTrap, "a"), false, true},
		{"failures", failure(abi.ClassTrap, "a"), deeper, true, true},
		{"other classes", failure(abi.ClassTrap, "a"), failure(abi.ClassExit, "a"), false, true},
		{"other messages", failure(abi.ClassTrap, "a"), failure(abi.ClassTrap, "b"), false, true},
		{"a timeout", failure(abi.ClassTrap, "a"), failure(abi.ClassTimeout, "a"), false, false},
		{"the host", failure(abi.ClassTrap, "a"), failure(abi.ClassHost, "a"), false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.a.Same(&tt.b) != tt.same || tt.b.Same(&tt.a) != tt.same {
				t.Errorf("same is not %t", tt.same)
			}
			if got := tt.a.Comparable() && tt.b.Comparable(); got != tt.comparable {
				t.Errorf("comparable is %t", got)
			}
		})
	}
}

func TestInputs(t *testing.T) {
	for _, tt := range []struct {
		name string
		got  []byte
		want string
	}{
		{"no outputs", guest.AggregateInput(nil, nil), "80"},
		{"positions", guest.AggregateInput(nil, [][]byte{{4}, {9}}), "82820004820109"},
		{"ids", guest.AggregateInput([]abi.ID{abi.IntID(7), abi.TextID("a")}, [][]byte{{4}, {9}}), "82820704826161" + "09"},
		{"no results", guest.MergeInput(nil), "80"},
		{"results", guest.MergeInput([][]byte{{4}, {0x18, 25}}), "82041819"},
	} {
		if got := fmt.Sprintf("%x", tt.got); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}
