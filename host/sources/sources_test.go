package sources_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// collect returns the chunks of a source in diagnostic notation, and its error.
func collect(t *testing.T, seq sources.Source) (all []string, err error) {
	t.Helper()
	for item, err := range seq {
		if err != nil {
			return all, err
		}
		if err := abi.CheckItem(item); err != nil {
			t.Fatalf("invalid chunk %x: %v", item, err)
		}
		text, err := cbor.Diagnose(item)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, text)
	}
	return all, nil
}

// checkError checks the properties that every error of a source has.
func checkError(t *testing.T, err error, want string, cause error) {
	t.Helper()
	e, ok := errors.AsType[*sources.Error](err)
	if !ok || e.Err == nil || strings.ContainsAny(err.Error(), "\r\n") {
		t.Fatalf("%T: %v", err, err)
	}
	if err.Error() != want {
		t.Errorf("error %q, want %q", err, want)
	}
	if cause != nil && !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

func check(t *testing.T, seq sources.Source, want []string, wantErr string, cause error) {
	t.Helper()
	got, err := collect(t, seq)
	if !slices.Equal(got, want) {
		t.Errorf("chunks %q, want %q", got, want)
	}
	if err == nil && wantErr == "" {
		return
	}
	checkError(t, err, wantErr, cause)
}

func input(s string, limit int64) sources.Input {
	return sources.Input{Name: "in", Reader: iotest.OneByteReader(strings.NewReader(s)), MaxChunk: limit}
}

func TestLines(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		o        sources.LinesOptions
		limit    int64
		want     []string
		err      string
		cause    error
	}{
		{name: "of nothing"},
		{name: "one each", in: "a\n\r\n\nb", want: []string{`"a\n"`, `"\r\n"`, `"\n"`, `"b"`}},
		{name: "two each", in: "a\nb\nc\n", o: sources.LinesOptions{Cut: sources.Cut{Lines: 2}}, want: []string{`"a\nb\n"`, `"c\n"`}},
		{name: "as many as there are", in: "a\nb\n", o: sources.LinesOptions{Cut: sources.Cut{Lines: 2}}, want: []string{`"a\nb\n"`}},
		{name: "by bytes", in: "a\nb\ncccccc\nd\n", o: sources.LinesOptions{Cut: sources.Cut{Bytes: 4}}, want: []string{`"a\nb\n"`, `"cccccc\n"`, `"d\n"`}},
		{name: "by bytes, the last without an end", in: "aa\nb", o: sources.LinesOptions{Cut: sources.Cut{Bytes: 3}}, want: []string{`"aa\n"`, `"b"`}},
		{name: "as bytes", in: "\xff\n", o: sources.LinesOptions{Bytes: true}, want: []string{`h'ff0a'`}},
		{name: "not UTF-8", in: "a\nb\n\xff\n", o: sources.LinesOptions{Cut: sources.Cut{Lines: 5}}, err: "in:3: not UTF-8; Bytes makes byte strings of lines", cause: sources.ErrMalformed},
		{name: "as large as allowed", in: "abc\n", limit: 5, want: []string{`"abc\n"`}},
		{name: "too large by its head", in: "a\nabcd\n", limit: 5, want: []string{`"a\n"`}, err: "in:2: chunk too large: more than 5 bytes; MaxChunk sets the limit", cause: sources.ErrTooLarge},
		{name: "too long", in: "a\nabcde\n", limit: 5, want: []string{`"a\n"`}, err: "in:2: line too large: more than 5 bytes; MaxChunk sets the limit", cause: sources.ErrTooLarge},
		{name: "too large together", in: "a\nab\nab\nabc\n", limit: 7, o: sources.LinesOptions{Cut: sources.Cut{Lines: 2}}, want: []string{`"a\nab\n"`}, err: "in:3: chunk too large: more than 7 bytes; MaxChunk sets the limit", cause: sources.ErrTooLarge},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, sources.Lines(input(tt.in, tt.limit), tt.o), tt.want, tt.err, tt.cause)
		})
	}
}

