package abi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func parseIDs(t testing.TB, s string) abi.IDSet {
	t.Helper()
	set, err := abi.ParseIDs(s)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestIDSetsArePrintedOneWay(t *testing.T) {
	tests := []struct {
		name, list, want string
		count            uint64
	}{
		{"the empty set", "", "", 0},
		{"one integer", "7", "7", 1},
		{"a range of one", "7-7", "7", 1},
		{"a range", "0-99", "0-99", 100},
		{"blanks around commas", " 1 ,\t5 - ", `1,"5 -"`, 2},
		{"neighbours are one range", "3,1,2", "1-3", 3},
		{"neighbouring ranges are one", "10-19,0-9", "0-19", 20},
		{"so are overlapping ones", "5-9,1-6,3-4", "1-9", 9},
		{"one missing integer keeps them apart", "0-4,6-9", "0-4,6-9", 9},
		{"a range that bridges others", "1,3,5,7-8,0-6", "0-8", 9},
		{"integers go before texts", "b,2,a,1", `1-2,"a","b"`, 4},
		{"texts are in it once", `a,a,"a"`, `"a"`, 1},
		{"texts sort bytewise", "é,z,Z,aa,a", `"Z","a","aa","z","é"`, 5},
		{"the largest id", "18446744073709551615,18446744073709551614", "18446744073709551614-18446744073709551615", 2},
		{"every integer", "0-18446744073709551615", "0-18446744073709551615", math.MaxUint64},
		{"every integer and a text", "a,0-18446744073709551615", `0-18446744073709551615,"a"`, math.MaxUint64},
		{"every integer but one", "1-18446744073709551615", "1-18446744073709551615", math.MaxUint64},
		{"every integer but two", "2-18446744073709551615", "2-18446744073709551615", math.MaxUint64 - 1},
		{"ends at both ends", "18446744073709551615,0", "0,18446744073709551615", 2},
		{"quotes make a text of a number", `"7",7`, `7,"7"`, 2},
		{"and of a range", `"1-3"`, `"1-3"`, 1},
		{"and keep commas", `"a,b",c`, `"a,b","c"`, 2},
		{"and blanks", `" a "`, `" a "`, 1},
		{"the empty text", `""`, `""`, 1},
		{"escapes of Go", `"\"\\\n\x41\u00e9\U0001f600"`, `"\"\\\nAé😀"`, 1},
		{"escapes of JSON", `"\/\ud83d\ude00"`, `"/😀"`, 1},
		{"quotes within a text stand for themselves", `a"b`, `"a\"b"`, 1},
		{"only looks like a number", "007,1.5,-1,+1,1e3,0x10,1_000", `"+1","-1","007","0x10","1.5","1_000","1e3"`, 7},
		{"only looks like a range", "1-,-,2024-01-15,a-b,1-x,01-2,1--2", `"-","01-2","1-","1--2","1-x","2024-01-15","a-b"`, 7},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set := parseIDs(t, tt.list)
			if got := set.String(); got != tt.want {
				t.Errorf("%s, want %s", got, tt.want)
			}
			if set.Count() != tt.count || set.Empty() != (tt.count == 0) {
				t.Errorf("Count %d, Empty %t, want %d", set.Count(), set.Empty(), tt.count)
			}
			checkReread(t, set)
		})
	}
}

