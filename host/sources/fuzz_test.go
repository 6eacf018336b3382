package sources_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/big"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// The CBOR of any accepted JSON has the values that another JSON reader finds in
// it. Refused input is invalid JSON or one of the documented exceptions.
func FuzzJSON(f *testing.F) {
	for _, s := range []string{"", "null", "[true,false]", `{"a":{"b":[1,-1,1.5,-0]}}`, "1e999", "18446744073709551616", "-18446744073709551617",
		`"\ud83d\ude00"`, `"\ud83d"`, `{"a":1,"a":2}`, "[1,]", strings.Repeat("[", 300), "1 2", `{"x":[[],{},""]}`, "5e-324", "\"\xff\"", "-1E-2"} {
		f.Add([]byte(s))
	}
	modes, err := cbor.DecOptions{MaxNestedLevels: 300, BigIntDec: cbor.BigIntDecodePointer, DupMapKey: cbor.DupMapKeyEnforcedAPF}.DecMode()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		got, err := sources.AppendJSON(nil, value)
		if err != nil {
			if !errors.Is(err, sources.ErrMalformed) || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%T: %q", err, err)
			}
			return
		}
		if err := abi.CheckItem(got); err != nil {
			t.Fatalf("%q became %x: %v", value, got, err)
		}
		d := json.NewDecoder(bytes.NewReader(value))
		d.UseNumber()
		var want, read any
		if err := d.Decode(&want); err != nil {
			t.Fatalf("invalid JSON %q was accepted: %v", value, err)
		}
		if err := modes.Unmarshal(got, &read); err != nil {
			t.Fatalf("%q became %x: %v", value, got, err)
		}
		if !reflect.DeepEqual(plain(read), plain(want)) {
			t.Errorf("%q became %v, want %v", value, plain(read), plain(want))
		}
	})
}

// plain converts values of both readers to the same types: integers of any size to
// texts with a mark, and other numbers to doubles.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		if n, ok := new(big.Int).SetString(string(v), 10); ok && v != "-0" {
			return "integer " + n.String()
		}
		f, _ := strconv.ParseFloat(string(v), 64)
		return strconv.FormatFloat(f, 'g', -1, 64)
	case uint64:
		return "integer " + strconv.FormatUint(v, 10)
	case int64:
		return "integer " + strconv.FormatInt(v, 10)
	case *big.Int:
		return "integer " + v.String()
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case []any:
		all := []any{}
		for _, e := range v {
			all = append(all, plain(e))
		}
		return all
	case map[string]any:
		all := map[any]any{}
		for key, e := range v {
			all[key] = plain(e)
		}
		return all
	case map[any]any:
		all := map[any]any{}
		for key, e := range v {
			all[key] = plain(e)
		}
		return all
	}
	return v
}

// lineEnds makes each end of a line, LF, CR LF or CR, an LF.
var lineEnds = strings.NewReplacer("\r\n", "\n", "\r", "\n")

func isLineEnd(c byte) bool { return c == '\n' || c == '\r' }

// All lines, joined, are the input. Each chunk except the last ends with a line,
// and none is larger than the limit unless it is a single line.
func FuzzLines(f *testing.F) {
	f.Add([]byte(""), uint8(0), uint8(0))
	f.Add([]byte("a\nbb\n\nccc"), uint8(2), uint8(0))
	f.Add([]byte("a\nbb\n\nccc\xff\n"), uint8(0), uint8(3))
	f.Add([]byte("a\rbb\r\n\r\rc\r\n"), uint8(2), uint8(0))
	f.Add([]byte("\r0"), uint8(24), uint8(1))
	f.Fuzz(func(t *testing.T, content []byte, lines, size uint8) {
		var joined []byte
		in := sources.Input{Name: "in", Reader: bytes.NewReader(content)}
		o := sources.LinesOptions{Cut: sources.Cut{Lines: int(lines), Bytes: int64(size)}, Bytes: true}
		if size > 0 {
			o.Lines = 0
		}
		for item, err := range sources.Lines(in, o) {
			if err != nil {
				t.Fatal(err)
			}
			h, err := abi.ReadHead(item)
			if err != nil || h.Major != abi.MajorBytes || h.Arg == 0 {
				t.Fatalf("chunk %x (%v)", item, err)
			}
			block := item[h.Size:]
			count := strings.Count(lineEnds.Replace(string(block)), "\n")
			if size > 0 && len(block) > int(size) && !(count == 1 && isLineEnd(block[len(block)-1])) && count > 0 {
				t.Errorf("%q is larger than %d bytes", block, size)
			}
			if size == 0 && count > max(1, int(lines)) {
				t.Errorf("%q has more than %d lines", block, lines)
			}
			joined = append(joined, block...)
			last, rest := block[len(block)-1], content[min(len(joined), len(content)):]
			if len(rest) > 0 && (!isLineEnd(last) || last == '\r' && rest[0] == '\n') {
				t.Errorf("%q ends within a line", block)
			}
		}
		if !bytes.Equal(joined, content) {
			t.Errorf("%q came back as %q", content, joined)
		}
	})
}

