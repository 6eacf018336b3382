package notation

import (
	"bytes"
	"encoding/hex"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestParseExact(t *testing.T) {
	for _, tt := range []struct{ text, want, fails string }{
		{`null`, "f6", ""},
		{`[]`, "80", ""},
		{`{"b": 1, "a": [-1, 1.0, "x", true, false]}`, "a261620161618520f93c006178f5f4", ""},
		{`18446744073709551615`, "1bffffffffffffffff", ""},
		{`-18446744073709551616`, "3bffffffffffffffff", ""},
		{`1e3`, "f963d0", ""},
		{`0.1`, "fb3fb999999999999a", ""},
		{`{"hex": "f7"}`, "f7", ""},
		{`[{"hex": "42 01 02"}]`, "81420102", ""},
		{`{"hex": 1}`, "a16368657801", ""},
		{`{"hex": "f7", "a": 1}`, "a263686578626637616101", ""},
		{`{"a": 1, "hex": "f7"}`, "a261610163686578626637", ""},
		{`18446744073709551616`, "", "write it in hex"},
		{`1e999`, "", "too large for a 64-bit float"},
		{`{"hex": "4"}`, "", "odd length"},
		{`{"hex": "0000"}`, "", "invalid CBOR item"},
		{strings.Repeat("[", 300) + strings.Repeat("]", 300), "", "256"},
		{`1 2`, "", "more than one value"},
	} {
		got, err := ParseExact([]byte(tt.text))
		if hex.EncodeToString(got) != tt.want || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%.50s: got %x, %v; want %s, %q", tt.text, got, err, tt.want, tt.fails)
		}
	}
}

// The exact form is read back as the same bytes.
func FuzzExact(f *testing.F) {
	for _, seed := range []string{"00", "f93c00", "fa3f800000", "a1636865786161", "a101f7", "5f4101ff", "61ff", "3bffffffffffffffff", "1800", "f97e00", "a16161c100", "fb7e37e43c8800759c", "6922085c0a7ffffefd20", "a2616100616101", "a1636865786161"} {
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
		text := AppendExact(nil, item)
		got, err := ParseExact(text)
		if err != nil || !bytes.Equal(got, item) {
			t.Errorf("%x is written as %s, and that is read as %x, %v", item, text, got, err)
		}
		if len(Lines(item)) == 0 || len(Diff(item, abi.Null)) == 0 {
			t.Errorf("%x has no lines", item)
		}
	})
}

// Items that are large, or nested so that their lines would take hundreds of times
// their size, are shown as the bytes around the difference.
func TestDiffOfLargeItems(t *testing.T) {
	nested := func(last byte) []byte {
		item := append(bytes.Repeat([]byte{0x81}, 200), abi.AppendHead(nil, abi.MajorArray, 1<<20)...)
		return append(append(item, make([]byte, 1<<20-1)...), last)
	}
	a, b := nested(1), nested(2)
	want := []string{"- bytes 1048772-1048780 of 1048781: 000000000000000001", "+ bytes 1048772-1048780 of 1048781: 000000000000000002"}
	if got := Diff(a, b); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := Diff(a, []byte{0}); len(got) != 2 || got[1] != "+ 0" {
		t.Errorf("a large item and 0: %q", got)
	}
	if got := Lines(a); len(got) != 1 || !strings.HasPrefix(got[0], "bytes 0-74 of 1048781: 8181") {
		t.Errorf("%d lines, the first is %.100q", len(got), got[0])
	}
}

func TestDiffItems(t *testing.T) {
	long := func(middle string) []byte {
		item, err := ParseExact([]byte(`{"first": "` + strings.Repeat("x", 40) + `", "list": ["` + strings.Repeat("y", 40) + `", ` + middle + `, "` + strings.Repeat("z", 40) + `"], "last": 1, "very last": 2, "not shown": 3}`))
		if err != nil {
			t.Fatal(err)
		}
		return item
	}
	for _, tt := range []struct{ want, got, diff []byte }{
		{[]byte{4}, []byte{5}, []byte("- 4\n+ 5")},
		{[]byte{4}, []byte{0x18, 4}, []byte("- h'04'\n+ h'1804'")},
		{long("1"), long("2"), []byte("    \"list\": [\n      \"" + strings.Repeat("y", 40) + "\",\n-     1,\n+     2,\n      \"" + strings.Repeat("z", 40) + "\"\n    ],")},
	} {
		if got := strings.Join(Diff(tt.want, tt.got), "\n"); got != string(tt.diff) {
			t.Errorf("got\n%s\nwant\n%s", got, tt.diff)
		}
	}
}
