//go:build cgo && (amd64 || (arm64 && !windows)) && (linux || darwin || windows)

package main

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	goruntime "runtime"
	"time"
	"unsafe"

	"github.com/bytecodealliance/wasmtime-go/v39"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

/*
#include <stddef.h>
#include <stdint.h>

// These functions of wasmtime's C API are linked but not exported by the Go binding.
typedef struct wasmtime_pooling_allocation_config_t pool_config;
pool_config *wasmtime_pooling_allocation_config_new(void);
void wasmtime_pooling_allocation_config_delete(pool_config *);
void wasmtime_pooling_allocation_config_total_memories_set(pool_config *, uint32_t);
void wasmtime_pooling_allocation_config_total_tables_set(pool_config *, uint32_t);
void wasmtime_pooling_allocation_config_total_core_instances_set(pool_config *, uint32_t);
void wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool_config *, size_t);
void wasmtime_pooling_allocation_config_table_keep_resident_set(pool_config *, size_t);
void wasmtime_pooling_allocation_strategy_set(void *config, const pool_config *);

static void use_pool(void *config, uint32_t instances, size_t resident) {
	pool_config *pool = wasmtime_pooling_allocation_config_new();
	wasmtime_pooling_allocation_config_total_memories_set(pool, instances);
	wasmtime_pooling_allocation_config_total_tables_set(pool, instances);
	wasmtime_pooling_allocation_config_total_core_instances_set(pool, instances);
	wasmtime_pooling_allocation_config_linear_memory_keep_resident_set(pool, resident);
	wasmtime_pooling_allocation_config_table_keep_resident_set(pool, resident);
	wasmtime_pooling_allocation_strategy_set(config, pool);
	wasmtime_pooling_allocation_config_delete(pool);
}
*/
import "C"

func wasmtimeSides() []side {
	return []side{
		inProcess("wasmtime-new", "wasmtime-go (Cranelift), a new instance of the pooling allocator for each call, which cannot be interrupted", openWasmtime(false)),
		inProcess("wasmtime-new-epoch", "the same with epoch interruption, with a deadline that is never reached", openWasmtime(true)),
	}
}

// compiled is a module with its engine and linker.
type compiled struct {
	engine *wasmtime.Engine
	linker *wasmtime.Linker
	module *wasmtime.Module
}

// cranelift makes a new store and instance of a compiled module for each call.
type cranelift struct {
	compiled
	wasi  bool
	stop  func() // ends the goroutine of tick; nil = no interruption
	chunk []byte
}

// pooled is the number of instances in the pool. resident is how many bytes of each
// stay mapped between calls: enough for all that the guests write.
const (
	pooled   = 16
	resident = 4 << 20
)

func openWasmtime(epochs bool) opener {
	return func(_ context.Context, w *work) (runner, error) {
		c, err := once(w.tools, fmt.Sprintf("wasmtime %s %v", w.guest, epochs), func() (compiled, func() error, error) {
			return compile(w, epochs)
		})
		if err != nil {
			return nil, err
		}
		r := &cranelift{compiled: c, wasi: w.wasi, chunk: w.chunk}
		if epochs {
			r.tick()
		}
		return r, nil
	}
}

func compile(w *work, epochs bool) (c compiled, free func() error, err error) {
	config := wasmtime.NewConfig()
	if err := usePool(config); err != nil {
		return c, nil, err
	}
	config.SetEpochInterruption(epochs)
	c.engine = wasmtime.NewEngineWithConfig(config)
	c.linker = wasmtime.NewLinker(c.engine)
	if w.wasi {
		err = c.linker.DefineWasi()
	}
	if err == nil {
		c.module, err = wasmtime.NewModule(c.engine, w.modules.abi)
	}
	return c, func() error { c.free(); return nil }, err
}

func (c compiled) free() {
	if c.module != nil {
		c.module.Close()
	}
	c.linker.Close()
	c.engine.Close()
}

// usePool turns on the pooling allocator through the C object in the binding's Config,
// which has no method for it.
func usePool(config *wasmtime.Config) error {
	if f := reflect.TypeFor[wasmtime.Config]().Field(0); f.Name != "_ptr" || f.Type.Kind() != reflect.Pointer {
		return fmt.Errorf("unsupported version of wasmtime-go: wasmtime.Config begins with %s %s, want the pointer _ptr; adapt usePool", f.Name, f.Type)
	}
	C.use_pool(*(*unsafe.Pointer)(unsafe.Pointer(config)), pooled, resident)
	goruntime.KeepAlive(config)
	return nil
}

// tick increments the epoch every 10 ms until stop is called, as the documentation of
// epochs advises.
func (r *cranelift) tick() {
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ticker.C:
				r.engine.IncrementEpoch()
			case <-stop:
				return
			}
		}
	}()
	r.stop = func() { close(stop); <-stopped }
}

func (r *cranelift) run(_ context.Context, n int) (output []byte, err error) {
	for range n {
		if output, err = r.one(); err != nil {
			return nil, err
		}
	}
	return output, nil
}

func (r *cranelift) one() ([]byte, error) {
	store := wasmtime.NewStore(r.engine)
	defer store.Close()
	if r.stop != nil {
		store.SetEpochDeadline(6000) // a minute
	}
	if r.wasi {
		store.SetWasi(wasmtime.NewWasiConfig())
	}
	instance, err := r.linker.Instantiate(store, r.module)
	if err != nil {
		return nil, err
	}
	if initialize := instance.GetFunc(store, abi.ExportInitialize); initialize != nil {
		if _, err := initialize.Call(store); err != nil {
			return nil, err
		}
	}
	at, err := instance.GetFunc(store, abi.ExportAlloc).Call(store, int32(len(r.chunk)))
	if err != nil {
		return nil, err
	}
	memory := instance.GetExport(store, abi.ExportMemory).Memory()
	if copy(memory.UnsafeData(store)[uint32(at.(int32)):], r.chunk) != len(r.chunk) {
		return nil, fmt.Errorf("alloc(%d) returned %d, outside memory", len(r.chunk), at)
	}
	result, err := instance.GetFunc(store, abi.ExportExec).Call(store, at, int32(len(r.chunk)))
	if err != nil {
		return nil, err
	}
	ptr, size := abi.Unpack(uint64(result.(int64)))
	data := memory.UnsafeData(store)
	if uint64(ptr)+uint64(size) > uint64(len(data)) {
		return nil, fmt.Errorf("exec returned %d bytes at %d, outside memory", size, ptr)
	}
	output := bytes.Clone(data[ptr:][:size])
	goruntime.KeepAlive(store)
	return output, nil
}

func (r *cranelift) close() error {
	if r.stop != nil {
		r.stop()
	}
	return nil
}
