package parquet

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	library "github.com/parquet-go/parquet-go"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// lines returns the rows of a file as JSON lines, and the error that ended them.
func lines(t testing.TB, b []byte, o Options) (string, error) {
	t.Helper()
	f, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return "", err
	}
	if o.MaxRow == 0 {
		o.MaxRow = 1 << 20
	}
	var s strings.Builder
	w := bufio.NewWriter(&s)
	for row, err := range f.Rows(o) {
		if err != nil {
			w.Flush()
			return s.String(), err
		}
		if err := abi.CheckItem(row); err != nil {
			t.Fatalf("%x: %v", row, err)
		}
		if err := notation.WriteJSON(w, row); err != nil {
			t.Fatal(err)
		}
		w.WriteByte('\n')
	}
	w.Flush()
	if f.live != 0 {
		t.Errorf("%d bytes of pages are still counted", f.live)
	}
	return s.String(), nil
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Files of other implementations have the values that DuckDB reads in them: see the
// README of testdata. With the variable UPDATE, the values are written.
func TestFiles(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.parquet")
	if len(paths) < 25 {
		t.Fatalf("only %d files", len(paths))
	}
	for _, path := range paths {
		if strings.HasPrefix(filepath.Base(path), "bad_") {
			continue
		}
		got, err := lines(t, read(t, path), Options{})
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
		want := strings.TrimSuffix(path, ".parquet") + ".jsonl"
		if os.Getenv("UPDATE") != "" {
			if err := os.WriteFile(want, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if got != string(read(t, want)) {
			t.Errorf("%s: got\n%s", path, got)
		}
	}
}

func TestColumns(t *testing.T) {
	b := read(t, "testdata/duckdb_snappy.parquet")
	got, err := lines(t, b, Options{Columns: []string{"u64", "bool"}})
	if want := "{\"bool\":true,\"u64\":18446744073709551615}\n{\"bool\":null,\"u64\":null}\n{\"bool\":false,\"u64\":8}\n"; got != want || err != nil {
		t.Errorf("%s, error %v", got, err)
	}
	if _, err := lines(t, b, Options{Columns: []string{"none"}}); err == nil || err.Error() != `missing column "none"` {
		t.Errorf("error %v", err)
	}
}

func TestDefects(t *testing.T) {
	whole := read(t, "testdata/alltypes_plain.snappy.parquet")
	for name, x := range map[string]struct {
		b    []byte
		want string
	}{
		"empty":     {nil, "not a Parquet file"},
		"text":      {[]byte("a,b\n1,2\n3,4\n5,6\n"), "not a Parquet file"},
		"cut":       {whole[:len(whole)-100], "truncated: the metadata at its end is missing; copy or download it again"},
		"encrypted": {append(bytes.Clone(whole[:len(whole)-4]), "PARE"...), "not supported: an encrypted Parquet file"},
		"size":      {append(bytes.Clone(whole[:len(whole)-8]), "\xff\xff\xff\xffPAR1"...), "damaged: invalid size of its metadata"},
		"a page":    {damage(whole, 30), "row 1: column \"id\": damaged"},
	} {
		if _, err := lines(t, x.b, Options{}); err == nil || !strings.HasPrefix(err.Error(), x.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	paths, _ := filepath.Glob("testdata/bad_*.parquet")
	for _, path := range paths {
		if got, err := lines(t, read(t, path), Options{}); err == nil {
			t.Errorf("%s: %q", path, got)
		}
	}
	if _, err := lines(t, whole, Options{MaxRow: 10}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

func damage(b []byte, at int) []byte {
	b = bytes.Clone(b)
	for i := range 8 {
		b[at+i] ^= 0xff
	}
	return b
}

// A few bytes that claim billions of values cost nothing.
func TestHostileCounts(t *testing.T) {
	huge := []byte{0xfe, 0xff, 0xff, 0xff, 0x0f}
	h := hybrid{b: append(huge, 1), width: 1}
	if n, err := h.next(); n != 1 || err != nil || h.left != math.MaxInt32-1 {
		t.Errorf("%d, %d left, error %v", n, h.left, err)
	}
	if _, err := newDictionary([]byte{1, 0, 0, 0, 1}, 0, math.MaxInt32); err == nil {
		t.Error("a dictionary has more values than bytes")
	}
	if _, err := structSize([]byte{0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07}); err != errLarge {
		t.Errorf("a list of 2^31 structures: %v", err)
	}
	if _, err := structSize(bytes.Repeat([]byte{0x1c}, 1000)); err != errInvalid {
		t.Errorf("1,000 nested structures: %v", err)
	}
}

// No file makes the reader panic, or take more than it may.
func FuzzRows(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.parquet")
	for _, path := range paths {
		if b := read(f, path); len(b) < 5000 {
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			checkLine(t, err)
			return
		}
		n := 0
		for row, err := range file.Rows(Options{MaxRow: 1 << 16}) {
			if err != nil {
				checkLine(t, err)
				return
			}
			if err := abi.CheckItem(row); err != nil {
				t.Fatalf("%x: %v", row, err)
			}
			if n++; n > 1000 {
				return
			}
		}
	})
}

func checkLine(t *testing.T, err error) {
	t.Helper()
	if strings.ContainsAny(err.Error(), "\r\n") {
		t.Fatalf("%q has several lines", err)
	}
}

// sequence returns outputs with the ids 0, 1, ...
func sequence(items ...[]byte) outputs.Seq {
	return func(yield func(outputs.Output, error) bool) {
		for i, item := range items {
			if !yield(outputs.Output{ID: abi.IntID(uint64(i)), Output: item}, nil) {
				return
			}
		}
	}
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tableOf(t testing.TB, items ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := WriteOutputs(&b, sequence(items...)); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// Written tables have the values of the outputs, for this reader and for the library.
func TestWritten(t *testing.T) {
	type m = map[string]any
	for name, x := range map[string]struct {
		items []any
		want  string
	}{
		"no output": {nil, ""},
		"integers":  {[]any{1, -2, nil}, `{"id":0,"output":1}{"id":1,"output":-2}{"id":2,"output":null}`},
		"large":     {[]any{uint64(math.MaxUint64), 1}, `{"id":0,"output":18446744073709551615}{"id":1,"output":1}`},
		"floats":    {[]any{1.5, 2, math.Inf(1)}, `{"id":0,"output":1.5}{"id":1,"output":2.0}{"id":2,"output":null}`},
		"no double": {[]any{1.5, 1 << 60}, `{"id":0,"output":"1.5"}{"id":1,"output":"1152921504606846976"}`},
		"mixed":     {[]any{"a", 1, []int{2}}, `{"id":0,"output":"\"a\""}{"id":1,"output":"1"}{"id":2,"output":"[2]"}`},
		"bools":     {[]any{true, nil, false}, `{"id":0,"output":true}{"id":1,"output":null}{"id":2,"output":false}`},
		"bytes":     {[]any{[]byte{0, 255}}, `{"id":0,"output":"AP8"}`},
		"maps":      {[]any{m{"a": 1}, m{"a": 2, "b": "x"}, m{}}, `{"id":0,"a":1,"b":null}{"id":1,"a":2,"b":"x"}{"id":2,"a":null,"b":null}`},
		"key id":    {[]any{m{"id": "x"}}, `{"id":0,"output.id":"x"}`},
		"nested":    {[]any{m{"a": []int{1}}}, `{"id":0,"a":"[1]"}`},
		"not maps":  {[]any{m{"a": 1}, 7}, `{"id":0,"output":"{\"a\":1}"}{"id":1,"output":"7"}`},
	} {
		var items [][]byte
		for _, v := range x.items {
			items = append(items, encode(t, v))
		}
		b := tableOf(t, items...)
		got, err := lines(t, b, Options{})
		if strings.ReplaceAll(got, "\n", "") != x.want || err != nil {
			t.Errorf("%s: %s, error %v", name, got, err)
		}
		if !bytes.Equal(b, tableOf(t, items...)) {
			t.Errorf("%s: other bytes the second time", name)
		}
		f, err := library.OpenFile(bytes.NewReader(b), int64(len(b)))
		if err != nil || f.NumRows() != int64(len(items)) {
			t.Errorf("%s: the library: %v", name, err)
		}
	}
}

// Other programs skip groups of rows by the number of nulls.
func TestNullCount(t *testing.T) {
	b := tableOf(t, encode(t, nil), encode(t, 1), encode(t, nil))
	f, err := library.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if n := f.Metadata().RowGroups[0].Columns[1].MetaData.Statistics.NullCount; n != 2 {
		t.Errorf("%d nulls, want 2", n)
	}
}

func TestChecksum(t *testing.T) {
	b := tableOf(t, encode(t, strings.Repeat("text", 100)))
	at := bytes.Index(b, []byte("\x28\xb5\x2f\xfd")) + 12 // in the first page
	_, err := lines(t, damage(b, at), Options{})
	if want := "row 1: column \"id\": damaged: a page does not match its checksum"; err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

// Columns of a list that have other numbers of elements are an error.
func TestUnevenLists(t *testing.T) {
	one, two := &leaf{path: "l.a", maxRep: 1, maxDef: 1}, &leaf{path: "l.b", index: 1, maxRep: 1, maxDef: 1}
	g := &group{columns: []*column{{leaf: one, has: true, rep: 1}, {leaf: two, has: true, rep: 0}}}
	if _, err := g.another(&node{leaves: []*leaf{one, two}}, 1); err == nil {
		t.Error("no error")
	}
	g.columns[1].rep = 1
	if more, err := g.another(&node{leaves: []*leaf{one, two}}, 1); !more || err != nil {
		t.Errorf("%v, error %v", more, err)
	}
}

// Several groups of rows and pages are one table, which the library reads too.
func TestGroups(t *testing.T) {
	var items [][]byte
	for i := range 200 {
		items = append(items, encode(t, struct {
			N    int    `cbor:"n"`
			Text string `cbor:"text"`
		}{i, strings.Repeat(fmt.Sprint(i), 200_000)}))
	}
	b := tableOf(t, items...)
	f, err := library.OpenFile(bytes.NewReader(b), int64(len(b)))
	if err != nil || len(f.RowGroups()) < 2 {
		t.Fatalf("error %v", err)
	}
	row := int64(0)
	for _, g := range f.RowGroups() {
		r := g.Rows()
		buf := make([]library.Row, 1)
		for {
			n, err := r.ReadRows(buf)
			if n == 1 {
				if buf[0][0].Int64() != row || buf[0][1].Int64() != row || len(buf[0][2].ByteArray()) != 200_000*len(fmt.Sprint(row)) {
					t.Fatalf("row %d: %v", row, buf[0][:2])
				}
				row++
			}
			if err != nil {
				break
			}
		}
		r.Close()
	}
	got, err := lines(t, b, Options{Columns: []string{"n"}})
	if row != 200 || strings.Count(got, "\n") != 200 || err != nil {
		t.Errorf("%d rows of the library, %d of ours, error %v", row, strings.Count(got, "\n"), err)
	}
}

// Outputs come back with their values, whatever they are.
func FuzzOutputs(f *testing.F) {
	f.Add([]byte{1}, []byte{0x20}, []byte{0xf6})
	f.Add([]byte{0xa1, 0x61, 'a', 1}, []byte{0xa1, 0x61, 'b', 0xfb, 0x40, 9, 0x21, 0xfb, 0x54, 0x44, 0x2d, 0x18}, []byte{0xa0})
	f.Add([]byte{0xbf, 0x61, 'a', 0x41, 0, 0xff}, []byte{0xf9, 0x7e, 0}, []byte{0x7f, 0x61, 'x', 0xff})
	f.Fuzz(func(t *testing.T, a, b, c []byte) {
		for _, item := range [][]byte{a, b, c} {
			if abi.CheckItem(item) != nil {
				return
			}
		}
		var file bytes.Buffer
		if err := WriteOutputs(&file, sequence(a, b, c)); err != nil {
			checkLine(t, err)
			return
		}
		n := 0
		r, err := Open(bytes.NewReader(file.Bytes()), int64(file.Len()))
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range r.Rows(Options{MaxRow: 1 << 20}) {
			if err != nil {
				t.Fatal(err)
			}
			n++
		}
		if n != 3 {
			t.Fatalf("%d rows", n)
		}
	})
}