// checkReread checks that a set is read back from its text and its JSON.
func checkReread(t *testing.T, set abi.IDSet) {
	t.Helper()
	if again := parseIDs(t, set.String()); again.String() != set.String() {
		t.Errorf("%s is read as %s", set, again)
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	var again abi.IDSet
	if err := json.Unmarshal(b, &again); err != nil || again.String() != set.String() {
		t.Errorf("%s is read as %s (%v)", b, again, err)
	}
}

func TestRefusedLists(t *testing.T) {
	tests := []struct{ name, list, ranges, ids string }{ // messages; "" = no error
		{"nothing", "", "", ""},
		{"integers and ranges", " 0-99 , 120,\t007", "", ""},
		{"only blanks", " ", `invalid list " ": empty element`, `invalid list " ": empty element`},
		{"an empty element", "1,,2", `invalid list "1,,2": empty element`, `invalid list "1,,2": empty element`},
		{"an empty element at the end", "1,", `invalid list "1,": empty element`, `invalid list "1,": empty element`},
		{"a reversed range", "1,9-3", `invalid range "9-3": want the smaller id first`,
			`invalid range "9-3": want the smaller id first`},
		{"overflow", "18446744073709551616", `"18446744073709551616" is too large: the largest id is 18446744073709551615`,
			`"18446744073709551616" is too large: the largest id is 18446744073709551615`},
		{"overflow at the end of a range", "1-18446744073709551616", `"1-18446744073709551616" is too large: the largest id is 18446744073709551615`,
			`"1-18446744073709551616" is too large: the largest id is 18446744073709551615`},
		{"a sign", "0,-5", `invalid range "-5": want an integer or a range such as 0-99`, ""},
		{"another sign", "+5", `invalid range "+5": want an integer or a range such as 0-99`, ""},
		{"an open range", "5-", `invalid range "5-": want an integer or a range such as 0-99`, ""},
		{"two dashes", "1-2-3", `invalid range "1-2-3": want an integer or a range such as 0-99`, ""},
		{"blanks in a range", "1 - 2", `invalid range "1 - 2": want an integer or a range such as 0-99`, ""},
		{"other digits", "٣", `invalid range "٣": want an integer or a range such as 0-99`, ""},
		{"a line break", "1\n2", `invalid range "1\n2": want an integer or a range such as 0-99`, ""},
		{"a quote that does not end", `"a,1`, `invalid range "\"a": want an integer or a range such as 0-99`, "invalid id `\"a,1`: want a text in double quotes, as in Go or JSON"},
		{"half a surrogate pair", `"\ud800"`, `invalid range "\"\\ud800\"": want an integer or a range such as 0-99`, "invalid id `\"\\ud800\"`: want a text in double quotes, as in Go or JSON"},
		{"more after a quote", `"a"b`, `invalid range "\"a\"b": want an integer or a range such as 0-99`, "invalid id `\"a\"b`: want a text in double quotes, as in Go or JSON"},
		{"a quoted text that is not UTF-8", `"\xff"`, `invalid range "\"\\xff\"": want an integer or a range such as 0-99`, `invalid id "\"\\xff\"": want UTF-8`},
		{"a text that is not UTF-8", "\xff", `invalid range "\xff": want an integer or a range such as 0-99`, `invalid id "\xff": want UTF-8`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			set, err := abi.ParseRanges(tt.list)
			checkRefused(t, set, err, tt.ranges)
			set, err = abi.ParseIDs(tt.list)
			checkRefused(t, set, err, tt.ids)
		})
	}
	_, err := abi.ParseRanges(strings.Repeat("x", 1<<20))
	if err == nil || len(err.Error()) > 200 {
		t.Error("a long element makes a long message")
	}
}

func checkRefused(t *testing.T, set abi.IDSet, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want || err != nil && !set.Empty() {
		t.Errorf("error %q with the set %q, want %q", got, set, want)
	}
}

func TestParseNamedIDsKeepsRangesApart(t *testing.T) {
	named, ranges, err := abi.ParseNamedIDs(`2,1,5-9,7,a,4-4,"1-2"`)
	if err != nil || named.String() != `1-2,7,"1-2","a"` || ranges.String() != "4-9" {
		t.Errorf("named %s, ranges %s (%v)", named, ranges, err)
	}
}

func TestUnmarshalIDSetRefuses(t *testing.T) {
	set := parseIDs(t, "1")
	for _, b := range []string{"5", `"9-3"`, `["1"]`} {
		if err := json.Unmarshal([]byte(b), &set); err == nil || set.String() != "1" {
			t.Errorf("%s: %v, and the set is %s", b, err, set)
		}
	}
}

func TestAddSet(t *testing.T) {
	a, b := parseIDs(t, "0-4,9,x"), parseIDs(t, "5-7,20,y")
	var sum abi.IDSet
	sum.AddSet(a)
	sum.AddSet(b)
	sum.AddSet(sum)
	sum.AddRange(30, 29)
	sum.Add(abi.IntID(8))
	sum.Add(abi.TextID("z"))
	if sum.String() != `0-9,20,"x","y","z"` {
		t.Errorf("the union is %s", sum)
	}
	if a.String() != `0-4,9,"x"` || b.String() != `5-7,20,"y"` {
		t.Errorf("the sets that were added became %s and %s", a, b)
	}
}

// idModel is a set of single integers and of texts.
type idModel map[abi.ID]bool

