package wasi

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	var out, err bytes.Buffer
	g := newGuest(t, Config{})
	g.state.Reset(Call{Stdout: &out, Stderr: &err})
	for _, w := range []struct {
		fd      uint64
		text    string
		written uint32
		errno   errno
	}{
		{1, "", 0, success},
		{1, "to out, ", 8, success},
		{2, "to err", 6, success},
		{1, "again", 5, success},
		{0, "x", 5, errBadf},
		{3, "x", 5, errBadf},
		{1<<32 - 1, "x", 5, errBadf},
	} {
		if n, e := g.write(w.fd, w.text); n != w.written || e != w.errno {
			t.Errorf("%q to %d: wrote %d, errno %d", w.text, w.fd, n, e)
		}
	}
	if out.String() != "to out, again" || err.String() != "to err" {
		t.Errorf("got %q and %q", out.String(), err.String())
	}
	g.state.Reset(Call{})
	if n, e := g.write(1, "nobody listens"); n != 14 || e != success {
		t.Errorf("without a writer: wrote %d, errno %d", n, e)
	}
}

func TestSpans(t *testing.T) {
	var out bytes.Buffer
	g := newGuest(t, Config{})
	reset := func() {
		out.Reset()
		g.state.Reset(Call{Stdout: &out})
		g.put(0, make([]byte, memorySize))
		g.put(100, []byte("hello world"))
	}
	for _, test := range []struct {
		name  string
		spans [][2]uint32
		want  string
		errno errno
	}{
		{"none", nil, "", success},
		{"several", [][2]uint32{{100, 5}, {105, 1}, {106, 5}, {100, 2}}, "hello worldhe", success},
		{"empty ones anywhere", [][2]uint32{{0, 0}, {100, 5}, {1<<32 - 1, 0}}, "hello", success},
		{"last byte", [][2]uint32{{memorySize - 1, 1}}, "\x00", success},
		{"one too far", [][2]uint32{{100, 5}, {memorySize - 1, 2}}, "", errFault},
		{"wraps", [][2]uint32{{100, 5}, {100, 1<<32 - 1}}, "", errFault},
		{"far", [][2]uint32{{1<<32 - 1, 1}}, "", errFault},
	} {
		t.Run(test.name, func(t *testing.T) {
			reset()
			for i, s := range test.spans {
				g.put(1024+8*i, u32(s[0]), u32(s[1]))
			}
			if e := g.call("fd_write", 1, 1024, uint64(len(test.spans)), 8); e != test.errno {
				t.Errorf("errno %d, want %d", e, test.errno)
			}
			if out.String() != test.want || g.uint32(8) != uint32(len(test.want)) {
				t.Errorf("wrote %q and %d", out.String(), g.uint32(8))
			}
		})
	}
	t.Run("count", func(t *testing.T) {
		reset()
		if e := g.call("fd_write", 1, 1024, maxSpans, 8); e != success {
			t.Errorf("errno %d for the most spans", e)
		}
		for _, n := range []uint64{maxSpans + 1, 1 << 29, 1<<32 - 1} {
			if e := g.call("fd_write", 1, 1024, n, 8); e != errInval {
				t.Errorf("errno %d for %d spans", e, n)
			}
			if e := g.call("fd_read", 0, 1024, n, 8); e != errInval {
				t.Errorf("errno %d for %d spans to read", e, n)
			}
		}
	})
}

// TestTransferLimit writes more than the limit of one call, from one small memory.
func TestTransferLimit(t *testing.T) {
	var n counter
	g := newGuest(t, Config{})
	g.state.Reset(Call{Stdout: &n})
	for i := range maxSpans {
		g.put(8192+8*i, u32(0), u32(memorySize))
	}
	g.must("fd_write", 1, 8192, maxSpans, 8)
	if n.bytes != maxTransfer || g.uint32(8) != maxTransfer || n.largest > piece {
		t.Errorf("%d bytes, said %d, at most %d at once", n.bytes, g.uint32(8), n.largest)
	}
}

type counter struct{ bytes, largest int }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += len(p)
	c.largest = max(c.largest, len(p))
	return len(p), nil
}

// full accepts some bytes and then no more.
type full int

func (f *full) Write(p []byte) (int, error) {
	n := min(len(p), int(*f))
	*f -= full(n)
	if n < len(p) {
		return n, errors.New("full")
	}
	return n, nil
}

func TestFullWriter(t *testing.T) {
	g := newGuest(t, Config{})
	room := full(8)
	g.state.Reset(Call{Stdout: &room})
	for i, want := range []struct {
		n uint32
		e errno
	}{{5, success}, {3, success}, {3, errIO}} {
		if n, e := g.write(1, "12345"); n != want.n || e != want.e {
			t.Errorf("write %d: %d, errno %d", i, n, e)
		}
	}
}

// TestWriterEndsCall has a writer that panics, which ends the call with its error.
func TestWriterEndsCall(t *testing.T) {
	g := newGuest(t, Config{})
	g.state.Reset(Call{Stdout: ends{}})
	g.put(1024, u32(0), u32(1))
	if _, err := g.try("fd_write", 1, 1024, 1, 8); !errors.Is(err, errEnds) {
		t.Errorf("got %v", err)
	}
	g.state.Reset(Call{})
	g.must("fd_write", 1, 1024, 1, 8)
}

