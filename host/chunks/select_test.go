package chunks_test

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func ids(t testing.TB, list string) abi.IDSet {
	t.Helper()
	set, err := abi.ParseIDs(list)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func choose(t testing.TB, f *chunks.File, list string) *chunks.File {
	t.Helper()
	selection, err := f.Select(t.Context(), ids(t, list))
	if err != nil {
		t.Fatal(err)
	}
	return selection
}

func TestSelect(t *testing.T) {
	const ascending = "05 06 07 08" // ids 0 to 3
	const mixed = ax + "a1626964 1863" + a2 + a1 + "a1626964 6179" + "a1626964 1bffffffffffffffff"
	tests := []struct{ name, hex, set, want, positions, missing string }{
		{"nothing of an empty file", "", "", "", "", ""},
		{"something of an empty file", "", "0-4,a", "", "", `0-4,"a"`},
		{"nothing", ascending, "", "", "", ""},
		{"no chunk", ascending, "4-18446744073709551615", "", "", "4-18446744073709551615"},
		{"all", ascending, "0-3", "0=05 1=06 2=07 3=08", "0 1 2 3", ""},
		{"more than all", ascending, "0-18446744073709551615,a", "0=05 1=06 2=07 3=08", "0 1 2 3", `4-18446744073709551615,"a"`},
		{"the first", ascending, "0", "0=05", "0", ""},
		{"the last", ascending, "3", "3=08", "3", ""},
		{"a few", ascending, "1-2,7", "1=06 2=07", "1 2", "7"},
		{"with gaps", ascending, "0,2,3", "0=05 2=07 3=08", "0 2 3", ""},
		{"texts are not integers", ascending, `"1",a`, "", "", `"1","a"`},
		{"one of a file in another order", mixed, "2", "2=a162696402", "2", ""},
		{"integers of a file in another order", mixed, "1-99", "1=a162696401 2=a162696402 99=a16269641863", "3 2 1", "3-98"},
		{"texts", mixed, "x,y,z", `"x"=a16269646178 "y"=a16269646179`, "0 4", `"z"`},
		{"integers and texts", mixed, "0,y,2-5", `2=a162696402 "y"=a16269646179`, "2 4", "0,3-5"},
		{"the largest id", mixed, "18446744073709551614-18446744073709551615", "18446744073709551615=a16269641bffffffffffffffff", "5", "18446744073709551614"},
		{"all of a file in another order", mixed, "0-18446744073709551615,x,y",
			`1=a162696401 2=a162696402 99=a16269641863 18446744073709551615=a16269641bffffffffffffffff "x"=a16269646178 "y"=a16269646179`,
			"3 2 1 5 0 4", "0,3-98,100-18446744073709551614"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			whole, err := open(t, unhex(t, tt.hex), chunks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			before := dump(t, whole)
			f := choose(t, whole, tt.set)
			if got := strings.Join(dump(t, f), " "); got != tt.want {
				t.Errorf("chunks %s\nwant %s", got, tt.want)
			}
			if got := positions(f); got != tt.positions {
				t.Errorf("positions %s, want %s", got, tt.positions)
			}
			if f.Digest() != naiveDigest(t, f) {
				t.Error("the digest differs from the definition")
			}
			if (f.Digest() == whole.Digest()) != (f.Len() == whole.Len()) {
				t.Error("the digest must equal the file's exactly if all chunks are selected")
			}
			if got := whole.Count(ids(t, tt.set)); got != f.Len() {
				t.Errorf("Count %d, but %d chunks are selected", got, f.Len())
			}
			if got := whole.Missing(ids(t, tt.set)).String(); got != tt.missing {
				t.Errorf("missing %s, want %s", got, tt.missing)
			}
			if err := f.Unchanged(); err != nil {
				t.Error(err)
			}
			if !slices.Equal(dump(t, whole), before) {
				t.Error("the file itself became another")
			}
		})
	}
}

func positions(f *chunks.File) string {
	var all []string
	for i := range f.Len() {
		all = append(all, strconv.Itoa(f.Position(i)))
	}
	return strings.Join(all, " ")
}

func TestSelectionsOfSelections(t *testing.T) {
	whole, err := open(t, unhex(t, a2+"07"+ax+"08"), chunks.Options{}) // ids 2, 1, "x", 3
	if err != nil {
		t.Fatal(err)
	}
	first := choose(t, whole, "1-2,x")
	second := choose(t, first, "2-3,x")
	if got := strings.Join(dump(t, second), " "); got != `2=a162696402 "x"=a16269646178` || positions(second) != "0 2" {
		t.Errorf("%s at %s", got, positions(second))
	}
	if second.Digest() != choose(t, whole, "x,2").Digest() {
		t.Error("one selection in two ways has two digests")
	}
	if got := first.Missing(ids(t, "1,3")).String(); got != "3" {
		t.Errorf("missing %s", got)
	}
	if none := choose(t, choose(t, whole, ""), "1-2"); none.Len() != 0 || none.Digest() != naiveDigest(t, none) {
		t.Errorf("%d chunks of no chunks", none.Len())
	}
}

func TestASelectionIsTheFileOfItsChunks(t *testing.T) {
	whole, err := chunks.Of(unhex(t, ax), unhex(t, a2), unhex(t, a1))
	if err != nil {
		t.Fatal(err)
	}
	few, err := chunks.Of(unhex(t, a2), unhex(t, ax))
	if err != nil {
		t.Fatal(err)
	}
	f := choose(t, whole, "2,x")
	if f.Digest() != few.Digest() || !slices.Equal(dump(t, f), dump(t, few)) {
		t.Error("it is another")
	}
}

// A random selection has the same chunks as a check of each chunk.
func TestSelectAtRandom(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	var items [][]byte
	for _, n := range random.Perm(300) {
		id := abi.IntID(uint64(n))
		if n%3 == 0 {
			id = abi.TextID(strconv.Itoa(n))
		}
		items = append(items, id.AppendCBOR(unhex(t, "a1626964")))
	}
	whole, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		var set abi.IDSet
		for range random.IntN(30) {
			lo := random.Uint64N(300)
			set.AddRange(lo, lo+random.Uint64N(20))
			set.Add(abi.TextID(strconv.Itoa(random.IntN(300))))
		}
		f, err := whole.Select(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for _, chunk := range dump(t, whole) {
			if id, _, _ := strings.Cut(chunk, "="); set.Has(onlyID(t, id)) {
				want = append(want, chunk)
			}
		}
		if got := dump(t, f); !slices.Equal(got, want) || f.Digest() != naiveDigest(t, f) {
			t.Fatalf("of %s\ngot  %v\nwant %v", set, got, want)
		}
		checkMissing(t, whole, set)
	}
}

func onlyID(t *testing.T, s string) abi.ID {
	set := ids(t, s)
	for text := range set.Texts() {
		return abi.TextID(text)
	}
	for n := range set.Ranges() {
		return abi.IntID(n)
	}
	t.Fatalf("invalid id %q", s)
	return abi.ID{}
}

// checkMissing checks that each id of set is missing or selected, never both.
func checkMissing(t *testing.T, f *chunks.File, set abi.IDSet) {
	t.Helper()
	missing := f.Missing(set)
	if f.Count(missing) != 0 || missing.Count()+uint64(f.Count(set)) != set.Count() {
		t.Errorf("missing %s of %s", missing, set)
	}
	missing.AddSet(set)
	if missing.String() != set.String() {
		t.Errorf("missing is more than %s: %s", set, missing)
	}
}

func TestClosingASelectionDoesNothing(t *testing.T) {
	whole, err := chunks.Spool(t.Context(), strings.NewReader("\x01\x02"), chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f := choose(t, whole, "1")
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	if got := dump(t, f); !slices.Equal(got, []string{"1=02"}) {
		t.Errorf("after its own Close: %v", got)
	}
	if err := whole.Close(); err != nil {
		t.Error(err)
	}
	if err := f.Read(t.Context(), 0, 1, func(int, []byte) error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close of the file: %v", err)
	}
}

func TestSelectOfAFileThatChanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte{1, 2, 3}, 0o600); err != nil {
		t.Fatal(err)
	}
	whole, err := chunks.Open(t.Context(), path, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	f := choose(t, whole, "1-2")
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := f.Unchanged(); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("the selection: %v", err)
	}
	for _, list := range []string{"", "1", "0-2"} {
		if f, err := whole.Select(t.Context(), ids(t, list)); f != nil || !errors.Is(err, chunks.ErrChanged) {
			t.Errorf("selecting %q: %v", list, err)
		}
	}
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if _, err := whole.Select(t.Context(), ids(t, "1")); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("selecting from a truncated file: %v", err)
	}
}

