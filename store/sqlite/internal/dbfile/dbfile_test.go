package dbfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// sample returns the database of testdata/make.go and its log.
func sample(t testing.TB) (file, log []byte) {
	t.Helper()
	for into, name := range map[*[]byte]string{&file: "sample.db", &log: "sample.db-wal"} {
		var err error
		if *into, err = os.ReadFile(filepath.Join("testdata", name)); err != nil {
			t.Fatal(err)
		}
	}
	return file, log
}

func open(file, log []byte) *File {
	return New(bytes.NewReader(file), int64(len(file)), bytes.NewReader(log), int64(len(log)))
}

// lines returns the distinct rows as text.
func lines(f *File, columns int) (lines []string) {
	for r := range f.Rows(columns) {
		line := fmt.Sprint(r.ID)
		for _, v := range r.Columns {
			line += fmt.Sprintf(" %d:%d:%.8x", v.Integer, len(v.Bytes), v.Bytes)
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return slices.Compact(lines)
}

// rows are the rows of the sample.
var rows = []string{
	"1 -1:0: 0:0: 0:4:74657874", "2 9223372036854775807:0: 0:4000:0000000000000000 0:0:",
	"3 1:0: 0:1:ff 0:0:", "4 -32768:0: 0:12000:6162636162636162 -8388608:0:",
	"5 1000:0: 0:0: 1000000000:0:", "6 100000:0: 0:0: 1000000000000000:0:", "7 -1000000:0: 0:0: -1000000000000000000:0:",
}

func TestRows(t *testing.T) {
	file, log := sample(t)
	got := lines(open(file, log), 3)
	if !slices.Equal(got, rows) {
		t.Errorf("got %q\nwant %q", got, rows)
	}
	if got := lines(open(nil, nil), 3); len(got) != 0 {
		t.Errorf("an empty file has %q", got)
	}
	if got := lines(open(file, nil), 3); !slices.Equal(got, rows[:3]) {
		t.Errorf("without its log the file has %q", got)
	}
}

// TestChainsAreBounded makes the rows of all pages refer to one chain with a cycle:
// the number of bytes read is in proportion to the file.
func TestChainsAreBounded(t *testing.T) {
	const pages = 300
	file := make([]byte, pages*PageSize)
	for i := range pages {
		page := file[i*PageSize : (i+1)*PageSize]
		if i == pages-1 {
			binary.BigEndian.PutUint32(page, pages) // the next one is itself
			continue
		}
		page[0] = tableLeaf
		binary.BigEndian.PutUint16(page[3:], 1)
		binary.BigEndian.PutUint16(page[8:], 100)
		copy(page[100:], []byte{0x84, 0x80, 0x80, 0x80, 0x00, 1, 7, 0, 0, 0x84, 0x80, 0x80, 0x00}) // a row of 1 GiB
		c, ok := parseCell(page[100:])
		if !ok || c.size != maxRecord || countColumns(c.local) != 3 {
			t.Fatalf("not a cell: %v, %d bytes, %d columns", ok, c.size, countColumns(c.local))
		}
		binary.BigEndian.PutUint32(page[100+6+len(c.local):], pages)
	}
	f := open(file, nil)
	total := 0
	for r := range f.Rows(3) {
		size := 0
		for _, v := range r.Columns {
			size += len(v.Bytes)
		}
		if size > len(file) {
			t.Fatalf("a row has %d bytes, and the file %d", size, len(file))
		}
		total += size
	}
	if most := (overflowFactor + roomFactor) * len(file); total > most || total < len(file) {
		t.Errorf("%d bytes were read, want at most %d and at least %d", total, most, len(file))
	}
}

// patch overwrites parts of a file. Each piece of the patch is an offset of two bytes,
// a length of one byte, and as many bytes.
func patch(file, pieces []byte) {
	for len(pieces) > 3 {
		at, n := int(binary.BigEndian.Uint16(pieces)), int(pieces[2])
		pieces = pieces[3:]
		n = min(n, len(pieces))
		if at < len(file) {
			copy(file[at:], pieces[:n])
		}
		pieces = pieces[n:]
	}
}

// FuzzRows reads the sample with damage and changes: rows are within the files, and
// their size is in proportion to the files. The inputs are patches, since minimizing
// whole files takes a minute each.
func FuzzRows(f *testing.F) {
	file, log := sample(f)
	f.Add([]byte(nil), []byte(nil), uint16(0), uint16(0), uint8(3))
	f.Add([]byte{0, 0, 1, tableLeaf}, []byte{0, 32, 4, 0, 0, 0, 1}, uint16(5000), uint16(20_000), uint8(5))
	f.Add([]byte{0x10, 0, 8, tableLeaf, 0, 0, 0xff, 0xff, 0, 9, 0}, []byte(nil), uint16(1), uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, inFile, inLog []byte, cutFile, cutLog uint16, columns uint8) {
		file, log := bytes.Clone(file[:max(0, len(file)-int(cutFile))]), bytes.Clone(log[:max(0, len(log)-int(cutLog))])
		patch(file, inFile)
		patch(log, inLog)
		checkRows(t, open(file, log), int(columns))
	})
}

// checkRows checks the rows of a file against its size.
func checkRows(t *testing.T, f *File, columns int) {
	total, pages := 0, int(f.pages.count+f.log.count)
	for r := range f.Rows(columns) {
		if len(r.Columns) > columns {
			t.Fatalf("%d columns, want %d", len(r.Columns), columns)
		}
		size := 0
		for _, v := range r.Columns {
			if v.Bytes != nil && v.Integer != 0 {
				t.Fatal("a value is an integer and a blob")
			}
			size += len(v.Bytes)
		}
		if size > pages*PageSize {
			t.Fatalf("a row of %d bytes, and %d pages", size, pages)
		}
		total += size
	}
	if most := (overflowFactor + roomFactor) * PageSize * pages; total > most {
		t.Fatalf("%d bytes in all, want at most %d", total, most)
	}
}