var errEnds = errors.New("output too long")

type ends struct{}

func (ends) Write([]byte) (int, error) { panic(errEnds) }

func TestRead(t *testing.T) {
	g := newGuest(t, Config{})
	if parts, e := g.readInto(0, 4); e != success || parts[0] != "" {
		t.Errorf("without input: %q, errno %d", parts, e)
	}
	g.state.Reset(Call{Stdin: []byte("0123456789")})
	for _, fd := range []uint64{1, 2, 3} {
		if _, e := g.readInto(fd, 1); e != errBadf {
			t.Errorf("descriptor %d: errno %d", fd, e)
		}
	}
	for _, test := range []struct {
		sizes []uint32
		want  []string
	}{
		{[]uint32{}, nil},
		{[]uint32{0}, []string{""}},
		{[]uint32{1, 0, 3}, []string{"0", "", "123"}},
		{[]uint32{4, 4}, []string{"4567", "89"}},
		{[]uint32{4}, []string{""}},
	} {
		if parts, e := g.readInto(0, test.sizes...); e != success || !slices.Equal(parts, test.want) {
			t.Errorf("sizes %v: %q, errno %d", test.sizes, parts, e)
		}
	}
}

// TestReadOverSpans reads over the list of spans itself, which must have been read
// before.
func TestReadOverSpans(t *testing.T) {
	g := newGuest(t, Config{})
	g.state.Reset(Call{Stdin: []byte(strings.Repeat("\xff", 16) + "rest")})
	g.put(1024, u32(1024), u32(16), u32(2048), u32(4))
	g.must("fd_read", 0, 1024, 2, 8)
	if g.uint32(8) != 20 || string(g.get(2048, 4)) != "rest" {
		t.Errorf("read %d, %q", g.uint32(8), g.get(2048, 4))
	}
}

func TestDescriptors(t *testing.T) {
	var out, err bytes.Buffer
	g := newGuest(t, Config{})
	g.state.Reset(Call{Stdin: []byte("in"), Stdout: &out, Stderr: &err})
	step := func(want errno, name string, args ...uint64) {
		t.Helper()
		if e := g.call(name, args...); e != want {
			t.Errorf("%s%v: errno %d, want %d", name, args, e, want)
		}
	}
	step(errBadf, "fd_close", 3)
	step(errBadf, "fd_renumber", 1, 3)
	step(errBadf, "fd_renumber", 3, 1)
	step(success, "fd_renumber", 1, 1)
	step(success, "fd_renumber", 2, 1) // 1 is now the error stream
	g.write(1, "moved")
	step(errBadf, "fd_close", 2)
	step(errBadf, "fd_renumber", 1, 2)
	step(success, "fd_renumber", 0, 1) // 1 is now the input
	if parts, e := g.readInto(1, 2); e != success || parts[0] != "in" {
		t.Errorf("read %q, errno %d", parts, e)
	}
	step(success, "fd_close", 1)
	step(errBadf, "fd_close", 1)
	if out.Len() > 0 || err.String() != "moved" {
		t.Errorf("got %q and %q", out.String(), err.String())
	}
	g.state.Reset(Call{})
	for fd := range uint64(3) {
		step(success, "fd_fdstat_get", fd, 64)
	}
}

func TestFdstat(t *testing.T) {
	g := newGuest(t, Config{})
	for fd, rights := range []uint64{1<<1 | 1<<3 | 1<<21 | 1<<27, 1<<6 | 1<<3 | 1<<21 | 1<<27, 1<<6 | 1<<3 | 1<<21 | 1<<27} {
		g.put(64, bytes.Repeat([]byte{0xff}, 32))
		g.must("fd_fdstat_set_flags", uint64(fd), 5)
		g.must("fd_fdstat_get", uint64(fd), 64)
		want := join([]byte{0, 0, 5, 0, 0, 0, 0, 0}, u64(rights), u64(0), bytes.Repeat([]byte{0xff}, 8))
		if got := g.get(64, 32); !bytes.Equal(got, want) {
			t.Errorf("descriptor %d: %x, want %x", fd, got, want)
		}
	}
	for _, flags := range []uint64{32, 1 << 16, 1<<32 - 1} {
		if e := g.call("fd_fdstat_set_flags", 0, flags); e != errInval {
			t.Errorf("flags %#x: errno %d", flags, e)
		}
	}
	if e := g.call("fd_fdstat_set_flags", 3, 0); e != errBadf {
		t.Errorf("errno %d", e)
	}
	if e := g.call("fd_fdstat_get", 3, 1<<32-1); e != errBadf {
		t.Errorf("errno %d", e)
	}
}

func TestFilestat(t *testing.T) {
	g := newGuest(t, Config{})
	for fd := range uint64(3) {
		g.put(64, bytes.Repeat([]byte{0xff}, 72))
		g.must("fd_filestat_get", fd, 64)
		want := join(u64(0), u64(fd+1), u64(0), u64(1), make([]byte, 32), bytes.Repeat([]byte{0xff}, 8))
		if got := g.get(64, 72); !bytes.Equal(got, want) {
			t.Errorf("descriptor %d: %x, want %x", fd, got, want)
		}
	}
	if e := g.call("fd_filestat_get", 3, 64); e != errBadf {
		t.Errorf("errno %d", e)
	}
}