// CSV never panics, an error has a line or is about the file, and records that were
// read come back unchanged when they are written and read again.
func FuzzCSV(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "a\n\"x\ny\n", "a\r\rb\r\n\"\r\n\"\n", "\"\"\n\n", "\"\ufeff\"\n\ufeff", "\n\na,b\n \\.,\\.\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		records, err := readCSV(t, content)
		if err != nil {
			if e, ok := errors.AsType[*sources.Error](err); !ok || e.Err == nil || strings.ContainsAny(err.Error(), "\r\n") {
				t.Fatalf("%T: %q", err, err)
			}
			return
		}
		if len(records) < 2 { // the names are not known
			return
		}
		again, err := readCSV(t, writeCSV(t, records))
		if !errors.Is(err, sources.ErrTooLarge) && (err != nil || !reflect.DeepEqual(again, records)) {
			t.Errorf("%q became %q (%v)", records, again, err)
		}
	})
}

// Any texts that are written come back: with any line ends, quotes, separators,
// empty fields, in any number of columns.
func FuzzCSVRecords(f *testing.F) {
	f.Add("", uint8(1))
	f.Add("\x00\x00a\x00\x00", uint8(1))
	f.Add("a\x00b\x00x\r\ny\x00\"\x00\r\x00\n\x00,\x00", uint8(2))
	f.Add("\ufeff\x00 \x00\\.\x00\u00a0", uint8(1))
	f.Fuzz(func(t *testing.T, joined string, columns uint8) {
		columns = columns%5 + 1
		fields := strings.Split(strings.ToValidUTF8(joined, "?"), "\x00")
		var records [][]string
		for ; len(fields) >= int(columns); fields = fields[columns:] {
			records = append(records, fields[:columns])
		}
		if len(records) < 2 {
			return
		}
		seen := map[string]bool{}
		for _, name := range records[0] {
			if seen[name] {
				return
			}
			seen[name] = true
		}
		again, err := readCSV(t, writeCSV(t, records))
		if !errors.Is(err, sources.ErrTooLarge) && (err != nil || !reflect.DeepEqual(again, records)) {
			t.Errorf("%q became %q (%v)", records, again, err)
		}
	})
}

func writeCSV(t *testing.T, records [][]string) []byte {
	var b bytes.Buffer
	w := sources.NewCSVWriter(&b)
	for _, record := range records {
		if err := w.Write(record); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// readCSV returns the names of the columns, if there is a record, and the
// records.
func readCSV(t *testing.T, content []byte) (records [][]string, err error) {
	for item, err := range sources.CSV(sources.Input{Name: "in", Reader: bytes.NewReader(content), MaxChunk: 10_000}, sources.CSVOptions{}) {
		if err != nil {
			return nil, err
		}
		h, err := abi.ReadHead(item)
		if err != nil || h.Major != abi.MajorMap || abi.CheckItem(item) != nil {
			t.Fatalf("%x", item)
		}
		item = item[h.Size:]
		var both [2][]string
		for i := range 2 * h.Arg {
			text, err := abi.ReadHead(item)
			if err != nil || text.Major != abi.MajorText {
				t.Fatalf("%x (%v)", item, err)
			}
			item = item[text.Size:]
			both[i%2] = append(both[i%2], string(item[:text.Arg]))
			item = item[text.Arg:]
		}
		if records == nil {
			records = append(records, both[0])
		}
		records = append(records, both[1])
	}
	return records, nil
}

func TestCSVWriter(t *testing.T) {
	var b bytes.Buffer
	w := sources.NewCSVWriter(&b)
	for _, record := range [][]string{{""}, {"", ""}, {" a", "b,", "c\"d", "\r\n", "\ufeff", `\.`, "\u00e9 x"}} {
		if err := w.Write(record); err != nil {
			t.Fatal(err)
		}
	}
	for _, record := range [][]string{{}, {"a", "\xff"}} {
		if err := w.Write(record); !errors.Is(err, sources.ErrMalformed) {
			t.Errorf("%q: %v", record, err)
		}
	}
	if err := w.Flush(); !errors.Is(err, sources.ErrMalformed) {
		t.Errorf("Flush: %v", err)
	}
	want := "\"\"\n,\n\" a\",\"b,\",\"c\"\"d\",\"\r\n\",\"\ufeff\",\"\\.\",\u00e9 x\n"
	if b.String() != want {
		t.Errorf("%q, want %q", b.String(), want)
	}
}