// A line may be longer than one read.
func TestLongLines(t *testing.T) {
	long := strings.Repeat("x", 700_000)
	in := sources.Input{Name: "in", Reader: strings.NewReader(long + "\nshort\n" + long)}
	var sizes []int
	for item, err := range sources.Lines(in, sources.LinesOptions{}) {
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, len(item))
	}
	if !slices.Equal(sizes, []int{700_006, 7, 700_005}) {
		t.Errorf("sizes %v", sizes)
	}
}

// The error has the reader's message, with the line.
func TestUnreadable(t *testing.T) {
	gone := errors.New("gone")
	for name, of := range map[string]func(sources.Input) sources.Source{
		"lines": func(in sources.Input) sources.Source { return sources.Lines(in, sources.LinesOptions{}) },
		"jsonl": sources.JSONLines,
		"csv":   func(in sources.Input) sources.Source { return sources.CSV(in, sources.CSVOptions{}) },
	} {
		in := sources.Input{Name: "in", Reader: io.MultiReader(strings.NewReader("1\n2\n3"), iotest.ErrReader(gone))}
		_, err := collect(t, of(in))
		t.Log(name)
		checkError(t, err, "in:3: cannot be read: gone", gone)
	}
}

func TestJSONLines(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		limit    int64
		want     []string
		err      string
	}{
		{name: "of nothing"},
		{name: "no end of the last line, and a byte order mark", in: "\ufeff1\r\n 2 ", want: []string{"1", "2"}},
		{name: "order of keys", in: `{"b":[],"a":{"":null}}`, want: []string{`{"b": [], "a": {"": null}}`}},
		{name: "escapes", in: `"\u00fc\ud83d\ude00\\ud800"`, want: []string{`"\u00fc\ud83d\ude00\\ud800"`}},
		{name: "blank lines", in: "\ufeff\n1\n\n \t\r\n2\n\n", want: []string{"1", "2"}},
		{name: "lines that end with CR", in: "1\r2\r\n3\n\r4", want: []string{"1", "2", "3", "4"}},
		{name: "lines that end with CR are counted", in: "1\r\r\n2\rx", want: []string{"1", "2"}, err: "in:4: invalid JSON at byte 1: invalid character 'x' looking for beginning of value"},
		{name: "an array", in: "\ufeff\n [1,\r\n{\"a\":[\"],\\\\\"]} , \"\\\"]\"]\n", want: []string{"1", `{"a": ["],\\"]}`, `"\"]"`}},
		{name: "an array on one line", in: "[1, [2]]\n\n", want: []string{"1", "[2]"}},
		{name: "an empty array", in: "[ ]"},
		{name: "lines of arrays", in: "[1]\n\n[2]\n", want: []string{"[1]", "[2]"}},
		{name: "a value after an array", in: "[1\n]\n2", want: []string{"1"}, err: "in:3: more than one value after an array over several lines: want one value on each line, or one array"},
		{name: "half an array", in: "[1,\n2", want: []string{"1"}, err: "in:2: truncated: the array does not end"},
		{name: "an invalid element", in: "[1,\n\nnil]", want: []string{"1"}, err: "in:3: invalid JSON at byte 2: invalid character 'i' in literal null (expecting 'u')"},
		{name: "a comma at the end", in: "[1,]", want: []string{"1"}, err: "in:1: empty: want one JSON value on each line"},
		{name: "an element that is too large", in: "[1,\n\"abc\"]", limit: 4, want: []string{"1"}, err: "in:2: element too large: more than 4 bytes; MaxChunk sets the limit"},
		{name: "two values", in: "1 2", err: "in:1: invalid JSON at byte 2: more than one value, want one on each line"},
		{name: "half a value", in: "1\n[1", want: []string{"1"}, err: "in:2: invalid JSON: the text ends within a value"},
		{name: "no value", in: "nil", err: "in:1: invalid JSON at byte 2: invalid character 'i' in literal null (expecting 'u')"},
		{name: "not UTF-8", in: "\"\xff\"", err: "in:1: not UTF-8"},
		{name: "half a pair", in: `"\ude00\ud83d"`, err: `in:1: half of a surrogate pair (\ud800 to \udfff) in a text`},
		{name: "the first half of a pair", in: `"\ud83d" `, err: `in:1: half of a surrogate pair (\ud800 to \udfff) in a text`},
		{name: "a key twice", in: `{"a":1,"\u0061":2}`, err: `in:1: duplicate key "a" in one object`},
		{name: "deep", in: `{"":` + strings.Repeat("[", 256) + strings.Repeat("]", 256) + "}", err: "in:1: more than 256 levels of nesting"},
		{name: "longer than its chunk may be", in: "1\n\"abc\"", limit: 4, want: []string{"1"}, err: "in:2: line too large: more than 4 bytes; MaxChunk sets the limit"},
		{name: "a chunk longer than its line", in: "1.1", limit: 4, err: "in:1: chunk too large: more than 4 bytes; MaxChunk sets the limit"},
		{name: "too many digits", in: strings.Repeat("9", 2468), err: "in:1: integer of 2468 digits too large: more than 1024 bytes; a text can hold any number of digits"},
		{name: "too many bytes", in: strings.Repeat("9", 2467), err: "in:1: integer of 2467 digits too large: more than 1024 bytes; a text can hold any number of digits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, sources.JSONLines(input(tt.in, tt.limit)), tt.want, tt.err, nil)
		})
	}
}

