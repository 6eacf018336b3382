package abi_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/wasm-jobs/wasm-jobs/abi"
)

// unhex returns the bytes of a hex string, which may contain blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	breakOutside = "break outside an item of indefinite length"
	badPart      = "a part of an indefinite string is not a definite string of its type"
)

func TestItemSize(t *testing.T) {
	tests := []struct {
		name   string
		hex    string
		size   int    // of the item; 0 = error
		reason string // of the syntax error; "" = io.ErrUnexpectedEOF
		offset int
	}{
		{"nothing", "", 0, "", 0},
		{"a small integer", "17", 1, "", 0},
		{"more may follow", "17 ff", 1, "", 0},
		{"heads of every width", "18ff", 2, "", 0},
		{"of two bytes", "39ffff", 3, "", 0},
		{"of four", "1affffffff", 5, "", 0},
		{"of eight", "1bffffffffffffffff", 9, "", 0},
		{"a head that ends early", "1bffffffffffffff", 0, "", 0},
		{"a head longer than needed", "1b0000000000000001", 9, "", 0},
		{"bytes", "43 010203", 4, "", 0},
		{"bytes that end early", "43 0102", 0, "", 0},
		{"bytes of a length above 63 bits", "5bffffffffffffffff 01", 0, "", 0},
		{"text is not checked for UTF-8", "61 ff", 2, "", 0},
		{"indefinite bytes", "5f 4101 40 ff", 5, "", 0},
		{"indefinite bytes of no parts", "5f ff", 2, "", 0},
		{"indefinite text", "7f 6161 ff", 4, "", 0},
		{"an indefinite string without its break", "5f 4101", 0, "", 0},
		{"a part of another type", "5f 6161 ff", 0, badPart, 1},
		{"a part that is indefinite itself", "7f 7fff ff", 0, badPart, 1},
		{"a part that is an integer", "5f 01", 0, badPart, 1},
		{"a part that ends early", "5f 4201", 0, "", 0},
		{"an empty array", "80", 1, "", 0},
		{"an array", "83 01 02 4100", 5, "", 0},
		{"an array that ends early", "83 01 02", 0, "", 0},
		{"an array of 2^64-1 items", "9bffffffffffffffff 01", 0, "", 0},
		{"an error within it comes first", "9bffffffffffffffff 01 1c", 0, "reserved additional information 28", 10},
		{"a break in a definite array", "82 01 ff", 0, breakOutside, 2},
		{"an indefinite array", "9f 01 9fff ff", 5, "", 0},
		{"an indefinite array without its break", "9f 01", 0, "", 0},
		{"an empty map", "a0", 1, "", 0},
		{"a map", "a1 01 02", 3, "", 0},
		{"a map without its last value", "a1 01", 0, "", 0},
		{"a map of 2^63 pairs", "bb8000000000000000 01 02", 0, "", 0},
		{"an error within it comes first", "bb8000000000000000 01 ff", 0, breakOutside, 10},
		{"keys may be duplicates", "a2 01 02 01 02", 5, "", 0},
		{"an indefinite map", "bf 01 02 ff", 4, "", 0},
		{"an indefinite map without a value", "bf 01 ff", 0, "a map ends between a key and its value", 2},
		{"a tag", "c1 00", 2, "", 0},
		{"a tag of nothing", "c1", 0, "", 0},
		{"a tag of a break", "c1 ff", 0, breakOutside, 1},
		{"simple values", "f4", 1, "", 0},
		{"an unassigned one", "e0", 1, "", 0},
		{"one in two bytes", "f820", 2, "", 0},
		{"one in two bytes that has a shorter form", "f81f", 0, "simple value 31 in two bytes", 0},
		{"half a float", "f97e00", 3, "", 0},
		{"a float", "fb7ff8000000000000", 9, "", 0},
		{"a break", "ff", 0, breakOutside, 0},
		{"reserved information", "fc", 0, "reserved additional information 28", 0},
		{"an indefinite integer", "1f", 0, "reserved additional information 31", 0},
		{"an indefinite tag", "df", 0, "reserved additional information 31", 0},
		{"the deepest array", strings.Repeat("81", 256) + "00", 257, "", 0},
		{"one deeper", strings.Repeat("81", 257) + "00", 0, "more than 256 levels of nesting", 256},
		{"one deeper and indefinite", strings.Repeat("9f", 257) + "00", 0, "more than 256 levels of nesting", 256},
		{"the deepest tags", strings.Repeat("c1", 256) + "00", 257, "", 0},
		{"tags one deeper", strings.Repeat("c1", 257) + "00", 0, "more than 256 levels of nesting", 256},
		{"maps one deeper", strings.Repeat("a100", 257) + "00", 0, "more than 256 levels of nesting", 512},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			size, err := abi.ItemSize(unhex(t, tt.hex))
			syntax, isSyntax := errors.AsType[*abi.SyntaxError](err)
			switch {
			case tt.size > 0:
				if size != tt.size || err != nil {
					t.Errorf("got %d, %v; want %d", size, err, tt.size)
				}
			case tt.reason == "":
				if err != io.ErrUnexpectedEOF {
					t.Errorf("got %d, %v; want %v", size, err, io.ErrUnexpectedEOF)
				}
			case !isSyntax || syntax.Reason != tt.reason || syntax.Offset != tt.offset:
				t.Errorf("got %d, %v; want %q at byte %d", size, err, tt.reason, tt.offset)
			}
		})
	}
}

