// Package runnertest is the suite that every runner of requests passes.
package runnertest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Run tests a runner that behaves like the guest faulty: an unsigned integer n is its
// own output, except that n % 7 == 3 fails with class trap; Loop runs until its context
// ends; Permanent fails with class guest and the message "told to fail". open returns a
// runner, and closes it at the end of the test. [Func] is such a function.
func Run(t *testing.T, open func(t *testing.T) processor.Runner[[]byte, []byte]) {
	for name, test := range map[string]func(*testing.T, processor.Runner[[]byte, []byte]){
		"outputs": outputs, "failures": failures, "not one item": input, "many at once": many,
		"a context that has ended": ended, "a context that ends": ending, "a processor": processed,
	} {
		t.Run(name, func(t *testing.T) { test(t, open(t)) })
	}
}

// Requests that Run makes.
const (
	Loop      = "\xa1\x62do\x64loop"      // {"do": "loop"}
	Permanent = "\xa1\x62do\x69permanent" // {"do": "permanent"}
)

// Func is a function that passes the suite.
func Func(ctx context.Context, in []byte) ([]byte, error) {
	if err := abi.CheckItem(in); err != nil {
		return nil, errors.Join(processor.ErrInput, err)
	}
	switch string(in) {
	case Loop:
		<-ctx.Done()
		return nil, ctx.Err()
	case Permanent:
		return nil, abi.Failf(abi.ClassGuest, "told to fail")
	}
	if h, err := abi.ReadHead(in); err == nil && h.Major == abi.MajorUint && h.Arg%7 == 3 {
		return nil, abi.Failf(abi.ClassTrap, "unreachable")
	}
	return bytes.Clone(in), nil
}

func number(n uint64) []byte { return abi.AppendHead(nil, abi.MajorUint, n) }

func check(t *testing.T, got processor.Result[[]byte], err error, n uint64) {
	t.Helper()
	failure, failed := errors.AsType[*abi.Failure](err)
	if n%7 == 3 {
		if !failed || failure.Class != abi.ClassTrap {
			t.Errorf("%d: %x, %v", n, got.Output, err)
		}
		return
	}
	if err != nil || !bytes.Equal(got.Output, number(n)) {
		t.Errorf("%d: %x, %v", n, got.Output, err)
	}
}

func outputs(t *testing.T, r processor.Runner[[]byte, []byte]) {
	var kept []processor.Result[[]byte]
	for n := range uint64(20) {
		got, err := r.Run(t.Context(), number(n*7))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, got)
	}
	for n, got := range kept { // outputs belong to the caller
		check(t, got, nil, uint64(n*7))
	}
}

func failures(t *testing.T, r processor.Runner[[]byte, []byte]) {
	for range 3 {
		_, err := r.Run(t.Context(), []byte(Permanent))
		failure, ok := errors.AsType[*abi.Failure](err)
		if !ok || failure.Class != abi.ClassGuest || failure.Message != "told to fail" {
			t.Errorf("error %v", err)
		}
		for n := range uint64(4) {
			got, err := r.Run(t.Context(), number(n))
			check(t, got, err, n)
		}
	}
}

func input(t *testing.T, r processor.Runner[[]byte, []byte]) {
	for _, in := range []string{"", "\x19\x01", "\x01\x02", "\xff"} {
		if _, err := r.Run(t.Context(), []byte(in)); !errors.Is(err, processor.ErrInput) {
			t.Errorf("%x: error %v", in, err)
		}
	}
}

func many(t *testing.T, r processor.Runner[[]byte, []byte]) {
	var callers sync.WaitGroup
	for c := range uint64(16) {
		callers.Go(func() {
			for n := range uint64(50) {
				got, err := r.Run(t.Context(), number(c*50+n))
				check(t, got, err, c*50+n)
			}
		})
	}
	callers.Wait()
}

func ended(t *testing.T, r processor.Runner[[]byte, []byte]) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Run(ctx, number(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func ending(t *testing.T, r processor.Runner[[]byte, []byte]) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := r.Run(ctx, []byte(Loop)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	got, err := r.Run(t.Context(), number(3))
	check(t, got, err, 3)
}

func processed(t *testing.T, r processor.Runner[[]byte, []byte]) {
	p, err := processor.New(t.Context(), r, processor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	receiver := p.Subscribe()
	defer receiver.Close()
	for n := range uint64(20) {
		if err := p.Send(t.Context(), abi.IntID(n), number(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Stop(); err != nil {
		t.Error(err)
	}
	for range 20 {
		got, err := receiver.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		n, _ := got.ID.Int()
		check(t, got.Result, got.Err, n)
	}
}
