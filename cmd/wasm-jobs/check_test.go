package main

import (
	"encoding/hex"
	"io"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// No guest makes a difference, so what check does with one is tested by itself.
func TestCompare(t *testing.T) {
	four := outcome{Done: true, SHA256: strings.Repeat("4", 64), Fuel: 10, output: []byte{4}}
	fails := func(class abi.Class, message string) outcome {
		return outcome{Done: true, Failure: &abi.Failure{Class: class, Message: message}}
	}
	with := func(change func(*outcome)) outcome {
		o := four
		change(&o)
		return o
	}
	for _, tt := range []struct {
		base, other outcome
		what        string
		skipped     bool
	}{
		{four, four, "", false},
		{four, with(func(o *outcome) { o.Fuel = 11 }), "took 11 fuel, and first 10", false},
		{four, with(func(o *outcome) { o.SHA256, o.output = strings.Repeat("5", 64), []byte{5} }), "gave 5, and first 4", false},
		{four, with(func(o *outcome) { o.SHA256, o.output = strings.Repeat("5", 64), nil }), "gave an output with the SHA-256 5555555555555555…, and first 4", false},
		{four, fails(abi.ClassTrap, "unreachable"), "failed with trap: unreachable, and first gave 4", false},
		{fails(abi.ClassTrap, "unreachable"), four, "gave 4, and first failed with trap: unreachable", false},
		{fails(abi.ClassTrap, "a"), fails(abi.ClassTrap, "a"), "", false},
		{fails(abi.ClassTrap, "a"), fails(abi.ClassTrap, "b"), "failed with trap: b, and first with trap: a", false},
		{four, fails(abi.ClassTimeout, "30s"), "", true},
		{four, fails(abi.ClassHost, "too deep"), "", true},
		{four, outcome{}, "", true},
	} {
		p := compare("a way", []probeCall{{name: "chunk 7"}}, []outcome{tt.base}, []outcome{tt.other})
		got := ""
		if len(p.Differences) == 1 && p.Differences[0].Call == "chunk 7" {
			got = p.Differences[0].What
		}
		if got != tt.what || p.Count != len(p.Differences) || (p.Skipped == 1) != tt.skipped {
			t.Errorf("%+v and %+v: %+v, want %q, skipped %v", tt.base, tt.other, p, tt.what, tt.skipped)
		}
	}
}

func TestReportOfDifferences(t *testing.T) {
	calls, base, other := make([]probeCall, 9), make([]outcome, 9), make([]outcome, 9)
	for i := range calls {
		calls[i].name = "chunk"
		base[i], other[i] = outcome{Done: true, SHA256: "aa", Fuel: 1}, outcome{Done: true, SHA256: "aa", Fuel: 2}
	}
	r := &checkReport{Description: &runtime.Description{Accepted: true}, Chunks: &checkedChunks{}}
	r.add(compare("in reverse order", calls, base, other))
	var b strings.Builder
	if err := r.print(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DIFFERS  in reverse order: 9 of 9 calls", "chunk: took 2 fuel, and first 1", "verdict  9 differences"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nhas no %q", b.String(), want)
		}
	}
	if n := strings.Count(b.String(), "took 2 fuel"); n != shownDifference {
		t.Errorf("%d differences are shown", n)
	}
	if err := r.print(failingWriter{}); err == nil {
		t.Error("an error of writing is lost")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestDeterministic(t *testing.T) {
	for item, want := range map[string]string{
		"00": "", "f93c00": "", "a2616100616200": "", "f97e00": "", "fa7f7fffff": "", "82c10180": "", "f8ff": "", "f4": "",
		"1800": "a head of 2 bytes for 0", "9fff": "indefinite", "fa3f800000": "a float", "fa7fc00000": "a float", "fb7ff0000000000000": "a float",
		"a2616200616100": "bytewise order", "a2616100616100": "bytewise order", "8100": "", "811800": "a head", "a1008118ff": "",
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