// Numbers have their RFC 8949 preferred encodings: the shortest that keeps the
// value.
func TestNumbers(t *testing.T) {
	for in, want := range map[string]string{
		"0": "00", "-1": "20", "23": "17", "24": "1818",
		"18446744073709551615":  "1bffffffffffffffff",
		"18446744073709551616":  "c249010000000000000000",
		"-18446744073709551616": "3bffffffffffffffff",
		"-18446744073709551617": "c349010000000000000000",
		"-0":                    "f98000", "0.0": "f90000", "1.0": "f93c00", "1.1": "fb3ff199999999999a", "1e0": "f93c00",
		"100000.0": "fa47c35000", "65504.0": "f97bff", "1.0e+300": "fb7e37e43c8800759c",
		"5.960464477539063e-8": "f90001", "6.103515625e-5": "f90400", "3.4028234663852886e+38": "fa7f7fffff",
		"1e-999": "f90000",
	} {
		got, err := sources.AppendJSON(nil, []byte(in))
		if err != nil || fmt.Sprintf("%x", got) != want {
			t.Errorf("%s is %x (%v), want %s", in, got, err, want)
		}
	}
}

// Heads of more than one byte are right at many depths.
func TestContainers(t *testing.T) {
	for _, n := range []int{0, 1, 23, 24, 255, 256, 65536} {
		array := "[" + strings.TrimSuffix(strings.Repeat("[1],", n), ",") + "]"
		got, err := sources.AppendJSON([]byte{0xff}, []byte(array))
		want := append(abi.AppendHead([]byte{0xff}, abi.MajorArray, uint64(n)), bytes.Repeat([]byte{0x81, 1}, n)...)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("an array of %d: %.20x (%v)", n, got, err)
		}
		var object strings.Builder
		want = abi.AppendHead(nil, abi.MajorMap, uint64(n))
		for i := range n {
			fmt.Fprintf(&object, `,"%d":%d`, i, i)
			want = abi.AppendHead(abi.AppendText(want, fmt.Sprint(i)), abi.MajorUint, uint64(i))
		}
		got, err = sources.AppendJSON(nil, []byte("{"+strings.TrimPrefix(object.String(), ",")+"}"))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("an object of %d: %.20x (%v)", n, got, err)
		}
		if n == 0 {
			continue
		}
		if _, err := sources.AppendJSON(nil, fmt.Appendf(nil, "{%s,\"%d\":0}", object.String()[1:], n-1)); err == nil {
			t.Errorf("an object of %d with its last key twice was taken", n)
		}
	}
}

