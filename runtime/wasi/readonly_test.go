package wasi

import (
	"fmt"
	"strings"
	"testing"
)

// attempt is one call on a path of garden, with the result of Linux if the file
// system is mounted read-only, as a number of WASI. TestReadOnlyMount asks Linux
// again, if it is allowed to mount.
type attempt struct {
	call   string // of WASI
	path   string
	second string // the new path for path_link and path_rename, the target for path_symlink
	flags  uint32 // oflags for path_open, fstflags for path_filestat_set_times
	write  bool   // path_open asks for the right to write
	follow bool
	want   errno
}

func (a attempt) String() string {
	s := fmt.Sprintf("%s %.30q", a.call, a.path)
	if a.second != "" {
		s += fmt.Sprintf(" %.30q", a.second)
	}
	return s + fmt.Sprintf(" flags %d, write %v, follow %v", a.flags, a.write, a.follow)
}

// attempts are all attempts with one path.
func attempts() (all []attempt) {
	open := func(path string, follow bool, want map[string]errno) {
		for key, e := range want {
			a := attempt{call: "path_open", path: path, follow: follow, want: e}
			for _, c := range key {
				switch c {
				case 'w':
					a.write = true
				case 'c':
					a.flags |= openCreate
				case 'd':
					a.flags |= openDirectory
				case 'x':
					a.flags |= openExclusive
				case 't':
					a.flags |= openTruncate
				}
			}
			all = append(all, a)
		}
	}
	for _, follow := range []bool{false, true} {
		open("a.txt", follow, map[string]errno{"": success, "w": errRofs, "c": success, "cw": errRofs, "cx": errExist, "t": errRofs, "ct": errRofs, "d": errNotdir, "dw": errNotdir, "dt": errNotdir, "cxt": errExist})
		open("a.txt/", follow, map[string]errno{"": errNotdir, "w": errNotdir, "c": errIsdir, "cx": errIsdir, "t": errNotdir})
		open("sub", follow, map[string]errno{"": success, "w": errIsdir, "c": errIsdir, "cw": errIsdir, "cx": errExist, "t": errIsdir, "d": success, "dw": errIsdir, "dt": errIsdir})
		open("sub/", follow, map[string]errno{"": success, "w": errIsdir, "c": errIsdir, "cx": errIsdir})
		open(".", follow, map[string]errno{"": success, "w": errIsdir, "c": errIsdir, "cx": errExist, "t": errIsdir})
		open("sub/..", follow, map[string]errno{"w": errIsdir, "c": errIsdir, "cx": errExist})
		open("new", follow, map[string]errno{"": errNoent, "w": errNoent, "c": errRofs, "cw": errRofs, "cx": errRofs, "t": errNoent, "d": errNoent, "ct": errRofs})
		open("new/", follow, map[string]errno{"": errNoent, "c": errIsdir})
		open("none/new", follow, map[string]errno{"": errNoent, "c": errNoent, "cx": errNoent})
		open("a.txt/new", follow, map[string]errno{"": errNotdir, "c": errNotdir})
		open("", follow, map[string]errno{"": errNoent, "c": errNoent, "w": errNoent})
		open(strings.Repeat("n", 256), follow, map[string]errno{"": errNametoolong, "c": errNametoolong})
		open(strings.Repeat("n", 255), follow, map[string]errno{"": errNoent, "c": errRofs})
		open("loop", true, map[string]errno{"": errLoop, "c": errLoop, "cx": errExist, "w": errLoop})
		open("loop/x", follow, map[string]errno{"": errLoop, "c": errLoop})
	}
	open("to-file", true, map[string]errno{"": success, "w": errRofs, "c": success, "cx": errExist, "t": errRofs, "d": errNotdir})
	open("to-file", false, map[string]errno{"": errLoop, "w": errLoop, "c": errLoop, "cx": errExist, "t": errLoop, "d": errNotdir})
	open("to-dir", true, map[string]errno{"": success, "w": errIsdir, "c": errIsdir, "t": errIsdir, "d": success})
	open("to-dir", false, map[string]errno{"": errLoop, "w": errLoop, "c": errLoop, "d": errNotdir})
	open("to-dir/", false, map[string]errno{"": success, "w": errIsdir})
	open("dangling", true, map[string]errno{"": errNoent, "w": errNoent, "c": errRofs, "cx": errExist})
	open("dangling", false, map[string]errno{"": errLoop, "c": errLoop, "cx": errExist})
	return append(all, changes...)
}

