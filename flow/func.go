package flow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Func is an executor: a function of the program. It is an effect, or, with a
// version, declared a function of the data.
type Func struct {
	// Name and Version are the key of its outputs. Version "" = an effect.
	Name, Version string
	// Call makes one step. For an effect, key is the key of the step, the same for
	// every attempt. data belongs to the caller. It returns one CBOR item. An error
	// other than *[abi.Failure] is retried.
	Call func(ctx context.Context, key [sha256.Size]byte, data []byte) ([]byte, error)
}

// Kind implements [Executor].
func (f *Func) Kind() string { return "go" }

// Action implements [Executor].
func (f *Func) Action() (store.Action, bool) {
	if f.Version == "" {
		return store.Action{}, false
	}
	return sha256.Sum256(fmt.Appendf(nil, "wasm-jobs flow function 1\n%q\n%q\n", f.Name, f.Version)), true
}

// Open implements [Executor].
func (f *Func) Open(context.Context) (Pool, error) { return &funcPool{f: f}, nil }

// funcPool calls a function. It counts borrowed instances.
type funcPool struct {
	f      *Func
	opened atomic.Uint64
	closed atomic.Uint64
}

func (p *funcPool) Borrow(runtime.Log) worker.Instance {
	p.opened.Add(1)
	return &funcInstance{p}
}

func (p *funcPool) Stats() runtime.Stats {
	return runtime.Stats{Created: p.opened.Load(), Closed: p.closed.Load()}
}

func (p *funcPool) Close() error { return nil }

type funcInstance struct{ *funcPool }

func (i *funcInstance) Release() { i.closed.Add(1) }

// Call implements [worker.Instance].
func (i *funcInstance) Call(ctx context.Context, _ string, input, dst []byte) (output []byte, fuel uint64, err error) {
	var key [sha256.Size]byte
	if i.f.Version == "" {
		key, input = Effect(input)
	}
	out, err := i.call(ctx, key, input)
	if err == nil {
		if err = abi.CheckItem(out); err != nil {
			err = abi.Failf(abi.ClassABI, "the output of %s is not one CBOR item: %v", i.f.Name, err)
		}
	}
	if err != nil {
		return dst, 0, i.failure(ctx, err)
	}
	return append(dst, out...), 0, nil
}

// call turns a panic of the function into a failure.
func (i *funcInstance) call(ctx context.Context, key [sha256.Size]byte, data []byte) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = abi.Failf(abi.ClassTrap, "panic: %v", r)
		}
	}()
	return i.f.Call(ctx, key, data)
}

// failure converts an error for a worker: ctx's error, a failure or a slow-down.
func (i *funcInstance) failure(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if _, told := errors.AsType[*SlowDown](err); told {
		return err
	}
	if f, ok := errors.AsType[*abi.Failure](err); ok {
		return f
	}
	return abi.Failf(abi.ClassGuestRetryable, "%v", err)
}
