package abi_test

import (
	"bytes"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestPack(t *testing.T) {
	for _, tt := range []struct {
		ptr, size uint32
		want      uint64
	}{
		{0, 0, 0},
		{0, 1, 1},
		{1, 0, 1 << 32},
		{0x10000, 5, 0x10000_00000005},
		{1<<32 - 1, 1<<32 - 1, 1<<64 - 1},
		{1 << 31, 1 << 31, 1<<63 | 1<<31},
	} {
		got := abi.Pack(tt.ptr, tt.size)
		if got != tt.want {
			t.Errorf("Pack(%d, %d) = %#x, want %#x", tt.ptr, tt.size, got, tt.want)
		}
		if ptr, size := abi.Unpack(got); ptr != tt.ptr || size != tt.size {
			t.Errorf("Unpack(%#x) = %d, %d", got, ptr, size)
		}
	}
}

func TestIDs(t *testing.T) {
	for _, tt := range []struct {
		id     abi.ID
		text   string
		cbor   string
		isText bool
	}{
		{abi.ID{}, "0", "00", false},
		{abi.IntID(23), "23", "17", false},
		{abi.IntID(24), "24", "1818", false},
		{abi.IntID(1<<64 - 1), "18446744073709551615", "1bffffffffffffffff", false},
		{abi.TextID(""), `""`, "60", true},
		{abi.TextID("0"), `"0"`, "6130", true},
		{abi.TextID("a\nb"), `"a\nb"`, "63610a62", true},
		{abi.TextID("ä"), `"ä"`, "62c3a4", true},
	} {
		if got := tt.id.String(); got != tt.text {
			t.Errorf("String() = %s, want %s", got, tt.text)
		}
		if got := tt.id.AppendCBOR(nil); !bytes.Equal(got, unhex(t, tt.cbor)) {
			t.Errorf("%v: CBOR %x, want %s", tt.id, got, tt.cbor)
		}
		_, isText := tt.id.Text()
		if _, isInt := tt.id.Int(); isText != tt.isText || isInt == isText {
			t.Errorf("%v: text %v, integer %v", tt.id, isText, isInt)
		}
	}
	if abi.TextID("1") == abi.IntID(1) || abi.TextID("") == abi.IntID(0) || abi.TextID("a") != abi.TextID(string([]byte{'a'})) {
		t.Error("ids are not comparable with ==")
	}
}

func TestIDOrder(t *testing.T) {
	inOrder := []abi.ID{
		abi.IntID(0), abi.IntID(1), abi.IntID(23), abi.IntID(24), abi.IntID(255), abi.IntID(256), abi.IntID(65535),
		abi.IntID(65536), abi.IntID(1<<32 - 1), abi.IntID(1 << 32), abi.IntID(1<<64 - 1),
		abi.TextID(""), abi.TextID("\x00"), abi.TextID("0"), abi.TextID("10"), abi.TextID("9"), abi.TextID("a"),
		abi.TextID("aa"), abi.TextID("b"), abi.TextID("ä"), abi.TextID("\U0001f600"),
	}
	for i, a := range inOrder {
		for j, b := range inOrder {
			want := min(max(i-j, -1), 1)
			if got := a.Compare(b); got != want {
				t.Errorf("%v.Compare(%v) = %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestOrderKeysSortAsIDs(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 200_000 {
		a, b := randomID(random), randomID(random)
		got := bytes.Compare(a.AppendOrderKey(nil), b.AppendOrderKey(nil))
		if want := a.Compare(b); got != want {
			t.Fatalf("keys of %v and %v compare as %d, the ids as %d", a, b, got, want)
		}
	}
}

// randomID returns an integer of any width or a short text. The texts have few
// different letters, so that prefixes and equal texts are frequent.
func randomID(random *rand.Rand) abi.ID {
	if random.IntN(2) == 0 {
		return abi.IntID(random.Uint64() >> random.IntN(64))
	}
	letters := []rune("\x00ab\x7fä\U0001f600")
	text := make([]rune, random.IntN(4))
	for i := range text {
		text[i] = letters[random.IntN(len(letters))]
	}
	return abi.TextID(string(text))
}

func TestEnvelopes(t *testing.T) {
	for _, tt := range []struct {
		id            abi.ID
		item          string
		entry, output string
	}{
		{abi.IntID(0), "f6", "82 00 f6", "a2 626964 00 666f7574707574 f6"},
		{abi.IntID(300), "820102", "82 19012c 820102", "a2 626964 19012c 666f7574707574 820102"},
		{abi.TextID("x"), "1b0000000000000001", "82 6178 1b0000000000000001", "a2 626964 6178 666f7574707574 1b0000000000000001"},
	} {
		item := unhex(t, tt.item)
		if got := abi.AppendEntry([]byte("-"), tt.id, item); string(got) != "-"+string(unhex(t, tt.entry)) {
			t.Errorf("entry of %v: %x", tt.id, got)
		}
		output := abi.AppendOutput([]byte("-"), tt.id, item)
		if string(output) != "-"+string(unhex(t, tt.output)) {
			t.Errorf("output of %v: %x", tt.id, output)
		}
		if id, ok, err := abi.FindID(output[1:], "id"); id != tt.id || !ok || err != nil {
			t.Errorf("an output of %v is a chunk with id %v, %v, %v", tt.id, id, ok, err)
		}
	}
	if abi.CheckItem(abi.Null) != nil {
		t.Error("Null is not a CBOR item")
	}
}

func TestFailures(t *testing.T) {
	f := abi.Failf(abi.ClassGuest, "line %d\r\nand\nmore\n", 1)
	if got, want := f.Error(), "guest: line 1 and more"; got != want {
		t.Errorf("Error() = %q, want %q", got, want)
	}
	if got := abi.Classes(); len(got) != 11 || len(slices.Compact(slices.Sorted(slices.Values(got)))) != 11 {
		t.Errorf("Classes() = %v", got)
	}
}

func TestSameTrap(t *testing.T) {
	trap := func(change func(*abi.Failure)) *abi.Failure {
		f := &abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: []string{"a", "b"}}
		change(f)
		return f
	}
	one := trap(func(*abi.Failure) {})
	for _, tt := range []struct {
		name string
		f, g *abi.Failure
		want bool
	}{
		{"none", nil, nil, false},
		{"one only", one, nil, false},
		{"the other only", nil, one, false},
		{"the same", one, trap(func(*abi.Failure) {}), true},
		{"another class", one, trap(func(f *abi.Failure) { f.Class = abi.ClassMemory }), false},
		{"another message", one, trap(func(f *abi.Failure) { f.Message = "division" }), false},
		{"another stack", one, trap(func(f *abi.Failure) { f.Stack[1] = "c" }), false},
		{"a stack unknown", one, trap(func(f *abi.Failure) { f.Stack = nil }), false},
		{"both unknown", trap(func(f *abi.Failure) { f.Stack = nil }), trap(func(f *abi.Failure) { f.Stack = nil }), false},
	} {
		if got := tt.f.SameTrap(tt.g); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// The names are part of the contract: a change breaks every existing guest.
func TestNames(t *testing.T) {
	got := []any{abi.Version, abi.ImportModule, abi.ImportFail, abi.ImportLog, abi.ImportHeartbeat, abi.WASIModule,
		abi.ExportMemory, abi.ExportAlloc, abi.ExportExec, abi.ExportAggregate, abi.ExportMerge, abi.ExportSetup,
		abi.ExportInitialize, abi.ExportStart, abi.FailPermanent, abi.FailRetryable, abi.FailRequeue,
		abi.LogDebug, abi.LogInfo, abi.LogWarn, abi.LogError}
	want := []any{1, "wasm_jobs", "fail", "log", "heartbeat", "wasi_snapshot_preview1",
		"memory", "alloc", "exec", "aggregate", "merge", "setup", "_initialize", "_start",
		uint32(0), uint32(1), uint32(2), int32(-4), int32(0), int32(4), int32(8)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
}

func TestParseID(t *testing.T) {
	for s, want := range map[string]abi.ID{
		"0": abi.IntID(0), "18446744073709551615": abi.IntID(1<<64 - 1), "18446744073709551616": abi.TextID("18446744073709551616"),
		"a": abi.TextID("a"), "": abi.TextID(""), `"7"`: abi.TextID("7"), `"a\"b"`: abi.TextID(`a"b`), "-1": abi.TextID("-1"), `"`: abi.TextID(`"`),
	} {
		if got, err := abi.ParseID(s); err != nil || got != want {
			t.Errorf("%q: %v, %v", s, got, err)
		}
	}
	for _, s := range []string{"\xff", `"a`} {
		if id, err := abi.ParseID(s); err == nil {
			t.Errorf("%q: %v", s, id)
		}
	}
}

func TestParseOrderKey(t *testing.T) {
	for _, id := range []abi.ID{abi.IntID(0), abi.IntID(23), abi.IntID(24), abi.IntID(1<<64 - 1), abi.TextID(""), abi.TextID("chunk")} {
		key := id.AppendOrderKey(nil)
		if got, ok := abi.ParseOrderKey(key); !ok || got != id {
			t.Errorf("%v: %v, %v", id, got, ok)
		}
	}
	for _, key := range []string{"", "\x60\xff", "\x18", "\x00\x00", "\x80"} {
		if id, ok := abi.ParseOrderKey([]byte(key)); ok {
			t.Errorf("%x: %v", key, id)
		}
	}
}

// TestFuelAtLeast checks that fuel from before the end of a call is reported as
// a lower bound.
func TestFuelAtLeast(t *testing.T) {
	for class, want := range map[abi.Class]bool{
		abi.ClassTrap: true, abi.ClassMemory: true, abi.ClassTimeout: true, abi.ClassFuel: true,
		abi.ClassGuest: false, abi.ClassGuestRetryable: false, abi.ClassExit: false, abi.ClassABI: false, abi.ClassRequeued: false,
	} {
		if f := (&abi.Failure{Class: class, Fuel: 1}); f.FuelAtLeast() != want {
			t.Errorf("%s: %v, expected %v", class, !want, want)
		}
		if f := (&abi.Failure{Class: class}); f.FuelAtLeast() {
			t.Errorf("%s: unknown fuel is not a lower bound", class)
		}
	}
}
