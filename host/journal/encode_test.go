package journal

import (
	"slices"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestIDs(t *testing.T) {
	var all []abi.ID
	for _, n := range []uint64{0, 1, 2, 7, 9, 10, 1<<64 - 2, 1<<64 - 1} {
		all = append(all, abi.IntID(n))
	}
	for _, s := range []string{"", "a", "b", "zz"} {
		all = append(all, abi.TextID(s))
	}
	for from := range all {
		list := all[from:]
		x := &ids{}
		for piece := range EncodeIDs(len(list), func(i int) abi.ID { return list[i] }) {
			if err := x.add(slices.Clone(piece)); err != nil {
				t.Fatal(err)
			}
		}
		if x.total != len(list) {
			t.Fatalf("%d ids, want %d", x.total, len(list))
		}
		for i, id := range list {
			at, ok := x.index(id)
			if x.at(i) != id || at != i || !ok {
				t.Errorf("chunk %d: %v, index %d, %v", i, x.at(i), at, ok)
			}
			var set abi.IDSet
			x.addTo(&set, i, i+1)
			if !set.Has(id) || i > 0 && set.Has(list[i-1]) {
				t.Errorf("only chunk %d: %v", i, set)
			}
		}
		for _, id := range []abi.ID{abi.IntID(3), abi.IntID(1 << 63), abi.TextID("aa"), abi.TextID("zzz")} {
			if i, ok := x.index(id); ok {
				t.Errorf("%v is chunk %d", id, i)
			}
		}
	}
}

func TestDamagedIDs(t *testing.T) {
	for _, piece := range []string{"\x00", "\x00\x01", "\x00\x01\x00", "\x01\x05ab", "\x02\x01", "\x00\x01\xff\xff\xff\xff\xff\xff\xff\xff\x01"} {
		if err := (&ids{}).add([]byte(piece)); err == nil {
			t.Errorf("%x is taken", piece)
		}
	}
}

func TestDetail(t *testing.T) {
	start := time.UnixMicro(1_700_000_000_000_123).UTC()
	b := AppendDetail(nil, 3, start)
	b = AppendElapsed(b, 0, 5*time.Millisecond)
	b = AppendElapsed(b, 0, -1)
	b = AppendElapsed(b, time.Millisecond, 7*time.Microsecond)
	at := start.Add(6 * time.Millisecond)
	for n, want := range []Elapsed{{start, start.Add(5 * time.Millisecond)}, {}, {at, at.Add(7 * time.Microsecond)}} {
		if worker, e, err := detail(b, n); err != nil || worker != 3 || e != want {
			t.Errorf("chunk %d: worker %d, %v, %v", n, worker, e, err)
		}
	}
	for cut := range b {
		if _, _, err := detail(b[:cut], 2); err == nil {
			t.Errorf("%d bytes are enough", cut)
		}
	}
}

func TestIntervals(t *testing.T) {
	x := intervals{{8, 9}, {0, 3}, {2, 5}, {5, 6}, {7, 7}}.merged()
	if want := (intervals{{0, 6}, {8, 9}}); !slices.Equal(x, want) {
		t.Fatalf("merged: %v", x)
	}
	for _, tt := range []struct{ without, want intervals }{
		{nil, x},
		{intervals{{0, 9}}, nil},
		{intervals{{1, 2}, {3, 4}}, intervals{{0, 1}, {2, 3}, {4, 6}, {8, 9}}},
		{intervals{{5, 8}}, intervals{{0, 5}, {8, 9}}},
		{intervals{{6, 8}}, x},
	} {
		if got := x.without(tt.without); !slices.Equal(got, tt.want) {
			t.Errorf("without %v: %v", tt.without, got)
		}
	}
	for chunk, want := range []bool{true, true, true, true, true, true, false, false, true, false} {
		if x.has(chunk) != want {
			t.Errorf("has %d: %v", chunk, !want)
		}
	}
	if x.count() != 7 {
		t.Errorf("count %d", x.count())
	}
}