// changes are the calls that change a directory.
var changes = []attempt{
	{call: "path_create_directory", path: "new", want: errRofs},
	{call: "path_create_directory", path: "new/", want: errRofs},
	{call: "path_create_directory", path: "sub", want: errExist},
	{call: "path_create_directory", path: "sub/", want: errExist},
	{call: "path_create_directory", path: "a.txt", want: errExist},
	{call: "path_create_directory", path: "a.txt/", want: errExist},
	{call: "path_create_directory", path: "dangling", want: errExist},
	{call: "path_create_directory", path: ".", want: errExist},
	{call: "path_create_directory", path: "sub/..", want: errExist},
	{call: "path_create_directory", path: "", want: errNoent},
	{call: "path_create_directory", path: "none/new", want: errNoent},
	{call: "path_create_directory", path: "a.txt/new", want: errNotdir},
	{call: "path_create_directory", path: "to-dir/new", want: errRofs},
	{call: "path_create_directory", path: strings.Repeat("n", 256), want: errNametoolong},

	{call: "path_remove_directory", path: "sub", want: errRofs},
	{call: "path_remove_directory", path: "bare", want: errRofs},
	{call: "path_remove_directory", path: "new", want: errRofs},
	{call: "path_remove_directory", path: "a.txt", want: errRofs},
	{call: "path_remove_directory", path: ".", want: errInval},
	{call: "path_remove_directory", path: "sub/.", want: errInval},
	{call: "path_remove_directory", path: "sub/..", want: errNotempty},
	{call: "path_remove_directory", path: "none/new", want: errNoent},
	{call: "path_remove_directory", path: "a.txt/new", want: errNotdir},
	{call: "path_remove_directory", path: "", want: errNoent},

	{call: "path_unlink_file", path: "a.txt", want: errRofs},
	{call: "path_unlink_file", path: "a.txt/", want: errRofs},
	{call: "path_unlink_file", path: "new", want: errRofs},
	{call: "path_unlink_file", path: "sub", want: errRofs},
	{call: "path_unlink_file", path: "dangling", want: errRofs},
	{call: "path_unlink_file", path: ".", want: errIsdir},
	{call: "path_unlink_file", path: "sub/..", want: errIsdir},
	{call: "path_unlink_file", path: "none/new", want: errNoent},
	{call: "path_unlink_file", path: "a.txt/new", want: errNotdir},
	{call: "path_unlink_file", path: "", want: errNoent},

	{call: "path_rename", path: "a.txt", second: "new", want: errRofs},
	{call: "path_rename", path: "new", second: "newer", want: errRofs},
	{call: "path_rename", path: "sub", second: "a.txt", want: errRofs},
	{call: "path_rename", path: "none/new", second: "new", want: errNoent},
	{call: "path_rename", path: "a.txt", second: "none/new", want: errNoent},
	{call: "path_rename", path: "a.txt", second: "a.txt/new", want: errNotdir},
	{call: "path_rename", path: ".", second: "new", want: errBusy},
	{call: "path_rename", path: "sub", second: "sub/..", want: errBusy},
	{call: "path_rename", path: "", second: "new", want: errNoent},

	{call: "path_symlink", path: "new", second: "a.txt", want: errRofs},
	{call: "path_symlink", path: "new/", second: "a.txt", want: errNoent},
	{call: "path_symlink", path: "a.txt", second: "sub", want: errExist},
	{call: "path_symlink", path: "dangling", second: "sub", want: errExist},
	{call: "path_symlink", path: ".", second: "sub", want: errExist},
	{call: "path_symlink", path: "new", second: "", want: errNoent},
	{call: "path_symlink", path: "none/new", second: "sub", want: errNoent},
	{call: "path_symlink", path: "a.txt/new", second: "sub", want: errNotdir},

	{call: "path_link", path: "a.txt", second: "new", want: errRofs},
	{call: "path_link", path: "a.txt", second: "new/", want: errNoent},
	{call: "path_link", path: "a.txt", second: "sub", want: errExist},
	{call: "path_link", path: "none", second: "new", want: errNoent},
	{call: "path_link", path: "none", second: "a.txt", want: errNoent},
	{call: "path_link", path: "sub", second: "new", want: errRofs},
	{call: "path_link", path: "dangling", second: "new", want: errRofs},
	{call: "path_link", path: "dangling", second: "new", follow: true, want: errNoent},
	{call: "path_link", path: "a.txt", second: "a.txt/new", want: errNotdir},

	{call: "path_filestat_set_times", path: "a.txt", flags: setAccess, want: errRofs},
	{call: "path_filestat_set_times", path: "a.txt", flags: setModifyNow, want: errRofs},
	{call: "path_filestat_set_times", path: "sub", flags: setModify, want: errRofs},
	{call: "path_filestat_set_times", path: "none", flags: setModify, want: errNoent},
	{call: "path_filestat_set_times", path: "none", want: success},
	{call: "path_filestat_set_times", path: "dangling", flags: setModify, want: errRofs},
	{call: "path_filestat_set_times", path: "dangling", flags: setModify, follow: true, want: errNoent},
	{call: "path_filestat_set_times", path: "a.txt/x", flags: setModify, want: errNotdir},
}

// TestAnswersOfAReadOnlyMount compares with the recorded results of Linux.
func TestAnswersOfAReadOnlyMount(t *testing.T) {
	g := newReader(t, garden)
	for _, a := range attempts() {
		g.state.Reset(Call{})
		if e := g.attempt(a); e != a.want {
			t.Errorf("%s: errno %d, want %d", a, e, a.want)
		}
	}
	g.arena.check(t)
}

func (g *guest) attempt(a attempt) errno {
	g.put(4096, []byte(a.path))
	g.put(8192, []byte(a.second))
	path, second := uint64(len(a.path)), uint64(len(a.second))
	follow, rights := uint64(0), uint64(rightRead)
	if a.follow {
		follow = followLinks
	}
	if a.write {
		rights |= rightWrite
	}
	switch a.call {
	case "path_open":
		return g.call(a.call, 3, follow, 4096, path, uint64(a.flags), rights, 0, 0, 64)
	case "path_link":
		return g.call(a.call, 3, follow, 4096, path, 3, 8192, second)
	case "path_rename":
		return g.call(a.call, 3, 4096, path, 3, 8192, second)
	case "path_symlink":
		return g.call(a.call, 8192, second, 3, 4096, path)
	case "path_filestat_set_times":
		return g.call(a.call, 3, follow, 4096, path, 1, 1, uint64(a.flags))
	}
	return g.call(a.call, 3, 4096, path)
}
