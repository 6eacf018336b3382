package wasi

import (
	"fmt"
	"math"
	"strings"
	"testing"
)

// newReader returns a guest that has a directory as descriptor 3.
func newReader(t testing.TB, entries map[string]string) *guest {
	t.Helper()
	tree := readTree(t, plant(t, entries))
	return newGuest(t, Config{Dirs: []Dir{{"/data", tree}, {"other", tree}}})
}

// open calls path_open as libraries do for reading, and returns the descriptor.
func (g *guest) open(fd uint64, path string, oflags, rights uint64) (uint32, errno) {
	g.t.Helper()
	g.put(4096, []byte(path))
	e := g.call("path_open", fd, followLinks, 4096, uint64(len(path)), oflags, rights, 0, 0, 64)
	return g.uint32(64), e
}

func (g *guest) read(fd uint64, size uint32) string {
	g.t.Helper()
	parts, e := g.readInto(fd, size)
	if e != success {
		g.t.Fatalf("reading %d: errno %d", fd, e)
	}
	return strings.Join(parts, "")
}

var garden = map[string]string{
	"a.txt": "hello world", "empty": "", "sub/b.txt": "deep", "sub/deeper/c": "c", "bare/": "",
	"to-file": "->a.txt", "to-dir": "->sub", "sub/up": "->../a.txt", "loop": "->loop", "mutual1": "->mutual2", "mutual2": "->mutual1",
	"out": "->../secret", "sub/out": "->../../secret", "absolute": "->/etc/passwd", "dangling": "->none", "through": "->to-dir/deeper/c",
	"home": "->../data/a.txt",
}

// TestPaths checks where paths lead, and that none leads out of its directory.
func TestPaths(t *testing.T) {
	g := newReader(t, garden)
	for _, test := range []struct {
		path  string
		want  string // "" = a directory
		errno errno
	}{
		{"", "", errNoent},
		{"a.txt", "hello world", success},
		{"./a.txt", "hello world", success},
		{"sub//b.txt", "deep", success},
		{"sub/./../a.txt", "hello world", success},
		{".", "", success},
		{"sub", "", success},
		{"sub/", "", success},
		{"bare/.", "", success},
		{"none", "", errNoent},
		{"sub/none/x", "", errNoent},
		{"A.txt", "", errNoent},
		{"a.txt/", "", errNotdir},
		{"a.txt/x", "", errNotdir},
		{"a.txt/..", "", errNotdir},
		{"a\x00.txt", "", errInval},
		{"to-file", "hello world", success},
		{"to-dir/b.txt", "deep", success},
		{"to-dir/../a.txt", "hello world", success},
		{"sub/up", "hello world", success},
		{"through", "c", success},
		{"loop", "", errLoop},
		{"mutual1/x", "", errLoop},
		{"dangling", "", errNoent},
		{"..", "", errNotcap},
		{"sub/../..", "", errNotcap},
		{"../data/a.txt", "", errNotcap},
		{"/a.txt", "", errNotcap},
		{"out", "", errNotcap},
		{"sub/out", "", errNotcap},
		{"to-dir/out", "", errNotcap},
		{"home", "", errNotcap},
		{"absolute", "", errNotcap},
		{strings.Repeat("./", maxPath/2-3) + "a.txt", "hello world", success},
		{strings.Repeat("./", maxPath/2) + "a.txt", "", errNametoolong},
	} {
		t.Run(fmt.Sprintf("%.40q", test.path), func(t *testing.T) {
			g.state.Reset(Call{})
			fd, e := g.open(3, test.path, 0, rightRead)
			if e != test.errno {
				t.Fatalf("errno %d, want %d", e, test.errno)
			}
			if e != success {
				return
			}
			if fd != 5 {
				t.Errorf("descriptor %d", fd)
			}
			if test.want == "" {
				if e := g.call("fd_readdir", 5, 2048, 100, 0, 64); e != success {
					t.Errorf("not a directory: errno %d", e)
				}
			} else if got := g.read(5, 100); got != test.want {
				t.Errorf("read %q, want %q", got, test.want)
			}
		})
	}
	g.arena.check(t)
}

// TestSubdirectoryConfines checks that an open directory does not lead back to its
// parent.
func TestSubdirectoryConfines(t *testing.T) {
	g := newReader(t, garden)
	sub, e := g.open(3, "sub", openDirectory, 0)
	if e != success {
		t.Fatal(e)
	}
	for path, want := range map[string]errno{"b.txt": success, "deeper/../b.txt": success, "..": errNotcap, "../a.txt": errNotcap, "up": errNotcap} {
		if _, e := g.open(uint64(sub), path, 0, 0); e != want {
			t.Errorf("%s: errno %d, want %d", path, e, want)
		}
	}
}

