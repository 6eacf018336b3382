package main

import (
	"io"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// No guest gives a difference, so the text of a difference is tested separately.
func TestDifferenceText(t *testing.T) {
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
		first, now guest.CallResult
		what       string
	}{
		{four, with(func(r *guest.CallResult) { r.Fuel = 11 }), "took 11 fuel, and first 10"},
		{four, with(func(r *guest.CallResult) { r.SHA256, r.Output = strings.Repeat("5", 64), []byte{5} }), "gave 5, and first 4"},
		{four, with(func(r *guest.CallResult) { r.SHA256, r.Output = strings.Repeat("5", 64), nil }), "gave an output with the SHA-256 5555555555555555…, and first 4"},
		{four, fails(abi.ClassTrap, "unreachable"), "failed with trap: unreachable, and first gave 4"},
		{fails(abi.ClassTrap, "unreachable"), four, "gave 4, and first failed with trap: unreachable"},
		{fails(abi.ClassTrap, "a"), fails(abi.ClassTrap, "b"), "failed with trap: b, and first with trap: a"},
	} {
		if got := differenceText(&check.Difference{Call: "chunk 7", First: tt.first, Now: tt.now}); got != tt.what {
			t.Errorf("%+v and %+v: %q, want %q", tt.first, tt.now, got, tt.what)
		}
	}
}

func TestReportOfDifferences(t *testing.T) {
	d := check.Difference{Call: "chunk", First: guest.CallResult{Done: true, SHA256: "aa", Fuel: 1}, Now: guest.CallResult{Done: true, SHA256: "aa", Fuel: 2}}
	r := &check.Report{Description: &runtime.Description{Accepted: true}, Chunks: &check.Chunks{}, Probes: []*check.Probe{
		{Name: "in reverse order", Calls: 9, Count: 9, Differences: []check.Difference{d, d, d}},
	}}
	var b strings.Builder
	if err := printCheck(&b, newCheckReport(&checkOptions{}, r), r); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"DIFFERS  in reverse order: 9 of 9 calls", "chunk: took 2 fuel, and first 1", "verdict  9 differences"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%s\nhas no %q", b.String(), want)
		}
	}
	if n := strings.Count(b.String(), "took 2 fuel"); n != 3 {
		t.Errorf("%d differences are shown", n)
	}
	if err := printCheck(failingWriter{}, newCheckReport(&checkOptions{}, r), r); err == nil {
		t.Error("an error of writing is lost")
	}
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// Each kind of remark has a text.
func TestRemarksHaveWords(t *testing.T) {
	d := &runtime.Description{Memory: &runtime.MemoryLimits{}, NotResettable: []string{"table.set"}}
	four := guest.CallResult{Done: true, Output: []byte{4}}
	difference := check.Difference{Call: "chunk 7", First: four, Now: four}
	for _, kind := range check.Kinds() {
		r := check.Remark{
			Kind: kind, Call: "chunk 7", Failure: &abi.Failure{Class: abi.ClassTrap}, Difference: &difference,
			Probe: &check.Probe{Differences: []check.Difference{difference}},
		}
		for _, d.Command = range []bool{false, true} {
			if remarkText(r, d) == "" {
				t.Errorf("%q has no words", kind)
			}
		}
	}
}