func TestCSV(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		comma    rune
		limit    int64
		want     []string
		err      string
	}{
		{name: "of nothing", err: "in: the file is empty: want the names of the columns in the first line"},
		{name: "only a header", in: "a,b\n"},
		{name: "texts", in: "\ufeffa,b\r\n1,\r\n\" x\",\"\"\"\"\r\n", want: []string{`{"a": "1", "b": ""}`, `{"a": " x", "b": "\""}`}},
		{name: "another comma", in: "a|b\n1|2,3", comma: '|', want: []string{`{"a": "1", "b": "2,3"}`}},
		{name: "blank lines of one column", in: "a\n\n1\n\r\n", want: []string{`{"a": ""}`, `{"a": "1"}`, `{"a": ""}`}},
		{name: "quoted empty fields of one column", in: "a\n\"\"\n1\n\"\"", want: []string{`{"a": ""}`, `{"a": "1"}`, `{"a": ""}`}},
		{name: "blank lines of two columns", in: "\n\r\na,b\n\n1,2\n\n", want: []string{`{"a": "1", "b": "2"}`}},
		{name: "a column without a name", in: "\"\"\n1\n", want: []string{`{"": "1"}`}},
		{name: "a blank line, and a name or a value", in: "\n\n1\n2\n", err: `in:1: the line is blank: want the names of the columns in the first line; "" names a column without a name`},
		{name: "only blank lines", in: "\r\n\n", err: `in:1: the line is blank: want the names of the columns in the first line; "" names a column without a name`},
		{name: "line ends within quotes", in: "a,b\r\n\"x\r\ny\rz\n\",\"\r\"\r\n", want: []string{`{"a": "x\r\ny\rz\n", "b": "\r"}`}},
		{name: "CR ends records", in: "a,b\r1,2\r\"3\r4\",5\r", want: []string{`{"a": "1", "b": "2"}`, `{"a": "3\r4", "b": "5"}`}},
		{name: "lines that end with CR are counted", in: "a,b\r1,\"\r\n\r\"\r3", want: []string{`{"a": "1", "b": "\r\n\r"}`}, err: "in:5: invalid number of fields: 1, want 2 as in the header"},
		{name: "a quote that is not closed", in: "a,b\n1,\"x\n2,3\n4,5\n", err: `in:2: column 3: the " that opens a field here is not closed`},
		{name: "a quote in a later line that is not closed", in: "a,b\n\"1\n\n2\",\"x\n2,3\n", err: `in:4: column 4: the " that opens a field here is not closed`},
		{name: "more after a quote", in: "a,b\n1,\"x\" \n", err: `in:2: column 6: extraneous or missing " in quoted-field`},
		{name: "a doubled quote that is too large", in: "a,b\n1234567,\"\"\"\"\n", limit: 7, err: "in:2: record with an unclosed quote too large: more than 7 bytes; MaxChunk sets the limit"},
		{name: "a character that is too large", in: "a,b\n1234567,\u00e9\n", comma: '\u00e8', limit: 9, err: "in:2: record too large: more than 9 bytes; MaxChunk sets the limit"},
		{name: "separators at the end", in: "a,b,\n,,", want: []string{`{"a": "", "b": "", "": ""}`}},
		{name: "a comma of two bytes", in: "a\u00e9b\n\u00e8\u00e9\"\u00e9\"", comma: '\u00e9', want: []string{`{"a": "\u00e8", "b": "\u00e9"}`}},
		{name: "UTF-8 only if fields are joined", in: "a,b\n\xc3,\xa9", err: "in:2: not UTF-8: CSV files must be UTF-8"},
		{name: "UTF-16", in: "\xff\xfea\x00\n\x00", err: "in:1: not UTF-8: CSV files must be UTF-8"},
		{name: "too large with a quote in a later line", in: "a,b\n\"\n\",\"1234567890", limit: 9, err: "in:3: field with an unclosed quote too large: more than 9 bytes; MaxChunk sets the limit"},
		{name: "ragged", in: "a,b\n1,\"2\n\n3\"\n4\n", want: []string{`{"a": "1", "b": "2\n\n3"}`}, err: "in:5: invalid number of fields: 1, want 2 as in the header"},
		{name: "columns of one name", in: "a,\"a\"\n", err: `in:1: duplicate column "a"`},
		{name: "ragged, of one column", in: "a;b\n1;2\n3,5;4\n", want: []string{`{"a;b": "1;2"}`}, err: "in:3: invalid number of fields: 2, want 1 as in the header; Comma is the character between fields"},
		{name: "a bare quote", in: "a\n1\nx\"y", want: []string{`{"a": "1"}`}, err: `in:3: column 2: bare " in non-quoted-field`},
		{name: "not UTF-8", in: "a\n\xff", err: "in:2: not UTF-8: CSV files must be UTF-8"},
		{name: "too large", in: "a,b\n\"\n\",1\n12,3456\n", limit: 9, want: []string{`{"a": "\n", "b": "1"}`}, err: "in:4: record too large: more than 9 bytes; MaxChunk sets the limit"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			check(t, sources.CSV(input(tt.in, tt.limit), sources.CSVOptions{Comma: tt.comma}), tt.want, tt.err, nil)
		})
	}
}