func TestNothingIsWritten(t *testing.T) {
	g := newReader(t, garden)
	for _, test := range []struct {
		path           string
		oflags, rights uint64
		want           errno
	}{
		{"a.txt", 0, rightWrite, errRofs},
		{"a.txt", openTruncate, 0, errRofs},
		{"a.txt", openCreate, rightRead, success},
		{"a.txt", openCreate | openExclusive, 0, errExist},
		{"new", openCreate, 0, errRofs},
		{"a.txt", openDirectory, 0, errNotdir},
		{"sub", openTruncate, 0, errIsdir},
		{"../new", openCreate, 0, errNotcap},
	} {
		if _, e := g.open(3, test.path, test.oflags, test.rights); e != test.want {
			t.Errorf("%+v: errno %d", test, e)
		}
	}
	fd, _ := g.open(3, "a.txt", 0, 0)
	file := uint64(fd)
	for _, test := range []struct {
		name string
		args []uint64
		want errno
	}{
		{"fd_write", []uint64{file, 1024, 0, 64}, errBadf},
		{"fd_write", []uint64{3, 1024, 0, 64}, errBadf},
		{"fd_pwrite", []uint64{file, 1024, 0, 0, 64}, errBadf},
		{"fd_allocate", []uint64{file, 0, 1}, errBadf},
		{"fd_filestat_set_size", []uint64{file, 0}, errInval},       // as ftruncate(2) of a file open for reading
		{"fd_filestat_set_times", []uint64{file, 0, 0, 0}, success}, // nothing to set
		{"fd_filestat_set_times", []uint64{file, 0, 0, setAccessNow}, errRofs},
		{"path_create_directory", []uint64{3, 4096, 1}, errRofs},
		{"path_filestat_set_times", []uint64{3, 0, 4096, 1, 0, 0, 0}, success}, // nothing to set
		{"path_filestat_set_times", []uint64{3, 0, 4096, 5, 0, 0, setModify}, errRofs},
		{"path_link", []uint64{3, 0, 4096, 1, 4, 4096, 1}, errNoent},
		{"path_link", []uint64{3, 0, 4096, 5, 4, 4096, 1}, errRofs},
		{"path_link", []uint64{3, 0, 4096, 1, file, 4096, 1}, errNotdir},
		{"path_rename", []uint64{3, 4096, 1, 4, 4096, 1}, errRofs},
		{"path_symlink", []uint64{4096, 1, 3, 4096, 1}, errRofs},
		{"path_remove_directory", []uint64{3, 4096, 1}, errRofs},
		{"path_unlink_file", []uint64{3, 4096, 1}, errRofs},
	} {
		if e := g.call(test.name, test.args...); e != test.want {
			t.Errorf("%s%v: errno %d, want %d", test.name, test.args, e, test.want)
		}
	}
}

func TestReadSeekTell(t *testing.T) {
	g := newReader(t, garden)
	fd, _ := g.open(3, "a.txt", 0, 0)
	file := uint64(fd)
	seek := func(offset int64, whence uint64) uint64 {
		t.Helper()
		g.must("fd_seek", file, uint64(offset), whence, 64)
		return g.uint64(64)
	}
	if got := g.read(file, 5) + "|" + g.read(file, 100) + "|" + g.read(file, 100); got != "hello| world|" {
		t.Errorf("read %q", got)
	}
	if at := seek(-5, seekEnd); at != 6 || g.read(file, 3) != "wor" {
		t.Errorf("at %d", at)
	}
	if at := seek(-9, seekCur); at != 0 || g.read(file, 2) != "he" {
		t.Errorf("at %d", at)
	}
	if at := seek(1<<40, seekSet); at != 1<<40 || g.read(file, 2) != "" {
		t.Errorf("after the end: at %d", at)
	}
	g.must("fd_tell", file, 64)
	if at := g.uint64(64); at != 1<<40 {
		t.Errorf("told %d", at)
	}
	for _, bad := range [][2]uint64{{math.MaxUint64, seekSet}, {math.MaxInt64, seekCur}, {0, 3}, {1 << 63, seekEnd}} {
		if e := g.call("fd_seek", file, bad[0], bad[1], 64); e != errInval {
			t.Errorf("seek %v: errno %d", bad, e)
		}
	}
	g.put(1024, u32(2048), u32(5))
	g.must("fd_pread", file, 1024, 1, 6, 64)
	if got := string(g.get(2048, int(g.uint32(64)))); got != "world" {
		t.Errorf("pread %q", got)
	}
	g.must("fd_pread", file, 1024, 1, math.MaxInt64, 64)
	if n := g.uint32(64); n != 0 {
		t.Errorf("pread after the end: %d bytes", n)
	}
	if e := g.call("fd_read", 3, 1024, 1, 64); e != errIsdir {
		t.Errorf("reading a directory: errno %d", e)
	}
	for _, offset := range []uint64{0, 1} {
		if e := g.call("fd_seek", 3, offset, seekSet, 64); (e == success) != (offset == 0) {
			t.Errorf("seeking to %d in a directory: errno %d", offset, e)
		}
	}
}

