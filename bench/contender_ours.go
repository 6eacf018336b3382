package main

import (
	"context"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// ours calls a guest through our runtime. The zero value has the defaults of users.
type ours struct {
	unmetered bool
	reused    bool

	pool     *runtime.Pool
	instance *runtime.Instance
	chunk    []byte
	output   []byte
}

// openOurs sets limits, as a host does, that no call reaches.
func openOurs(o ours) opener {
	return func(ctx context.Context, w *work) (runner, error) {
		r := o
		r.chunk = w.chunk
		return &r, r.open(ctx, w)
	}
}

func (r *ours) open(ctx context.Context, w *work) error {
	module, err := w.tools.runtime.Compile(ctx, w.modules.abi, runtime.Options{NoMetering: r.unmetered})
	if err != nil {
		return err
	}
	settings := runtime.Settings{Fuel: 1 << 40, Timeout: time.Minute}
	if r.reused {
		settings.Isolation = runtime.IsolationNone
	}
	if r.pool, err = module.Prepare(ctx, settings); err != nil {
		return err
	}
	r.instance = r.pool.Borrow(nil)
	return nil
}

func (r *ours) run(ctx context.Context, n int) (_ []byte, err error) {
	for range n {
		if r.output, _, err = r.instance.Call(ctx, abi.ExportExec, r.chunk, r.output[:0]); err != nil {
			return nil, err
		}
	}
	return r.output, nil
}

func (r *ours) close() error {
	r.instance.Release()
	return r.pool.Close()
}