func TestItemSizeAllocatesNothing(t *testing.T) {
	item := unhex(t, "83 a1626964 01 5f4101ff 9f0102ff")
	if n := testing.AllocsPerRun(100, func() { _, _ = abi.ItemSize(item) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestReadHead(t *testing.T) {
	for name, tt := range map[string]struct {
		hex  string
		want abi.Head
		err  error
	}{
		"nothing":             {"", abi.Head{}, io.ErrUnexpectedEOF},
		"a cut argument":      {"19ff", abi.Head{}, io.ErrUnexpectedEOF},
		"an integer":          {"00", abi.Head{Size: 1}, nil},
		"a negative integer":  {"3903e7", abi.Head{Major: abi.MajorNegint, Arg: 999, Size: 3}, nil},
		"an indefinite array": {"9f", abi.Head{Major: abi.MajorArray, Indefinite: true, Size: 1}, nil},
		"a map of many":       {"ba00010000", abi.Head{Major: abi.MajorMap, Arg: 1 << 16, Size: 5}, nil},
		"a long text":         {"7bffffffffffffffff", abi.Head{Major: abi.MajorText, Arg: 1<<64 - 1, Size: 9}, nil},
	} {
		if got, err := abi.ReadHead(unhex(t, tt.hex)); got != tt.want || err != tt.err {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	syntax := new(abi.SyntaxError)
	if _, err := abi.ReadHead([]byte{0xff}); !errors.As(err, &syntax) {
		t.Errorf("a break: %v", err)
	}
}

func TestAppendHeadIsShortestAndReadBack(t *testing.T) {
	for _, arg := range []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1<<64 - 1} {
		want, err := cbor.Marshal(arg)
		if err != nil {
			t.Fatal(err)
		}
		if got := abi.AppendHead(nil, abi.MajorUint, arg); !bytes.Equal(got, want) {
			t.Errorf("%d: %x, want %x", arg, got, want)
		}
		for major := abi.MajorUint; major <= abi.MajorTag; major++ {
			b := abi.AppendHead([]byte("x"), major, arg)
			h, err := abi.ReadHead(b[1:])
			if want := (abi.Head{Major: major, Arg: arg, Size: len(b) - 1}); h != want || err != nil {
				t.Errorf("major %d, argument %d: read back as %+v, %v", major, arg, h, err)
			}
		}
	}
}

func TestCheckItem(t *testing.T) {
	for _, tt := range []struct{ hex, want string }{
		{"", "empty: not a CBOR item"},
		{"f6", ""},
		{"8201", "truncated: the CBOR item does not end within its 2 bytes"},
		{"0102 03", "2 more bytes after the CBOR item that ends at byte 1"},
		{"82 01 fc", "reserved additional information 28 at byte 2"},
	} {
		got := ""
		if err := abi.CheckItem(unhex(t, tt.hex)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.hex, got, tt.want)
		}
	}
}

func TestFindID(t *testing.T) {
	tests := []struct {
		name string
		hex  string
		key  string
		want abi.ID
		ok   bool
		err  error
	}{
		{"no map", "01", "id", abi.ID{}, false, nil},
		{"an array", "82 62696401", "id", abi.ID{}, false, nil},
		{"a tagged map", "c1 a162696401", "id", abi.ID{}, false, nil},
		{"an empty map", "a0", "id", abi.ID{}, false, nil},
		{"an empty indefinite map", "bfff", "id", abi.ID{}, false, nil},
		{"a map without the key", "a1 616b 01", "id", abi.ID{}, false, nil},
		{"an integer", "a1 626964 1903e8", "id", abi.IntID(1000), true, nil},
		{"the largest integer", "a1 626964 1bffffffffffffffff", "id", abi.IntID(1<<64 - 1), true, nil},
		{"an integer in a longer form", "a1 626964 1b0000000000000001", "id", abi.IntID(1), true, nil},
		{"a text", "a1 626964 6161", "id", abi.TextID("a"), true, nil},
		{"an empty text", "a1 626964 60", "id", abi.TextID(""), true, nil},
		{"a text in parts", "a1 626964 7f 6161 60 6162 ff", "id", abi.TextID("ab"), true, nil},
		{"a key in parts", "a1 7f 6169 6164 ff 05", "id", abi.IntID(5), true, nil},
		{"a key in a longer form", "a1 7b0000000000000002 6964 05", "id", abi.IntID(5), true, nil},
		{"after other keys", "a3 01 02 80 a0 626964 05", "id", abi.IntID(5), true, nil},
		{"an indefinite map", "bf 626964 05 01 02 ff", "id", abi.IntID(5), true, nil},
		{"only at the top", "a1 01 a1 626964 05", "id", abi.ID{}, false, nil},
		{"a value is not a key", "a1 01 626964", "id", abi.ID{}, false, nil},
		{"a key of bytes is not a text", "a1 426964 05", "id", abi.ID{}, false, nil},
		{"another key", "a2 626964 01 616b 02", "k", abi.IntID(2), true, nil},
		{"the empty key", "a1 60 02", "", abi.IntID(2), true, nil},
		{"a negative integer", "a1 626964 20", "id", abi.ID{}, false, abi.ErrIDType},
		{"bytes", "a1 626964 4101", "id", abi.ID{}, false, abi.ErrIDType},
		{"null", "a1 626964 f6", "id", abi.ID{}, false, abi.ErrIDType},
		{"a tagged integer", "a1 626964 c101", "id", abi.ID{}, false, abi.ErrIDType},
		{"text that is not UTF-8", "a1 626964 61ff", "id", abi.ID{}, false, abi.ErrIDType},
		{"a part that is not UTF-8", "a1 626964 7f 61c3 61a9 ff", "id", abi.ID{}, false, abi.ErrIDType},
		{"the key twice", "a2 626964 01 626964 01", "id", abi.ID{}, false, abi.ErrIDTwice},
		{"the key twice in two forms", "a2 626964 01 7f626964ff 02", "id", abi.ID{}, false, abi.ErrIDTwice},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			chunk := unhex(t, tt.hex)
			if err := abi.CheckItem(chunk); err != nil {
				t.Fatal(err)
			}
			got, ok, err := abi.FindID(chunk, tt.key)
			if ok != tt.ok || err != tt.err || ok && got != tt.want {
				t.Errorf("got %v, %v, %v; want %v, %v, %v", got, ok, err, tt.want, tt.ok, tt.err)
			}
		})
	}
}

// reference decodes without limits, and refuses duplicate keys.
var reference = func() cbor.DecMode {
	mode, err := cbor.DecOptions{
		MaxNestedLevels: 65535, MaxArrayElements: 1<<31 - 1, MaxMapPairs: 1<<31 - 1, DupMapKey: cbor.DupMapKeyEnforcedAPF,
	}.DecMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func seedItems(f *testing.F, add func([]byte)) {
	for _, s := range []string{"", "00", "1bffffffffffffffff", "5f4101ff", "7f6161ff", "83010203", "9f01ff", "a10102",
		"bf0102ff", "bf01ff", "c100", "f820", "f81f", "ff", "fc", "9bffffffffffffffff01", "bb800000000000000001ff",
		"a162696401", "a26269640162696402", "a17f61696164ff7f6178ff", strings.Repeat("81", 256) + "00", strings.Repeat("81", 257) + "00"} {
		add(unhex(f, s))
	}
}

// FuzzItemSize compares with fxamacker/cbor. That package counts levels of
// nesting differently (the first of several tags is free), so items that are
// refused only for their nesting are compared without the limit.
func FuzzItemSize(f *testing.F) {
	seedItems(f, func(b []byte) { f.Add(b) })
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := abi.ItemSize(data)
		syntax, isSyntax := errors.AsType[*abi.SyntaxError](err)
		switch {
		case err == nil:
			checkAccepted(t, data, n)
		case isSyntax:
			checkMalformed(t, data, syntax)
		case err != io.ErrUnexpectedEOF:
			t.Fatalf("%x: %T %v", data, err, err)
		case reference.Wellformed(data) == nil:
			t.Fatalf("%x: truncated, but well-formed by the reference", data)
		}
		if (abi.CheckItem(data) == nil) != (err == nil && n == len(data)) {
			t.Fatalf("%x: CheckItem and ItemSize differ", data)
		}
	})
}

