package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func TestItemOfJSON(t *testing.T) {
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
		{`1e999`, "", "beyond floats"},
		{`{"hex": "4"}`, "", "odd length"},
		{`{"hex": "0000"}`, "", "no CBOR item"},
		{strings.Repeat("[", 300) + strings.Repeat("]", 300), "", "256"},
		{`1 2`, "", "more than one value"},
	} {
		got, err := itemOfJSON([]byte(tt.text))
		if hex.EncodeToString(got) != tt.want || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%.50s: got %x, %v; want %s, %q", tt.text, got, err, tt.want, tt.fails)
		}
	}
}

// What is written for people is read as the same bytes.
func FuzzItemJSON(f *testing.F) {
	for _, seed := range []string{"00", "f93c00", "fa3f800000", "a1636865786161", "a101f7", "5f4101ff", "61ff", "3bffffffffffffffff", "1800", "f97e00", "a16161c100", "fb7e37e43c8800759c", "6922085c0a7ffffefd20"} {
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
		text, rest := appendItemJSON(nil, item)
		got, err := itemOfJSON(text)
		if err != nil || !bytes.Equal(got, item) || len(rest) > 0 {
			t.Errorf("%x is written as %s, and that is read as %x, %v", item, text, got, err)
		}
		if len(diagnosisLines(item)) == 0 || len(diffItems(item, abi.Null)) == 0 {
			t.Errorf("%x has no lines", item)
		}
	})
}

// Items that are large, or nested in a way that gives lines of hundreds of times
// their size, are shown by the bytes around what differs.
func TestDiffOfLargeItems(t *testing.T) {
	nested := func(last byte) []byte {
		item := append(bytes.Repeat([]byte{0x81}, 200), abi.AppendHead(nil, abi.MajorArray, 1<<20)...)
		return append(append(item, make([]byte, 1<<20-1)...), last)
	}
	a, b := nested(1), nested(2)
	want := []string{"- bytes 1048772-1048780 of 1048781: 000000000000000001", "+ bytes 1048772-1048780 of 1048781: 000000000000000002"}
	if got := diffItems(a, b); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := diffItems(a, []byte{0}); len(got) != 2 || got[1] != "+ 0" {
		t.Errorf("a large item and 0: %q", got)
	}
	if got := diagnosisLines(a); len(got) != 1 || !strings.HasPrefix(got[0], "bytes 0-74 of 1048781: 8181") {
		t.Errorf("%d lines, of which the first is %.100q", len(got), got[0])
	}
}

func TestDiffItems(t *testing.T) {
	long := func(middle string) []byte {
		item, err := itemOfJSON([]byte(`{"first": "` + strings.Repeat("x", 40) + `", "list": ["` + strings.Repeat("y", 40) + `", ` + middle + `, "` + strings.Repeat("z", 40) + `"], "last": 1, "very last": 2, "not shown": 3}`))
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
		if got := strings.Join(diffItems(tt.want, tt.got), "\n"); got != string(tt.diff) {
			t.Errorf("got\n%s\nwant\n%s", got, tt.diff)
		}
	}
}

// Each seed has instances of its own, with memories: those of one are held.
func TestVectorsHoldOnePool(t *testing.T) {
	tester, err := openTester(t.Context(), &testOptions{module: "../../testdata/wasm/echo.wasm"})
	if err != nil {
		t.Fatal(err)
	}
	defer tester.close(t.Context())
	try := func(seed uint64) *runtime.Pool {
		v := &vector{Name: "v", Chunk: json.RawMessage("1"), inputs: [][]byte{{1}}, output: []byte{1}, seed: seed}
		if verdict, err := tester.try(t.Context(), v); err != nil || !verdict.OK {
			t.Fatalf("seed %d: %+v, %v", seed, verdict, err)
		}
		return tester.pool
	}
	first := try(1)
	if again := try(1); again != first {
		t.Error("a vector with the same seed has other instances")
	}
	if s := first.Stats(); s.Created == 0 || s.Closed == s.Created {
		t.Errorf("in use: %+v", s)
	}
	if second := try(2); second == first {
		t.Error("another seed has the same instances")
	}
	if s := first.Stats(); s.Closed != s.Created {
		t.Errorf("no longer in use: %+v", s)
	}
}
