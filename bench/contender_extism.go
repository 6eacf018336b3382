package main

import (
	"context"
	"errors"
	"fmt"

	extism "github.com/extism/go-sdk"
	"github.com/tetratelabs/wazero"
)

// plugin calls a guest through Extism. The guest has the same kernel source as on the
// other sides, with a different adapter (guests/adapter.h).
type plugin struct {
	compiled *extism.CompiledPlugin
	reused   *extism.Plugin // nil = a new instance for each call
	chunk    []byte
}

func openExtismNew(ctx context.Context, w *work) (runner, error) { return openPlugin(ctx, w) }

func openExtismReused(ctx context.Context, w *work) (runner, error) {
	r, err := openPlugin(ctx, w)
	if err != nil {
		return nil, err
	}
	if r.reused, err = r.instance(ctx); err != nil {
		return nil, errors.Join(err, r.close())
	}
	return r, nil
}

func openPlugin(ctx context.Context, w *work) (*plugin, error) {
	manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: w.modules.extism}}}
	config := extism.PluginConfig{
		EnableWasi:    w.wasi,
		RuntimeConfig: wazero.NewRuntimeConfigCompiler().WithCompilationCache(w.tools.cache),
	}
	compiled, err := extism.NewCompiledPlugin(ctx, manifest, config, nil)
	if err != nil {
		return nil, err
	}
	return &plugin{compiled: compiled, chunk: w.chunk}, nil
}

func (r *plugin) instance(ctx context.Context) (*extism.Plugin, error) {
	return r.compiled.Instance(ctx, extism.PluginInstanceConfig{ModuleConfig: wazero.NewModuleConfig()})
}

func (r *plugin) run(ctx context.Context, n int) (output []byte, err error) {
	for range n {
		if output, err = r.one(ctx); err != nil {
			return nil, err
		}
	}
	return output, nil
}

func (r *plugin) one(ctx context.Context) (output []byte, err error) {
	p := r.reused
	if p == nil {
		if p, err = r.instance(ctx); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, p.CloseWithContext(ctx)) }()
	}
	code, output, err := p.CallWithContext(ctx, "exec", r.chunk)
	if err == nil && code != 0 {
		err = fmt.Errorf("the plugin returned %d", code)
	}
	return output, err
}

func (r *plugin) close() (err error) {
	if r.reused != nil {
		err = r.reused.CloseWithContext(context.Background())
	}
	return errors.Join(err, r.compiled.Close(context.Background()))
}