func checkAccepted(t *testing.T, data []byte, n int) {
	if n < 1 || n > len(data) {
		t.Fatalf("%x: size %d", data, n)
	}
	if err := reference.Wellformed(data[:n]); err != nil {
		t.Fatalf("%x: accepted, but %v", data[:n], err)
	}
	for _, cut := range []int{0, n / 2, n - 1} {
		if _, err := abi.ItemSize(data[:cut]); err != io.ErrUnexpectedEOF {
			t.Fatalf("%x cut at %d: %v", data[:n], cut, err)
		}
	}
}

// checkMalformed checks that more input does not help, and that the offset of
// the error lies within data.
func checkMalformed(t *testing.T, data []byte, syntax *abi.SyntaxError) {
	if syntax.Offset < 0 || syntax.Offset >= len(data) {
		t.Fatalf("%x: offset %d", data, syntax.Offset)
	}
	_, err := abi.ItemSize(append(bytes.Clone(data), 0, 0xff, 0xff, 0xff))
	if again, ok := errors.AsType[*abi.SyntaxError](err); !ok || *again != *syntax {
		t.Fatalf("%x: %v, and with more bytes %v", data, syntax, err)
	}
	if !strings.Contains(syntax.Reason, "nesting") && reference.Wellformed(data) == nil {
		t.Fatalf("%x: %v, but well-formed by the reference", data, syntax)
	}
}

