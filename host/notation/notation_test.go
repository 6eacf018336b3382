package notation_test

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

func Example() {
	item, err := notation.AppendItem(nil, []byte(`{"a": [1, 2.5]}`))
	if err != nil {
		fmt.Println(err)
		return
	}
	w := bufio.NewWriter(os.Stdout)
	if err := notation.WriteJSON(w, item); err != nil {
		fmt.Println(err)
	}
	w.Flush()
	// Output: {"a":[1,2.5]}
}

// jsonOf returns an item, given in hex, as JSON.
func jsonOf(t testing.TB, text string) (string, error) {
	t.Helper()
	item, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	if err := abi.CheckItem(item); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	err = notation.WriteJSON(w, item)
	w.Flush()
	return b.String(), err
}

func TestWriteJSON(t *testing.T) {
	for item, want := range map[string]string{
		"a0": `{}`, "00": `0`, "3bffffffffffffffff": `-18446744073709551616`, "43616263": `"YWJj"`, "f93c00": `1.0`, "f97e00": `null`, "f7": `null`,
		"c249010000000000000000": `18446744073709551616`, "d8206161": `"a"`, "7f61616162ff": `"ab"`, "9f0102ff": `[1,2]`, "bf616101ff": `{"a":1}`,
		"a2 01 02 6132 6133": `{"1":2,"2":"3"}`, "a2 6161 a1 6161 01 6162 02": `{"a":{"a":1},"b":2}`, "a1 8101 00": `{"[1]":0}`,
		"6122": `"\""`, "63e28ba0": "\"\u22e0\"", "62000a": `"\u0000\n"`,
	} {
		if got, err := jsonOf(t, item); err != nil || got != want {
			t.Errorf("%s: got %s, %v; want %s", item, got, err, want)
		}
	}
}

// Keys that differ in CBOR but not in JSON are refused at any depth, and so are
// texts that are not UTF-8.
func TestWhatJSONCannotKeep(t *testing.T) {
	many := strings.Builder{} // 300 keys; the last is the first one as a text
	many.WriteString("b9012d")
	for i := range 300 {
		fmt.Fprintf(&many, "19%04x00", i)
	}
	many.WriteString("613000")
	for item, want := range map[string]string{
		"a2 01 02 6131 6133":                `cannot be written as JSON: duplicate key "1" in a map`,
		"a2 6161 01 6161 02":                `cannot be written as JSON: duplicate key "a" in a map`,
		"bf 6161 01 7f6161ff 02 ff":         `cannot be written as JSON: duplicate key "a" in a map`,
		"a2 43616263 00 6459574a6a 00":      `cannot be written as JSON: duplicate key "YWJj" in a map`,
		"a2 f6 00 f7 00":                    `cannot be written as JSON: duplicate key "null" in a map`,
		"a2 01 00 c101 00":                  `cannot be written as JSON: duplicate key "1" in a map`,
		"a2 8101 00 635b315d 00":            `cannot be written as JSON: duplicate key "[1]" in a map`,
		"81 a1 6161 a2 f5 00 6474727565 00": `cannot be written as JSON: duplicate key "true" in a map`,
		"a1 a2 01 00 6131 00 00":            `cannot be written as JSON: duplicate key "1" in a map`,
		many.String():                       `cannot be written as JSON: duplicate key "0" in a map`,
		"61ff":                              `cannot be written as JSON: a text is not UTF-8: "\xff"`,
		"a1 61ff 00":                        `cannot be written as JSON: a text is not UTF-8: "\xff"`,
		"a1 8161ff 00":                      `cannot be written as JSON: a text is not UTF-8: "\xff"`,
		"82 00 7f 6161 61ff ff":             `cannot be written as JSON: a text is not UTF-8: "a\xff"`,
	} {
		_, err := jsonOf(t, item)
		_, ok := errors.AsType[*notation.FormError](err)
		if !ok || err.Error() != want {
			t.Errorf("%.60s: got %v, want %s", item, err, want)
		}
	}
}

