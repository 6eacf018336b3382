package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// plain makes a new instance of a compiled module for each call.
type plain struct {
	timeout  time.Duration // 0 = none
	runtime  wazero.Runtime
	compiled wazero.CompiledModule
	config   wazero.ModuleConfig
	chunk    []byte
}

func openWazero(interruptible bool) opener {
	return func(ctx context.Context, w *work) (runner, error) {
		config := wazero.NewRuntimeConfigCompiler().WithCompilationCache(w.tools.cache).WithCloseOnContextDone(interruptible)
		r := &plain{runtime: wazero.NewRuntimeWithConfig(ctx, config), chunk: w.chunk}
		if interruptible {
			r.timeout = time.Minute
		}
		r.config = wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize)
		err := error(nil)
		if w.wasi {
			_, err = wasi_snapshot_preview1.Instantiate(ctx, r.runtime)
		}
		if err == nil {
			r.compiled, err = r.runtime.CompileModule(ctx, w.modules.abi)
		}
		if err != nil {
			return nil, errors.Join(err, r.close())
		}
		return r, nil
	}
}

func (r *plain) run(ctx context.Context, n int) (output []byte, err error) {
	for range n {
		if output, err = r.one(ctx); err != nil {
			return nil, err
		}
	}
	return output, nil
}

func (r *plain) one(ctx context.Context) (output []byte, err error) {
	if r.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.timeout)
		defer cancel()
	}
	m, err := r.runtime.InstantiateModule(ctx, r.compiled, r.config)
	if err != nil {
		return nil, err
	}
	output, err = callABI(ctx, m, r.chunk)
	return output, errors.Join(err, m.Close(ctx))
}

func (r *plain) close() error { return r.runtime.Close(context.Background()) }

// callABI calls exec once, as abi/ABI.md defines, and copies the output.
func callABI(ctx context.Context, m api.Module, chunk []byte) ([]byte, error) {
	stack := [2]uint64{uint64(len(chunk))}
	if err := m.ExportedFunction(abi.ExportAlloc).CallWithStack(ctx, stack[:]); err != nil {
		return nil, err
	}
	if !m.Memory().Write(uint32(stack[0]), chunk) {
		return nil, fmt.Errorf("alloc(%d) returned %d, outside memory", len(chunk), stack[0])
	}
	stack[1] = uint64(len(chunk))
	if err := m.ExportedFunction(abi.ExportExec).CallWithStack(ctx, stack[:]); err != nil {
		return nil, err
	}
	at, size := abi.Unpack(stack[0])
	view, ok := m.Memory().Read(at, size)
	if !ok {
		return nil, fmt.Errorf("exec returned %d bytes at %d, outside memory", size, at)
	}
	return bytes.Clone(view), nil
}
