package wasi

import (
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// function implements one function of WASI. p holds its parameters; only the low
// half of an i32 parameter counts.
type function func(s *State, m api.Memory, p []uint64) errno

// entry is one function with its name and its type, in the text that admission
// shows.
type entry struct {
	name, signature string
	call            function
}

// functions are all functions of this package.
var functions = []entry{
	{"args_get", "(i32, i32) -> i32", argsGet},
	{"args_sizes_get", "(i32, i32) -> i32", argsSizesGet},
	{"clock_res_get", "(i32, i32) -> i32", clockResGet},
	{"clock_time_get", "(i32, i64, i32) -> i32", clockTimeGet},
	{"environ_get", "(i32, i32) -> i32", environGet},
	{"environ_sizes_get", "(i32, i32) -> i32", environSizesGet},
	{"fd_advise", "(i32, i64, i64, i32) -> i32", fdAdvise},
	{"fd_allocate", "(i32, i64, i64) -> i32", fdAllocate},
	{"fd_close", "(i32) -> i32", fdClose},
	{"fd_datasync", "(i32) -> i32", onFile(success)},
	{"fd_fdstat_get", "(i32, i32) -> i32", fdFdstatGet},
	{"fd_fdstat_set_flags", "(i32, i32) -> i32", fdFdstatSetFlags},
	{"fd_fdstat_set_rights", "(i32, i64, i64) -> i32", onFile(errNotsup)},
	{"fd_filestat_get", "(i32, i32) -> i32", fdFilestatGet},
	{"fd_filestat_set_size", "(i32, i64) -> i32", onFile(errInval)},
	{"fd_filestat_set_times", "(i32, i64, i64, i32) -> i32", fdFilestatSetTimes},
	{"fd_pread", "(i32, i32, i32, i64, i32) -> i32", fdPread},
	{"fd_prestat_dir_name", "(i32, i32, i32) -> i32", fdPrestatDirName},
	{"fd_prestat_get", "(i32, i32) -> i32", fdPrestatGet},
	{"fd_pwrite", "(i32, i32, i32, i64, i32) -> i32", fdPwrite},
	{"fd_read", "(i32, i32, i32, i32) -> i32", fdRead},
	{"fd_readdir", "(i32, i32, i32, i64, i32) -> i32", fdReaddir},
	{"fd_renumber", "(i32, i32) -> i32", fdRenumber},
	{"fd_seek", "(i32, i64, i32, i32) -> i32", fdSeek},
	{"fd_sync", "(i32) -> i32", onFile(success)},
	{"fd_tell", "(i32, i32) -> i32", fdTell},
	{"fd_write", "(i32, i32, i32, i32) -> i32", fdWrite},
	{"path_create_directory", "(i32, i32, i32) -> i32", pathCreateDirectory},
	{"path_filestat_get", "(i32, i32, i32, i32, i32) -> i32", pathFilestatGet},
	{"path_filestat_set_times", "(i32, i32, i32, i32, i64, i64, i32) -> i32", pathFilestatSetTimes},
	{"path_link", "(i32, i32, i32, i32, i32, i32, i32) -> i32", pathLink},
	{"path_open", "(i32, i32, i32, i32, i32, i64, i64, i32, i32) -> i32", pathOpen},
	{"path_readlink", "(i32, i32, i32, i32, i32, i32) -> i32", pathReadlink},
	{"path_remove_directory", "(i32, i32, i32) -> i32", pathRemoveDirectory},
	{"path_rename", "(i32, i32, i32, i32, i32, i32) -> i32", pathRename},
	{"path_symlink", "(i32, i32, i32, i32, i32) -> i32", pathSymlink},
	{"path_unlink_file", "(i32, i32, i32) -> i32", pathUnlinkFile},
	{"poll_oneoff", "(i32, i32, i32, i32) -> i32", pollOneoff},
	{"proc_exit", "(i32) -> ()", procExit},
	{"proc_raise", "(i32) -> i32", procRaise},
	{"random_get", "(i32, i32) -> i32", randomGet},
	{"sched_yield", "() -> i32", schedYield},
	{"sock_accept", "(i32, i32, i32) -> i32", onFile(errNotsock)},
	{"sock_recv", "(i32, i32, i32, i32, i32, i32) -> i32", onFile(errNotsock)},
	{"sock_send", "(i32, i32, i32, i32, i32) -> i32", onFile(errNotsock)},
	{"sock_shutdown", "(i32, i32) -> i32", onFile(errNotsock)},
}

// Types returns the type of every function by name, such as "(i32, i32) -> i32".
// The caller owns the map.
func Types() map[string]string {
	types := make(map[string]string, len(functions))
	for _, f := range functions {
		types[f.name] = f.signature
	}
	return types
}

// valueTypes reads a signature in the table above.
func valueTypes(signature string) (params, results []api.ValueType) {
	before, after, _ := strings.Cut(signature, " -> ")
	return typeList(before), typeList(after)
}

func typeList(s string) (types []api.ValueType) {
	for word := range strings.FieldsFuncSeq(s, func(r rune) bool { return strings.ContainsRune("(), ", r) }) {
		if word == "i64" {
			types = append(types, api.ValueTypeI64)
		} else {
			types = append(types, api.ValueTypeI32)
		}
	}
	return types
}