// endless gives one byte for ever, and counts.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	e.read += len(b)
	return len(b), nil
}

// Lines and records that never end are refused soon after the limit.
func TestEndless(t *testing.T) {
	for name, of := range map[string]func(io.Reader) sources.Source{
		"lines": func(r io.Reader) sources.Source {
			return sources.Lines(sources.Input{Name: "in", Reader: r, MaxChunk: 1000}, sources.LinesOptions{})
		},
		"jsonl": func(r io.Reader) sources.Source {
			return sources.JSONLines(sources.Input{Name: "in", Reader: r, MaxChunk: 1000})
		},
		"csv": func(r io.Reader) sources.Source {
			return sources.CSV(sources.Input{Name: "in", Reader: io.MultiReader(strings.NewReader("a\n\""), r), MaxChunk: 1000}, sources.CSVOptions{})
		},
		"csv fields": func(r io.Reader) sources.Source {
			return sources.CSV(sources.Input{Name: "in", Reader: io.MultiReader(strings.NewReader("a\n"), r), MaxChunk: 1000}, sources.CSVOptions{Comma: 'x'})
		},
		"csv columns": func(r io.Reader) sources.Source {
			return sources.CSV(sources.Input{Name: "in", Reader: r, MaxChunk: 1000}, sources.CSVOptions{Comma: 'x'})
		},
	} {
		e := &endless{}
		_, err := collect(t, of(e))
		if !errors.Is(err, sources.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if e.read > 1<<20 {
			t.Errorf("%s: %d bytes were read", name, e.read)
		}
	}
}

func TestRange(t *testing.T) {
	set, err := abi.ParseRanges("3-4,18446744073709551614-18446744073709551615")
	if err != nil {
		t.Fatal(err)
	}
	check(t, sources.Range("r", set), []string{"3", "4", "18446744073709551614", "18446744073709551615"}, "", nil)
	check(t, sources.Range("r", abi.IDSet{}), nil, "", nil)
	var all abi.IDSet
	all.AddRange(1, math.MaxUint64)
	check(t, sources.Range("r", all), nil, "r: too many integers: want at most 4294967295; make a range of block numbers, and let the module count within a block", sources.ErrTooMany)
}

// A consumer may stop at any chunk.
func TestStop(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "c"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("1\n2\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var set abi.IDSet
	set.AddRange(0, 3)
	for _, seq := range []sources.Source{
		sources.Lines(input("1\n2\n3\n4\n", 0), sources.LinesOptions{}),
		sources.JSONLines(input("1\n2\n3\n4\n", 0)),
		sources.CSV(input("1\n2\n3\n4\n", 0), sources.CSVOptions{}),
		sources.Files([]string{dir}, sources.FilesOptions{Split: 2}),
		sources.Range("r", set),
	} {
		next, stop := iter.Pull2(seq)
		for range 2 {
			if _, err, ok := next(); err != nil || !ok {
				t.Errorf("%v, %v", err, ok)
			}
		}
		stop()
	}
}

// A stream yields a line before the next one is written, and its arrays are values.
func TestJSONLinesOfAStream(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	lines := []string{"[1]\n", "\n[2,3]\n", "4\r\n"}
	want := [][]byte{{0x81, 1}, {0x82, 2, 3}, {4}}
	go func() { _, _ = io.WriteString(w, lines[0]) }()
	n := 0
	for item, err := range sources.JSONLines(sources.Input{Name: "in", Reader: r, Stream: true}) {
		if err != nil || !bytes.Equal(item, want[n]) {
			t.Fatalf("item %d: %x, %v", n, item, err)
		}
		if n++; n == len(lines) {
			break
		}
		go func() { _, _ = io.WriteString(w, lines[n]) }()
	}
	if n != len(lines) {
		t.Errorf("%d items", n)
	}
}
