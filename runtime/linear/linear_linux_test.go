package linear

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapping is one entry of /proc/self/smaps (proc_pid_smaps(5)).
type mapping struct {
	from, to  uint64
	name      string
	anonymous uint64 // bytes in memory that are not in a file
}

func mappings(t testing.TB) (all []mapping) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/smaps")
	must(t, err)
	for line := range strings.Lines(string(b)) {
		var m mapping
		var kb uint64
		fields := strings.Fields(line)
		if n, _ := fmt.Sscanf(line, "%x-%x ", &m.from, &m.to); n == 2 {
			m.name = strings.Join(fields[5:], " ")
			all = append(all, m)
		} else if n, _ := fmt.Sscanf(line, "Anonymous: %d kB", &kb); n == 1 {
			all[len(all)-1].anonymous = kb << 10
		}
	}
	return all
}

// written returns the size of the private physical memory of m, in bytes.
func written(t testing.TB, m *Memory) (n uint64) {
	t.Helper()
	all := m.space.(*mapped).all
	from := uint64(uintptr(unsafe.Pointer(unsafe.SliceData(all))))
	for _, x := range mappings(t) {
		if x.from >= from && x.to <= from+uint64(len(all)) {
			n += x.anonymous
		}
	}
	return n
}

func imageMappings(t testing.TB) (n int) {
	for _, m := range mappings(t) {
		if strings.HasPrefix(m.name, "/memfd:wasm-jobs-image") {
			n++
		}
	}
	return n
}

func openFiles(t testing.TB) int {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(files)
}

func TestNoMappingIsLeft(t *testing.T) {
	Strategies() // opens /proc/self/pagemap, once
	maps, files := imageMappings(t), openFiles(t)
	reserved := func() (n int) {
		for _, m := range mappings(t) {
			if m.to-m.from > MaxLimit/2 && m.name == "" {
				n++
			}
		}
		return n
	}
	before := reserved()
	for _, v := range variants() {
		useAndFree(t, v)
	}
	if n := imageMappings(t) - maps; n != 0 {
		t.Errorf("%d mappings of images too many", n)
	}
	if n := reserved() - before; n != 0 {
		t.Errorf("%d reservations too many", n)
	}
	if n := openFiles(t) - files; n != 0 {
		t.Errorf("%d open files too many", n)
	}
}

func TestACloneCostsWhatItWrote(t *testing.T) {
	const pages = 800 // 50 MiB
	img := imageOf(t, pattern(pages))
	for _, s := range []Strategy{Userfault, Scan, Pagemap, Discard} {
		t.Run(s.String(), func(t *testing.T) {
			m := availableOrSkip(t, s)
			i := instantiate(m, 1, 2000)
			i.bytes[0] = 1
			must(t, m.Attach(img, i))
			sum := 0
			for at := 0; at < len(i.bytes); at += unit {
				sum += int(i.bytes[at])
			}
			if n := written(t, m); n != 0 {
				t.Errorf("%d bytes after reading all, sum %d", n, sum)
			}
			for page := range 10 {
				i.bytes[page*71*unit]++
			}
			if n := written(t, m); n != 10*systemPage {
				t.Errorf("%d bytes after writing to 10 pages", n)
			}
			must(t, m.Reset(i))
			if n := written(t, m); n > 10*systemPage {
				t.Errorf("%d bytes after Reset", n)
			}
		})
	}
}

func availableOrSkip(t *testing.T, s Strategy) *Memory {
	t.Helper()
	m, err := New(Options{Strategy: s, Keep: 1 << 20})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(m.Free)
	return m
}