func TestContextEndsASelect(t *testing.T) {
	whole, err := chunks.Of([]byte{1}, []byte{2})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, list := range []string{"", "1", "0-1"} {
		if f, err := whole.Select(ctx, ids(t, list)); f != nil || err != context.Canceled {
			t.Errorf("selecting %q: %v", list, err)
		}
	}
}

func TestASelectionHasNoMoreChunks(t *testing.T) {
	whole, err := chunks.Of([]byte{1}, []byte{2})
	if err != nil {
		t.Fatal(err)
	}
	f := choose(t, whole, "1")
	for name, call := range map[string]func(){
		"ID":       func() { f.ID(1) },
		"Position": func() { f.Position(1) },
		"Size":     func() { f.Size(1) },
		"Read":     func() { f.Read(t.Context(), 0, 2, func(int, []byte) error { return nil }) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Error(name + " of a second chunk")
				}
			}()
			call()
		}()
	}
}

// Selecting a range costs time for its chunks only, however many integers it spans.
func TestSelectByHugeRanges(t *testing.T) {
	whole, err := chunks.Of(unhex(t, "a1626964 1bfffffffffffffffe"), unhex(t, a1))
	if err != nil {
		t.Fatal(err)
	}
	var set abi.IDSet
	set.AddRange(2, math.MaxUint64)
	f, err := whole.Select(t.Context(), set)
	if err != nil || f.Len() != 1 || f.ID(0) != abi.IntID(math.MaxUint64-1) {
		t.Errorf("%d chunks (%v)", f.Len(), err)
	}
	if got := whole.Missing(set).String(); got != "2-18446744073709551613,18446744073709551615" {
		t.Errorf("missing %s", got)
	}
}
