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

// Whatever JSON is taken says, as CBOR, what another reader of JSON sees in it;
// and what is refused is no JSON or one of the documented exceptions.
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
			t.Fatalf("%q was taken, and is no JSON: %v", value, err)
		}
		if err := modes.Unmarshal(got, &read); err != nil {
			t.Fatalf("%q became %x: %v", value, got, err)
		}
		if !reflect.DeepEqual(plain(read), plain(want)) {
			t.Errorf("%q became %v, want %v", value, plain(read), plain(want))
		}
	})
}

// plain makes what both readers give the same types: integers of any size are
// texts with a mark, and other numbers doubles.
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

// All lines, joined, are the input; but for the last, a chunk ends with a line;
// and none is larger than asked for, but for a single line.
func FuzzLines(f *testing.F) {
	f.Add([]byte(""), uint8(0), uint8(0))
	f.Add([]byte("a\nbb\n\nccc"), uint8(2), uint8(0))
	f.Add([]byte("a\nbb\n\nccc\xff\n"), uint8(0), uint8(3))
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
			count := bytes.Count(block, []byte("\n"))
			if size > 0 && len(block) > int(size) && bytes.IndexByte(block, '\n') < len(block)-1 && count > 0 {
				t.Errorf("%q is larger than %d bytes", block, size)
			}
			if size == 0 && count > max(1, int(lines)) {
				t.Errorf("%q has more than %d lines", block, lines)
			}
			joined = append(joined, block...)
			if block[len(block)-1] != '\n' && len(joined) != len(content) {
				t.Errorf("%q ends within a line", block)
			}
		}
		if !bytes.Equal(joined, content) {
			t.Errorf("%q came back as %q", content, joined)
		}
	})
}

// CSV never panics, and an error has a line or is about the file.
func FuzzCSV(f *testing.F) {
	f.Add([]byte("a,b\n1,2\n"))
	f.Add([]byte("a\n\"x\ny\n"))
	f.Fuzz(func(t *testing.T, content []byte) {
		for item, err := range sources.CSV(sources.Input{Name: "in", Reader: bytes.NewReader(content), MaxChunk: 1000}, sources.CSVOptions{}) {
			if err != nil {
				if e, ok := errors.AsType[*sources.Error](err); !ok || e.Err == nil || strings.ContainsAny(err.Error(), "\r\n") {
					t.Fatalf("%T: %q", err, err)
				}
				return
			}
			if err := abi.CheckItem(item); err != nil || item[0]>>5 != abi.MajorMap {
				t.Fatalf("%x: %v", item, err)
			}
		}
	})
}