// listing reads a directory with a buffer of the given size, each time from the end
// of the last whole entry.
func (g *guest) listing(fd uint64, size int) (names []string) {
	g.t.Helper()
	cookie := uint64(0)
	for {
		g.must("fd_readdir", fd, 8192, uint64(size), cookie, 64)
		used := int(g.uint32(64))
		for at := 8192; at+direntSize <= 8192+used; {
			n := int(g.uint32(at + 16))
			if at+direntSize+n > 8192+used {
				break
			}
			cookie = g.uint64(at)
			names = append(names, fmt.Sprintf("%s:%d", g.get(at+direntSize, n), g.get(at+20, 1)[0]))
			at += direntSize + n
		}
		if used < size {
			return names
		}
	}
}

func TestReaddir(t *testing.T) {
	g := newReader(t, map[string]string{"b": "", "a": "", "c/d": "", "l": "->a", "A": "", "é": ""})
	const want = ".:3 ..:3 A:4 a:4 b:4 c:3 l:7 é:4"
	for _, size := range []int{direntSize + 2, 40, 64, 100, 1000} {
		if got := strings.Join(g.listing(3, size), " "); got != want {
			t.Errorf("with %d bytes: %s", size, got)
		}
	}
	g.must("fd_readdir", 3, 8192, 1000, math.MaxUint64, 64)
	if n := g.uint32(64); n != 0 {
		t.Errorf("after the end: %d bytes", n)
	}
	fd, _ := g.open(3, "a", 0, 0)
	if e := g.call("fd_readdir", uint64(fd), 8192, 100, 0, 64); e != errNotdir {
		t.Errorf("of a file: errno %d", e)
	}
}

func TestStatOfFiles(t *testing.T) {
	g := newReader(t, garden)
	stat := func(path string, follow uint64) (kind byte, size uint64, e errno) {
		g.put(4096, []byte(path))
		e = g.call("path_filestat_get", 3, follow, 4096, uint64(len(path)), 128)
		return g.get(128+16, 1)[0], g.uint64(128 + 32), e
	}
	for _, test := range []struct {
		path   string
		follow uint64
		kind   byte
		size   uint64
		errno  errno
	}{
		{"a.txt", 1, kindRegular, 11, success},
		{"to-file", 1, kindRegular, 11, success},
		{"to-file", 0, kindLink, 5, success},
		{"sub", 0, kindDirectory, 0, success},
		{"out", 0, kindLink, 9, success},
		{"out", 1, 0, 0, errNotcap},
	} {
		kind, size, e := stat(test.path, test.follow)
		if e != test.errno || e == success && (kind != test.kind || size != test.size) {
			t.Errorf("%+v: kind %d, size %d, errno %d", test, kind, size, e)
		}
	}
	stat("a.txt", 1)
	byPath := g.get(128, filestatSize)
	fd, _ := g.open(3, "a.txt", 0, 0)
	g.must("fd_filestat_get", uint64(fd), 128)
	if byFile := g.get(128, filestatSize); string(byFile) != string(byPath) {
		t.Errorf("% x of the path, % x of the file", byPath, byFile)
	}
	if times := g.get(128+40, 24); string(times) != string(make([]byte, 24)) {
		t.Errorf("times % x", times)
	}
	g.put(4096, []byte("through"))
	g.must("path_readlink", 3, 4096, 7, 128, 6, 64)
	if n := g.uint32(64); n != 6 || string(g.get(128, 6)) != "to-dir" {
		t.Errorf("link of %d bytes: %q", n, g.get(128, 6))
	}
	g.put(4096, []byte("a.txt"))
	if e := g.call("path_readlink", 3, 4096, 5, 128, 6, 64); e != errInval {
		t.Errorf("a file as a link: errno %d", e)
	}
}

