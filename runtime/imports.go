package runtime

import (
	"context"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// imports are the functions that guests may import, by module and name, with
// their types.
var imports = map[string]map[string]string{
	abi.ImportModule: {
		abi.ImportFail:      "(i32, i32, i32) -> ()",
		abi.ImportLog:       "(i32, i32, i32) -> ()",
		abi.ImportHeartbeat: "() -> i32",
	},
	abi.WASIModule: {
		"args_get":                "(i32, i32) -> i32",
		"args_sizes_get":          "(i32, i32) -> i32",
		"clock_res_get":           "(i32, i32) -> i32",
		"clock_time_get":          "(i32, i64, i32) -> i32",
		"environ_get":             "(i32, i32) -> i32",
		"environ_sizes_get":       "(i32, i32) -> i32",
		"fd_advise":               "(i32, i64, i64, i32) -> i32",
		"fd_allocate":             "(i32, i64, i64) -> i32",
		"fd_close":                "(i32) -> i32",
		"fd_datasync":             "(i32) -> i32",
		"fd_fdstat_get":           "(i32, i32) -> i32",
		"fd_fdstat_set_flags":     "(i32, i32) -> i32",
		"fd_fdstat_set_rights":    "(i32, i64, i64) -> i32",
		"fd_filestat_get":         "(i32, i32) -> i32",
		"fd_filestat_set_size":    "(i32, i64) -> i32",
		"fd_filestat_set_times":   "(i32, i64, i64, i32) -> i32",
		"fd_pread":                "(i32, i32, i32, i64, i32) -> i32",
		"fd_prestat_dir_name":     "(i32, i32, i32) -> i32",
		"fd_prestat_get":          "(i32, i32) -> i32",
		"fd_pwrite":               "(i32, i32, i32, i64, i32) -> i32",
		"fd_read":                 "(i32, i32, i32, i32) -> i32",
		"fd_readdir":              "(i32, i32, i32, i64, i32) -> i32",
		"fd_renumber":             "(i32, i32) -> i32",
		"fd_seek":                 "(i32, i64, i32, i32) -> i32",
		"fd_sync":                 "(i32) -> i32",
		"fd_tell":                 "(i32, i32) -> i32",
		"fd_write":                "(i32, i32, i32, i32) -> i32",
		"path_create_directory":   "(i32, i32, i32) -> i32",
		"path_filestat_get":       "(i32, i32, i32, i32, i32) -> i32",
		"path_filestat_set_times": "(i32, i32, i32, i32, i64, i64, i32) -> i32",
		"path_link":               "(i32, i32, i32, i32, i32, i32, i32) -> i32",
		"path_open":               "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> i32",
		"path_readlink":           "(i32, i32, i32, i32, i32, i32) -> i32",
		"path_remove_directory":   "(i32, i32, i32) -> i32",
		"path_rename":             "(i32, i32, i32, i32, i32, i32) -> i32",
		"path_symlink":            "(i32, i32, i32, i32, i32) -> i32",
		"path_unlink_file":        "(i32, i32, i32) -> i32",
		"poll_oneoff":             "(i32, i32, i32, i32) -> i32",
		"proc_exit":               "(i32) -> ()",
		"proc_raise":              "(i32) -> i32",
		"random_get":              "(i32, i32) -> i32",
		"sched_yield":             "() -> i32",
		"sock_accept":             "(i32, i32, i32) -> i32",
		"sock_recv":               "(i32, i32, i32, i32, i32, i32) -> i32",
		"sock_send":               "(i32, i32, i32, i32, i32) -> i32",
		"sock_shutdown":           "(i32, i32) -> i32",
	},
}

const i32 = api.ValueTypeI32

// exitError is what proc_exit panics: it leaves the instance open, where the
// engine's own would close it.
type exitError struct{ code uint32 }

func (*exitError) Error() string { return "proc_exit" }

// serveImports instantiates the two host modules.
func serveImports(ctx context.Context, r wazero.Runtime) error {
	wasi := r.NewHostModuleBuilder(abi.WASIModule)
	wasi_snapshot_preview1.NewFunctionExporter().ExportFunctions(wasi)
	define(wasi, "proc_exit", []api.ValueType{i32}, nil, procExit)
	if _, err := wasi.Instantiate(ctx); err != nil {
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

func procExit(_ context.Context, _ api.Module, stack []uint64) {
	panic(&exitError{uint32(stack[0])})
}

func fail(ctx context.Context, m api.Module, stack []uint64) {
	kind, ptr, size := uint32(stack[0]), uint32(stack[1]), uint32(stack[2])
	s := sessionOf(ctx)
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
	line, ok := guestText(m, ptr, size)
	if !ok {
		s.verdict(abi.Failf(abi.ClassABI, "log: line of %d bytes at %d is outside memory", size, ptr))
		return
	}
	s.log.line(level, line)
}

func heartbeat(ctx context.Context, _ api.Module, stack []uint64) {
	stack[0] = 0
	if sessionOf(ctx).renew() {
		stack[0] = 1
	}
}

// guestText copies a text out of a guest's memory: of all its size bytes,
// which must lie within memory, the first 4 KiB.
func guestText(m api.Module, ptr, size uint32) (string, bool) {
	b, ok := m.Memory().Read(ptr, size)
	if !ok {
		return "", false
	}
	return plainText(b), true
}
