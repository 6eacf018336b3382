package linetable_test

import (
	"debug/dwarf"
	"errors"
	"io"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite/linetable"
)

type place struct {
	address    uint32
	file       string
	line, want uint32
}

func written(places []place, size uint32) linetable.Written {
	var w linetable.Writer
	for _, p := range places {
		w.Add(p.address, p.file, p.line)
	}
	return w.Finish(size)
}

var places = []place{
	{1, "main.c", 10, 10}, {5, "main.c", 10, 10}, {9, "lib/a.h", 3, 3}, {300, "main.c", 4000000, 4000000}, {70000, "", 0, 0}, {70010, "main.c", 1, 1},
}

// What is written is read again, by this package and by debug/dwarf, which the
// engine uses.
func TestRoundTrip(t *testing.T) {
	if out := written(nil, 10); out.Line != nil || !linetable.Read(linetable.Sections{}).Empty() {
		t.Error("an empty table has contents")
	}
	out := written(places, 80000)
	table := linetable.Read(linetable.Sections{Line: out.Line})
	for _, p := range places {
		for _, address := range []uint32{p.address, p.address + 1} {
			file, line, ok := table.Line(address)
			if linetable.IsUnknown(file) != (p.line == 0) && ok || ok && (file != p.file || line != p.line) || ok != (p.line > 0) {
				t.Errorf("%d: %s:%d, %v, want %+v", address, file, line, ok, p)
			}
		}
	}
	if _, _, ok := table.Line(80001); ok {
		t.Error("there is a line after the end")
	}
	checkOther(t, out)
}

// checkOther compares the table with the one that debug/dwarf reads.
func checkOther(t *testing.T, out linetable.Written) {
	t.Helper()
	d, err := dwarf.New(out.Abbrev, nil, nil, out.Info, out.Line, nil, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	unit, err := d.Reader().Next()
	if err != nil || unit == nil {
		t.Fatal(err)
	}
	ranges, err := d.Ranges(unit)
	if err != nil || !slices.Equal(ranges, [][2]uint64{{1, 80000}}) {
		t.Errorf("ranges %v, %v", ranges, err)
	}
	lines, err := d.LineReader(unit)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(slices.Clone(places), func(p place) bool { return p.address == 5 })
	for _, p := range want {
		var e dwarf.LineEntry
		if err := lines.Next(&e); err != nil || e.Address != uint64(p.address) || e.Line != int(p.line) || p.line > 0 && e.File.Name != p.file {
			t.Errorf("%+v, %v, want %+v", e, err, p)
		}
	}
	var e dwarf.LineEntry
	if err := lines.Next(&e); err != nil || !e.EndSequence {
		t.Errorf("%+v, %v, want the end", e, err)
	}
	if err := lines.Next(&e); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// FuzzRead reads any bytes: it must not panic, and names are short and printable.
func FuzzRead(f *testing.F) {
	f.Add(written(places, 80000).Line, []byte("a\x00b"), []byte{}, uint32(7))
	f.Fuzz(func(t *testing.T, line, lineStr, str []byte, address uint32) {
		table := linetable.Read(linetable.Sections{Line: line, LineStr: lineStr, Str: str})
		for a := range uint32(64) {
			file, n, ok := table.Line(address + a)
			if ok && (file == "" || n == 0) || len(file) > 600 {
				t.Fatalf("%q:%d", file, n)
			}
		}
	})
}