// FuzzFindID compares with a decoded map. It skips chunks that the reference
// cannot decode: maps with a duplicate key, and text that is not UTF-8.
func FuzzFindID(f *testing.F) {
	seedItems(f, func(b []byte) { f.Add(b, "id") })
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		if abi.CheckItem(data) != nil {
			return
		}
		id, ok, err := abi.FindID(data, key)
		if err != nil && (ok || err != abi.ErrIDTwice && err != abi.ErrIDType) {
			t.Fatalf("%x: %v, %v", data, ok, err)
		}
		var decoded map[any]any
		if data[0]>>5 != abi.MajorMap || reference.Unmarshal(data, &decoded) != nil {
			if data[0]>>5 != abi.MajorMap && (ok || err != nil) {
				t.Fatalf("%x: not a map, but %v, %v, %v", data, id, ok, err)
			}
			return
		}
		value, has := decoded[key]
		checkFound(t, data, value, has, id, ok, err)
	})
}

func checkFound(t *testing.T, data []byte, value any, has bool, id abi.ID, ok bool, err error) {
	var want abi.ID
	wantOK, wantErr := false, error(nil)
	switch v := value.(type) {
	case uint64:
		want, wantOK = abi.IntID(v), true
	case string:
		want, wantOK = abi.TextID(v), true
	default:
		if has {
			wantErr = abi.ErrIDType
		}
	}
	if ok != wantOK || err != wantErr || ok && id != want {
		t.Fatalf("%x: %v, %v, %v; want %v, %v, %v", data, id, ok, err, want, wantOK, wantErr)
	}
}