func (m idModel) check(t *testing.T, set abi.IDSet) {
	t.Helper()
	want := slices.SortedFunc(maps.Keys(m), abi.ID.Compare)
	var got []abi.ID
	for lo, hi := range set.Ranges() {
		if n := len(got); n > 0 && got[n-1].Compare(abi.IntID(lo-1)) >= 0 {
			t.Errorf("range %d-%d touches the one before", lo, hi)
		}
		for n := lo; ; n++ {
			got = append(got, abi.IntID(n))
			if n == hi {
				break
			}
		}
	}
	for text := range set.Texts() {
		got = append(got, abi.TextID(text))
	}
	if !slices.Equal(got, want) || set.Count() != uint64(len(want)) {
		t.Errorf("got  %v (%d)\nwant %v", got, set.Count(), want)
	}
}

// modelID returns one of few ids, so that they often touch: integers at both
// ends, and texts.
func modelID(b byte) abi.ID {
	switch n := uint64(b & 63); b >> 6 {
	case 0, 1:
		return abi.IntID(uint64(b))
	case 2:
		return abi.IntID(math.MaxUint64 - n)
	default:
		return abi.TextID(fmt.Sprint(n))
	}
}

// A set holds exactly the ids that were added, in any order.
func FuzzIDSet(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{0, 5, 0, 1, 3, 3, 0, 200, 2, 7, 1, 190, 1})
	f.Add([]byte{1, 128, 60, 1, 0, 60, 0, 255, 2, 128, 0, 61})
	f.Fuzz(func(t *testing.T, ops []byte) {
		var set, other abi.IDSet
		model := idModel{}
		for len(ops) > 2 {
			id, size := modelID(ops[1]), uint64(ops[2]%8)
			lo, isInt := id.Int()
			switch hi := lo + size; {
			case ops[0]%3 == 0 || !isInt || hi < lo:
				set.Add(id)
				model[id] = true
			case ops[0]%3 == 1:
				set.AddRange(lo, hi)
			default:
				other = abi.IDSet{}
				other.AddRange(lo, hi)
				set.AddSet(other)
			}
			if hi := lo + size; isInt && ops[0]%3 != 0 && hi >= lo {
				for n := range size + 1 {
					model[abi.IntID(lo+n)] = true
				}
			}
			ops = ops[3:]
		}
		model.check(t, set)
		for b := range 256 {
			if id := modelID(byte(b)); set.Has(id) != model[id] {
				t.Errorf("Has(%v) is %t", id, !model[id])
			}
		}
		checkReread(t, set)
	})
}

// A list that is accepted is printed as a list that is read as the same set.
// The error for any other list is one line.
func FuzzParseIDs(f *testing.F) {
	for _, s := range []string{"", "0-99,120", `a,"b,c",7`, `"\ud83d\ude00"`, "9-3", `"`, "\xff", "1,,2", " 1 , 2 "} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		set, err := abi.ParseIDs(s)
		if err == nil {
			checkReread(t, set)
		} else if !set.Empty() || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q with the set %s", err, set)
		}
		ranges, err := abi.ParseRanges(s)
		if err == nil {
			checkReread(t, ranges)
			if again, err := abi.ParseRanges(ranges.String()); err != nil || again.String() != ranges.String() {
				t.Errorf("%s is read as %s (%v)", ranges, again, err)
			}
		} else if !ranges.Empty() || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q with the set %s", err, ranges)
		}
	})
}

func TestManyScatteredIDs(t *testing.T) {
	const n = 50_000
	shuffled := rand.New(rand.NewPCG(1, 1)).Perm(n)
	orders := map[string]func(i int) int{
		"ascending":  func(i int) int { return i },
		"descending": func(i int) int { return n - 1 - i },
		"shuffled":   func(i int) int { return shuffled[i] },
	}
	for name, order := range orders {
		t.Run(name, func(t *testing.T) {
			var set abi.IDSet
			for i := range n {
				set.Add(abi.IntID(uint64(order(i)) * 2))
				set.Add(abi.TextID(fmt.Sprintf("%06d", order(i))))
			}
			if set.Count() != 2*n {
				t.Errorf("%d ids", set.Count())
			}
			for i := range n {
				if !set.Has(abi.IntID(uint64(i)*2)) || set.Has(abi.IntID(uint64(i)*2+1)) {
					t.Fatalf("wrong about %d", 2*i)
				}
			}
		})
	}
}

func BenchmarkIDSetAdd(b *testing.B) {
	for _, order := range []string{"ascending", "shuffled"} {
		b.Run(order, func(b *testing.B) {
			ids := make([]int, b.N)
			for i := range ids {
				ids[i] = 2 * i
			}
			if order == "shuffled" {
				rand.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
			}
			b.ReportAllocs()
			b.ResetTimer()
			var set abi.IDSet
			for _, id := range ids {
				set.Add(abi.IntID(uint64(id)))
			}
		})
	}
}