// FuzzWriteJSON: the output is one valid value without duplicate keys, and
// AppendItem reads it.
func FuzzWriteJSON(f *testing.F) {
	for _, seed := range []string{"00", "a2010261316133", "a1a1616100a0", "bf616101ff", "5f4101ff", "61ff", "f97e00", "c25f41014100ff", "a2f600f700", "a18200f500", "a1a2010061310000"} {
		b, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, item []byte) {
		if abi.CheckItem(item) != nil {
			return
		}
		text, err := jsonOf(t, hex.EncodeToString(item))
		if err != nil {
			if _, ok := errors.AsType[*notation.FormError](err); !ok || strings.Contains(err.Error(), "\n") {
				t.Errorf("%x: error %v", item, err)
			}
			return
		}
		if !json.Valid([]byte(text)) || strings.Contains(text, "\n") {
			t.Fatalf("%x is written as %s", item, text)
		}
		again, err := notation.AppendItem(nil, []byte(text)) // refuses duplicate keys
		if err != nil {
			t.Fatalf("%x is written as %s, which is refused: %v", item, text, err)
		}
		if twice, err := jsonOf(t, hex.EncodeToString(again)); err != nil || twice != text {
			t.Errorf("%s is read as %x and written as %s, %v", text, again, twice, err)
		}
	})
}

func TestAppendItem(t *testing.T) {
	for _, tt := range []struct{ text, want, fails string }{
		{"", "", "empty"}, {"\xff", "", "not UTF-8"}, {"[", "", "ends within a value"}, {"1 2", "", "more than one value"}, {`{"a":1,"\u0061":2}`, "", `duplicate key "a"`},
		{`"\ud800"`, "", "surrogate"}, {"1e999", "", "too large for a 64-bit float"}, {strings.Repeat("[", 257) + strings.Repeat("]", 257), "", "more than 256 levels"},
		{"-0", "f98000", ""}, {"0", "00", ""}, {"-1", "20", ""}, {"18446744073709551616", "c249010000000000000000", ""}, {`{"hex":"f7"}`, "a1636865786266 37", ""}, {"1.5", "f93e00", ""},
	} {
		got, err := notation.AppendItem(nil, []byte(tt.text))
		if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) || err == nil && hex.EncodeToString(got) != strings.ReplaceAll(tt.want, " ", "") {
			t.Errorf("%.50s: got %x, %v; want %s, %q", tt.text, got, err, tt.want, tt.fails)
		}
	}
}

func TestCell(t *testing.T) {
	for in, want := range map[string]string{
		"\x43abc": "YWJj", "\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00": "18446744073709551616", "\xc3\x41\x00": "-1",
		"\xc0\x61t": "t", "\xf9\x7e\x00": "", "\x7f\x61a\x61b\xff": "ab", "\xf9\x3c\x00": "1.0", "\xc2\x5f\x41\x01\x41\x00\xff": "256",
	} {
		if got, err := notation.Cell([]byte(in)); err != nil || got != want {
			t.Errorf("%x is the cell %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"\x61\xff", "\xc0\x61\xff", "\xa2\x01\x00\x611\x00"} {
		if got, err := notation.Cell([]byte(in)); err == nil {
			t.Errorf("%x is the cell %q", in, got)
		}
	}
}

// An item that JSON cannot represent leaves no output, however large it is.
func TestWriteJSONWritesAllOrNothing(t *testing.T) {
	for _, n := range []uint64{1, 1000, 1 << 19, 3 << 20} {
		for _, last := range []string{"\x61a", "\x61\xff"} {
			item := abi.AppendHead(nil, abi.MajorArray, n+1)
			for range n {
				item = append(item, 0x0a)
			}
			item = append(item, last...)
			var b bytes.Buffer
			w := bufio.NewWriter(&b)
			err := notation.WriteJSON(w, item)
			w.Flush()
			if want := "[" + strings.Repeat("10,", int(n)) + `"a"]`; last == "\x61a" && (err != nil || b.String() != want) {
				t.Errorf("%d elements: %d bytes, %v", n, b.Len(), err)
			}
			if last != "\x61a" && (err == nil || b.Len() > 0) {
				t.Errorf("%d elements: %d bytes are written, %v", n, b.Len(), err)
			}
		}
	}
}
