package runtime

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// imports are the functions that guests may import, by module and name, with
// their types.
var imports = map[string]map[string]string{
	abi.ImportModule: {
		abi.ImportFail:      "(i32, i32, i32) -> ()",
		abi.ImportLog:       "(i32, i32, i32) -> ()",
		abi.ImportHeartbeat: "() -> i32",
	},
	abi.WASIModule: wasi.Types(),
}

const (
	i32 = api.ValueTypeI32
	i64 = api.ValueTypeI64
)

// serveImports instantiates the host modules.
func serveImports(ctx context.Context, r wazero.Runtime) error {
	find := func(ctx context.Context, _ api.Module) *wasi.State { return sessionOf(ctx).wasi }
	if err := wasi.Instantiate(ctx, r, find); err != nil {
		return err
	}
	meter := r.NewHostModuleBuilder(rewrite.Module)
	define(meter, rewrite.Yield, []api.ValueType{i64, i64}, []api.ValueType{i64}, yield)
	if _, err := meter.Instantiate(ctx); err != nil {
		return err
	}
	own := r.NewHostModuleBuilder(abi.ImportModule)
	define(own, abi.ImportFail, []api.ValueType{i32, i32, i32}, nil, fail)
	define(own, abi.ImportLog, []api.ValueType{i32, i32, i32}, nil, logLine)
	define(own, abi.ImportHeartbeat, nil, []api.ValueType{i32}, heartbeat)
	_, err := own.Instantiate(ctx)
	return err
}

func define(b wazero.HostModuleBuilder, name string, params, results []api.ValueType, f api.GoModuleFunc) {
	b.NewFunctionBuilder().WithGoModuleFunction(f, params, results).WithName(name).Export(name)
}

func yield(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = uint64(sessionOf(ctx).yield(int64(stack[0]), int64(stack[1])))
}

func fail(ctx context.Context, m api.Module, stack []uint64) {
	kind, ptr, size := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	s := sessionOf(ctx)
	s.charge(hostCall + uint64(min(size, maxText)))
	message, ok := guestText(m, ptr, size)
	if !ok {
		s.verdict(abi.Failf(abi.ClassABI, "fail: message of %d bytes at %d is outside memory", size, ptr))
		return
	}
	switch kind {
	case abi.FailPermanent:
		s.verdict(abi.Failf(abi.ClassGuest, "%s", message))
	case abi.FailRetryable:
		s.verdict(abi.Failf(abi.ClassGuestRetryable, "%s", message))
	case abi.FailRequeue:
		s.verdict(abi.Failf(abi.ClassRequeued, "%s", message))
	default:
		s.verdict(abi.Failf(abi.ClassABI, "fail: unknown kind %d: %s", kind, message))
	}
}

func logLine(ctx context.Context, m api.Module, stack []uint64) {
	level, ptr, size := int32(stack[0]), uint32(stack[1]), uint32(stack[2])
	s := sessionOf(ctx)
	s.charge(hostCall + uint64(min(size, maxText)))
	line, ok := m.Memory().Read(ptr, size)
	if !ok {
		s.verdict(abi.Failf(abi.ClassABI, "log: line of %d bytes at %d is outside memory", size, ptr))
		return
	}
	s.log.line(level, line)
}

func heartbeat(ctx context.Context, _ api.Module, stack []uint64) {
	s := sessionOf(ctx)
	s.charge(hostCall)
	stack[0] = 0
	if s.heartbeat() {
		stack[0] = 1
	}
}

// guestText copies the first 4 KiB of a text in a guest's memory. All of its
// size bytes must lie within memory.
func guestText(m api.Module, ptr, size uint32) (string, bool) {
	b, ok := m.Memory().Read(ptr, size)
	if !ok {
		return "", false
	}
	return plainText(b), true
}
