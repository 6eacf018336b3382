package guestexamples_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestSquareC(t *testing.T)   { testSquare(t, loadFile(t, "square/c/square.wasm"), true) }
func TestSquareWAT(t *testing.T) { testSquare(t, loadFile(t, "square/wat/square.wasm"), false) }
func TestSquareGo(t *testing.T)  { testSquare(t, goGuest(t, "square"), true) }

func testSquare(t *testing.T, g *guest, maps bool) {
	for _, tt := range []struct{ chunk, want, fails string }{
		{"00", "00", ""},
		{"04", "10", ""},
		{"05", "1819", ""},
		{"20", "01", ""},
		{"23", "10", ""},
		{"10", "190100", ""},
		{"1818", "190240", ""},
		{"19 00ff", "19fe01", ""},
		{"1a 00000100", "1a00010000", ""},
		{"1b 0000000000010000", "1b0000000100000000", ""},
		{"38 ff", "1a00010000", ""},
		{"1a ffffffff", "1bfffffffe00000001", ""},
		{"3a fffffffe", "1bfffffffe00000001", ""},
		{"1b 0000000100000000", "", "overflow"},
		{"3a ffffffff", "", "overflow"},
		{"1b ffffffffffffffff", "", "overflow"},
		{"3b 7fffffffffffffff", "", "overflow"},
		{"3b ffffffffffffffff", "", "overflow"},
		{"61 31", "", "not an integer"},
		{"f6", "", "not an integer"},
		{"f9 4200", "", "not an integer"},
		{"81 03", "", "not an integer"},
		{"c2 41 03", "", "not an integer"},
		{"a0", "", "not an integer"},
		{"a1 616e 6131", "", "not an integer"},
		{"a2 616e 01 616e 02", "", "not an integer"},
		{"a1 616e 05", "1819", "maps"},
		{"a2 626964 01 616e 24", "1819", "maps"},
		{"a2 616e 24 626964 6178", "1819", "maps"},
		{"bf 626964 7f 6178 ff 7f 616e ff 05 ff", "1819", "maps"},
		{"a2 6178 9f a1 0102 bf ff 5f 41ff ff ff 616e 05", "1819", "maps"},
		{"a1 616e 1b 0000000100000000", "", "overflow"},
	} {
		chunk := unhex(t, tt.chunk)
		output, err := g.run(t.Context(), &call{}, abi.ExportExec, chunk)
		want, fails := unhex(t, tt.want), tt.fails
		switch {
		case fails == "maps" && maps:
			fails = ""
		case chunk[0]>>5 == abi.MajorMap && !maps:
			want, fails = nil, "not an integer"
		}
		if !bytes.Equal(output, want) || fails == "" && err != nil || fails != "" && err != (failure{abi.FailPermanent, fails}) {
			t.Errorf("%s: got %x, %v; want %s, %q", tt.chunk, output, err, tt.want, fails)
		}
	}
	testSums(t, g)
}

func testSums(t *testing.T, g *guest) {
	big := unhex(t, "1bfffffffe00000001")
	textIDs := abi.AppendEntry(abi.AppendEntry([]byte{0x82}, abi.IntID(1<<40), []byte{1}), abi.TextID(strings.Repeat("x", 300)), []byte{2})
	for _, tt := range []struct {
		export string
		input  []byte
		want   string
		fails  error
	}{
		{abi.ExportAggregate, entries(), "00", nil},
		{abi.ExportAggregate, entries([]byte{4}, []byte{9}, unhex(t, "1903e8")), "1903f5", nil},
		{abi.ExportAggregate, textIDs, "03", nil},
		{abi.ExportAggregate, entries(big), "1bfffffffe00000001", nil},
		{abi.ExportAggregate, entries(big, big), "", failure{abi.FailPermanent, "overflow"}},
		{abi.ExportAggregate, entries([]byte{0x61, 'a'}), "", failure{abi.FailPermanent, "not an integer"}},
		{abi.ExportMerge, array([]byte{4}, []byte{9}), "0d", nil},
		{abi.ExportMerge, array(big, big), "", failure{abi.FailPermanent, "overflow"}},
	} {
		output, err := g.run(t.Context(), &call{}, tt.export, tt.input)
		if f, ok := err.(failure); ok && strings.Contains(f.message, "want an integer") {
			err = failure{f.kind, "not an integer"} // the text of the SDK for Go
		}
		if !bytes.Equal(output, unhex(t, tt.want)) || err != tt.fails {
			t.Errorf("%s of %x: got %x, %v; want %s, %v", tt.export, tt.input, output, err, tt.want, tt.fails)
		}
	}
	many := make([][]byte, 10_000)
	for i := range many {
		many[i] = []byte{1}
	}
	if got := g.must(t, abi.ExportAggregate, entries(many...)); !bytes.Equal(got, unhex(t, "192710")) {
		t.Errorf("aggregate of 10,000 ones: %x", got)
	}
}
