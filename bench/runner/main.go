// Runner calls a guest of the project's ABI once on plain wazero, without limits, and
// prints the output. Its time is the minimum for a process per chunk.
//
//	runner [-cache DIR] MODULE CHUNK > OUTPUT
//
// Without a cache it compiles the module each time.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func main() {
	cache := flag.String("cache", "", "directory for compiled code")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: runner [-cache DIR] MODULE CHUNK")
		os.Exit(2)
	}
	output, err := run(context.Background(), *cache, flag.Arg(0), flag.Arg(1))
	if err == nil {
		_, err = os.Stdout.Write(output)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "runner:", err)
		os.Exit(1)
	}
}

// run closes nothing; the process ends after it.
func run(ctx context.Context, dir, module, chunk string) ([]byte, error) {
	wasm, err := os.ReadFile(module)
	if err != nil {
		return nil, err
	}
	input, err := os.ReadFile(chunk)
	if err != nil {
		return nil, err
	}
	config := wazero.NewRuntimeConfigCompiler()
	if dir != "" {
		cache, err := wazero.NewCompilationCacheWithDir(dir)
		if err != nil {
			return nil, err
		}
		config = config.WithCompilationCache(cache)
	}
	r := wazero.NewRuntimeWithConfig(ctx, config)
	compiled, err := r.CompileModule(ctx, wasm)
	if err != nil {
		return nil, err
	}
	if err := serve(ctx, r, compiled); err != nil {
		return nil, err
	}
	m, err := r.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithStartFunctions(abi.ExportInitialize))
	if err != nil {
		return nil, err
	}
	return call(ctx, m, input)
}

// serve instantiates the modules that the guest imports, and no others.
func serve(ctx context.Context, r wazero.Runtime, compiled wazero.CompiledModule) error {
	needed := map[string]bool{}
	for _, f := range compiled.ImportedFunctions() {
		module, _, _ := f.Import()
		needed[module] = true
	}
	if needed[wasi_snapshot_preview1.ModuleName] {
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, r); err != nil {
			return err
		}
	}
	if !needed[abi.ImportModule] {
		return nil
	}
	own, i32 := r.NewHostModuleBuilder(abi.ImportModule), api.ValueTypeI32
	fail := api.GoModuleFunc(func(context.Context, api.Module, []uint64) { panic("the guest failed") })
	own.NewFunctionBuilder().WithGoModuleFunction(fail, []api.ValueType{i32, i32, i32}, nil).Export(abi.ImportFail)
	_, err := own.Instantiate(ctx)
	return err
}

func call(ctx context.Context, m api.Module, input []byte) ([]byte, error) {
	alloc, exec := m.ExportedFunction(abi.ExportAlloc), m.ExportedFunction(abi.ExportExec)
	if alloc == nil || exec == nil {
		return nil, fmt.Errorf("missing export: want %s and %s", abi.ExportAlloc, abi.ExportExec)
	}
	at, err := alloc.Call(ctx, uint64(len(input)))
	if err != nil {
		return nil, err
	}
	if !m.Memory().Write(uint32(at[0]), input) {
		return nil, fmt.Errorf("alloc(%d) returned %d, outside memory", len(input), at[0])
	}
	result, err := exec.Call(ctx, at[0], uint64(len(input)))
	if err != nil {
		return nil, err
	}
	ptr, size := abi.Unpack(result[0])
	output, ok := m.Memory().Read(ptr, size)
	if !ok {
		return nil, fmt.Errorf("exec returned %d bytes at %d, outside memory", size, ptr)
	}
	return output, nil
}