func TestPreopens(t *testing.T) {
	g := newReader(t, garden)
	var names []string
	for fd := uint64(3); ; fd++ {
		e := g.call("fd_prestat_get", fd, 64)
		if e == errBadf {
			break
		}
		n := g.uint32(68)
		g.must("fd_prestat_dir_name", fd, 128, uint64(n))
		names = append(names, string(g.get(128, int(n))))
	}
	if strings.Join(names, " ") != "/data other" {
		t.Errorf("open from the start: %q", names)
	}
	if e := g.call("fd_prestat_dir_name", 3, 128, 4); e != errNametoolong {
		t.Errorf("a name without room: errno %d", e)
	}
	fd, _ := g.open(3, "sub", 0, 0)
	if e := g.call("fd_prestat_get", uint64(fd), 64); e != errBadf {
		t.Errorf("a directory that was opened: errno %d", e)
	}
}

// TestManyFiles opens as many files as possible, and checks that a reset closes all
// of them and opens directories that were closed.
func TestManyFiles(t *testing.T) {
	g := newReader(t, garden)
	for want := uint32(5); want < maxFiles; want++ {
		if fd, e := g.open(3, "a.txt", 0, 0); fd != want || e != success {
			t.Fatalf("descriptor %d, errno %d, expected %d", fd, e, want)
		}
	}
	if _, e := g.open(3, "a.txt", 0, 0); e != errMfile {
		t.Errorf("one too many: errno %d", e)
	}
	g.must("fd_close", 700)
	g.must("fd_close", 0)
	if fd, _ := g.open(3, "a.txt", 0, 0); fd != 0 {
		t.Errorf("descriptor %d, expected the lowest", fd)
	}
	g.must("fd_close", 3)
	g.state.Reset(Call{Stdin: []byte("in")})
	if _, e := g.open(5, "a.txt", 0, 0); e != errBadf {
		t.Errorf("a reset left descriptor 5 open: errno %d", e)
	}
	if got := g.read(0, 10); got != "in" {
		t.Errorf("standard input is %q", got)
	}
	if fd, e := g.open(3, "a.txt", 0, 0); fd != 5 || e != success || g.read(5, 1) != "h" {
		t.Errorf("descriptor %d, errno %d", fd, e)
	}
}

// TestDirPointers passes addresses outside memory for results.
func TestDirPointers(t *testing.T) {
	g := newReader(t, garden)
	fd, _ := g.open(3, "a.txt", 0, 0)
	file := uint64(fd)
	g.put(4096, []byte("to-file"))
	g.put(1024, u32(2048), u32(4))
	for _, bad := range []uint64{memorySize - 1, memorySize, math.MaxUint32} {
		for name, args := range map[string][]uint64{
			"path_open":           {3, 1, 4096, 7, 0, 0, 0, 0, bad},
			"path_filestat_get":   {3, 1, 4096, 7, bad},
			"path_readlink":       {3, 4096, 7, bad, 9, 64},
			"fd_prestat_get":      {3, bad},
			"fd_prestat_dir_name": {3, bad, 5},
			"fd_readdir":          {3, bad, 100, 0, 64},
			"fd_seek":             {file, 1, seekSet, bad},
			"fd_tell":             {file, bad},
			"fd_pread":            {file, 1024, 1, 0, bad},
			"fd_read":             {file, bad, 1, 64},
		} {
			if e := g.call(name, args...); e != errFault {
				t.Errorf("%s%v: errno %d", name, args, e)
			}
		}
		if e := g.call("path_open", 3, 1, bad, 100, 0, 0, 0, 0, 64); e != errFault {
			t.Errorf("a path at %d: errno %d", bad, e)
		}
	}
	if got := g.read(file, 5); got != "hello" {
		t.Errorf("calls that failed moved the file: %q", got)
	}
	g.arena.check(t)
}

// TestDirsCharge checks that work whose size a guest can choose is charged, and the
// same each time.
func TestDirsCharge(t *testing.T) {
	entries := map[string]string{"big": strings.Repeat("x", 30_000)}
	for i := range 200 {
		entries[fmt.Sprintf("file%03d", i)] = ""
	}
	g := newReader(t, entries)
	var charged uint64
	g.state.Charge = func(units uint64) { charged += units }
	measure := func(f func()) (n uint64) {
		charged = 0
		f()
		return charged
	}
	path := strings.Repeat("./", 1000) + "big"
	for name, test := range map[string]struct {
		least uint64
		do    func()
	}{
		"a long path": {2000, func() { g.open(3, path, 0, 0) }},
		"a listing":   {200 * (direntSize + 7), func() { g.listing(3, 20_000) }},
		"a file":      {30_000, func() { fd, _ := g.open(3, "big", 0, 0); g.read(uint64(fd), 40_000) }},
	} {
		g.state.Reset(Call{})
		first := measure(test.do)
		g.state.Reset(Call{})
		if again := measure(test.do); first < test.least || again != first {
			t.Errorf("%s was charged %d, then %d, expected %d or more", name, first, again, test.least)
		}
	}
}