func TestKeptMemoryIsBounded(t *testing.T) {
	for _, s := range Strategies() {
		t.Run(s.String(), func(t *testing.T) {
			m := availableOrSkip(t, s)
			i := instantiate(m, 1, 2000)
			img := imageOf(t, pattern(3))
			must(t, m.Attach(img, i))
			i.Grow(100)
			for at := 0; at < len(i.bytes); at += unit {
				i.bytes[at]++
			}
			must(t, m.Reset(i))
			bound := uint64(0) // all dropped
			if s == Copy || s == Compare {
				bound = img.size
			}
			if n := written(t, m); n > bound {
				t.Errorf("%d bytes kept, want at most %d", n, bound)
			}
			i.Grow(2) // less than Keep
			clear(i.bytes)
			must(t, m.Reset(i))
			if n := written(t, m); n > 1<<20 {
				t.Errorf("%d bytes kept, more than Keep", n)
			}
		})
	}
}

func TestPagesOfOneHeavyCallAreDroppedInTime(t *testing.T) {
	for _, s := range []Strategy{Userfault, Scan, Pagemap} {
		t.Run(s.String(), func(t *testing.T) {
			m := availableOrSkip(t, s)
			i := instantiate(m, 1, 2000)
			must(t, m.Attach(imageOf(t, pattern(10)), i))
			for at := range i.bytes {
				i.bytes[at]++
			}
			must(t, m.Reset(i))
			if n := written(t, m); n != 10*PageSize {
				t.Fatalf("%d bytes kept after a heavy call", n)
			}
			for range sweepEvery {
				i.bytes[3*unit]++
				must(t, m.Reset(i))
			}
			if n := written(t, m); n > systemPage {
				t.Errorf("%d bytes kept after %d light calls", n, sweepEvery)
			}
			if !bytes.Equal(i.bytes, pattern(10)) {
				t.Error("not restored")
			}
			must(t, m.Reset(i))
			if n := written(t, m); n > systemPage {
				t.Errorf("%d bytes kept after a call that only reads", n)
			}
		})
	}
}

// TestZeroPagesOfAnImageTakeNoMemory reads the size of the file in blocks.
func TestZeroPagesOfAnImageTakeNoMemory(t *testing.T) {
	b := make([]byte, 100*PageSize)
	b[7], b[60*PageSize] = 1, 1
	img := imageOf(t, b)
	if !img.shared {
		t.Skip("no memory files on this system")
	}
	var stat unix.Stat_t
	must(t, unix.Fstat(img.file, &stat))
	if img.Size() != uint64(len(b)) || len(img.content) != 61*PageSize || uint64(stat.Blocks)*512 > 2*systemPage {
		t.Errorf("size %d, content %d, %d blocks", img.Size(), len(img.content), stat.Blocks)
	}
}

// TestImagesThatCannotBeShared is about systems that have no memory files, or no
// more of them.
func TestImagesThatCannotBeShared(t *testing.T) {
	content := pattern(5, 3)
	for _, s := range Strategies() {
		m := availableOrSkip(t, s)
		i := instantiate(m, 1, 2000)
		img := &Image{size: uint64(len(content)), content: content, file: -1, parts: []part{{span: span{0, uint64(len(content))}}}}
		img.refs.Store(1)
		must(t, m.Attach(img, i))
		for round := range 3 {
			i.Grow(2)
			i.bytes[round*unit]++
			i.bytes[len(content)+round]++
			must(t, m.Reset(i))
			if !bytes.Equal(i.bytes, content) {
				t.Fatalf("%s: not restored", s)
			}
		}
	}
}

// liar is a tracker that reports fixed spans.
type liar []span

func (l liar) written(_ []byte, _ uint64, spans []span) ([]span, bool) {
	return append(spans, l...), true
}

func TestTrackersThatLieAreNotTrusted(t *testing.T) {
	for name, l := range map[string]liar{
		"nothing":    nil,
		"everything": {{0, 128 * systemPage}},
		"one missed": {{1 * systemPage, 2 * systemPage}, {3 * systemPage, 4 * systemPage}, {11 * systemPage, 12 * systemPage}, {64 * systemPage, 128 * systemPage}},
	} {
		if honest(Scan, l) {
			t.Errorf("%s: trusted", name)
		}
	}
	t.Logf("trusted on this system: %v", Strategies())
}
