package check

import (
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
)

// No guest causes a difference, so the comparison is tested by itself.
func TestCompare(t *testing.T) {
	four := guest.CallResult{Done: true, SHA256: strings.Repeat("4", 64), Fuel: 10, Output: []byte{4}}
	fails := func(class abi.Class, message string) guest.CallResult {
		return guest.CallResult{Done: true, Failure: &abi.Failure{Class: class, Message: message}}
	}
	with := func(change func(*guest.CallResult)) guest.CallResult {
		r := four
		change(&r)
		return r
	}
	for _, tt := range []struct {
		name             string
		base, other      guest.CallResult
		differs, skipped bool
	}{
		{"the same", four, four, false, false},
		{"other fuel", four, with(func(r *guest.CallResult) { r.Fuel = 11 }), true, false},
		{"another output", four, with(func(r *guest.CallResult) { r.SHA256, r.Output = strings.Repeat("5", 64), []byte{5} }), true, false},
		{"another output, with only the digest known", four, with(func(r *guest.CallResult) { r.SHA256, r.Output = strings.Repeat("5", 64), nil }), true, false},
		{"the same output, with only the digest known", four, with(func(r *guest.CallResult) { r.Output = nil }), false, false},
		{"a failure", four, fails(abi.ClassTrap, "unreachable"), true, false},
		{"no failure", fails(abi.ClassTrap, "unreachable"), four, true, false},
		{"the same failure", fails(abi.ClassTrap, "a"), fails(abi.ClassTrap, "a"), false, false},
		{"another failure", fails(abi.ClassTrap, "a"), fails(abi.ClassTrap, "b"), true, false},
		{"a timeout", four, fails(abi.ClassTimeout, "30s"), false, true},
		{"the host", four, fails(abi.ClassHost, "too deep"), false, true},
		{"not made", four, guest.CallResult{}, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := compare("a way", []Call{{Name: "chunk 7"}}, []guest.CallResult{tt.base}, []guest.CallResult{tt.other})
			differs := len(p.Differences) == 1 && p.Differences[0].Call == "chunk 7" && p.Differences[0].Now.SHA256 == tt.other.SHA256
			if differs != tt.differs || p.Count != len(p.Differences) || (p.Skipped == 1) != tt.skipped {
				t.Errorf("got %+v", p)
			}
		})
	}
}

func TestFewDifferencesAreKept(t *testing.T) {
	calls, base, other := make([]Call, 9), make([]guest.CallResult, 9), make([]guest.CallResult, 9)
	for i := range calls {
		base[i], other[i] = guest.CallResult{Done: true, SHA256: "aa", Fuel: 1}, guest.CallResult{Done: true, SHA256: "aa", Fuel: 2}
	}
	p := compare("in reverse order", calls, base, other)
	r := &Report{Probes: []*Probe{p, p}}
	if p.Count != 9 || len(p.Differences) != maxDifferences || r.Differences() != 18 {
		t.Errorf("%d differ, %d are kept, %d in all", p.Count, len(p.Differences), r.Differences())
	}
}

func TestDeterministic(t *testing.T) {
	for item, want := range map[string]string{
		"00": "", "f93c00": "", "a2616100616200": "", "f97e00": "", "fa7f7fffff": "", "82c10180": "", "f8ff": "", "f4": "",
		"1800": "a head of 2 bytes for 0", "9fff": "indefinite", "fa3f800000": "a float", "fa7fc00000": "a float", "fb7ff0000000000000": "a float",
		"a2616200616100": "bytewise order", "a2616100616100": "bytewise order", "8100": "", "811800": "a head", "a1008118ff": "",
		"fb3fb999999999999a": "", "f90001": "", "fa00000001": "", "fb47efffffe0000000": "a float", "f97e01": "",
	} {
		b, err := hex.DecodeString(item)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := deterministic(b)
		if ok != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", item, got, want)
		}
	}
}

// deterministic has an answer for every well-formed item.
func FuzzDeterministic(f *testing.F) {
	for _, seed := range []string{"00", "f93c00", "fa3f800000", "a2616100616200", "9fff", "5f4101ff", "c249010000000000000000", "fb7ff8000000000001", "f8ff"} {
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
		place, ok := deterministic(item)
		if ok != (place == "") || strings.Contains(place, "\n") {
			t.Errorf("%x: %q, %t", item, place, ok)
		}
		if nested, _ := deterministic(append([]byte{0x81}, item...)); nested != place {
			t.Errorf("%x: %q, and in an array %q", item, place, nested)
		}
	})
}

func TestOrdersHaveEachCallOnce(t *testing.T) {
	for _, order := range [][]int{inOrder(9), reversed(9), shuffled(9)} {
		if got := slices.Sorted(slices.Values(order)); !slices.Equal(got, inOrder(9)) {
			t.Errorf("%v", order)
		}
	}
	if slices.Equal(shuffled(9), inOrder(9)) || !slices.Equal(shuffled(9), shuffled(9)) {
		t.Errorf("shuffled: %v, then %v", shuffled(9), shuffled(9))
	}
}

func TestParallelReturnsEachError(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	var n atomic.Int64
	err := parallel(3, func() error { return []error{a, nil, b}[n.Add(1)-1] })
	if !errors.Is(err, a) || !errors.Is(err, b) || n.Load() != 3 {
		t.Errorf("got %v after %d", err, n.Load())
	}
}

func TestFolds(t *testing.T) {
	results := func(sizes ...int) (all []guest.CallResult) {
		for _, size := range sizes {
			if size < 0 {
				all = append(all, guest.CallResult{Done: true, Failure: abi.Failf(abi.ClassGuest, "no")})
				continue
			}
			all = append(all, guest.CallResult{Done: true, Output: append(abi.AppendHead(nil, abi.MajorBytes, uint64(size)), make([]byte, size)...)})
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		results []guest.CallResult
		calls   int
	}{
		{"none", nil, 1},
		{"failures only", results(-1, -1), 1},
		{"one", results(1), 2},
		{"two", results(1, -1, 1), 4},
		{"too large", results(maxFolded/2, maxFolded/2), 0},
	} {
		calls := folds(tt.results)
		for _, c := range calls {
			if err := abi.CheckItem(c.Input); err != nil || c.Function != abi.ExportAggregate {
				t.Errorf("%s: %s: %v", tt.name, c.Name, err)
			}
		}
		if len(calls) != tt.calls {
			t.Errorf("%s: %d calls, want %d", tt.name, len(calls), tt.calls)
		}
	}
	if got := merge(results(0, 0, 1, 2)); len(got) != 1 || string(got[0].Input) != "\x82\x41\x00\x42\x00\x00" {
		t.Errorf("merge: %v", got)
	}
	if len(merge(results(0, 0, -1, 2))) != 0 || len(merge(results(0, 0))) != 0 {
		t.Error("merge of halves that are not there")
	}
}
