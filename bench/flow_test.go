package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFlows measures flows briefly, and compares the result with itself.
func TestFlows(t *testing.T) {
	dir := t.TempDir()
	jsonFile, markdown := filepath.Join(dir, "f.json"), filepath.Join(dir, "f.md")
	if err := os.WriteFile(markdown, []byte("before\n"+flowsOpening+"\nold\n"+flowsClosing+"\nafter\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	common := []string{"-flows", "-rounds", "1", "-chunks", "300", "-most", "10500", "-tolerance", "1e6"}
	code, stdout, stderr := runs(t, append(common, "-json", jsonFile, "-markdown", markdown)...)
	if code != exitOK {
		t.Fatalf("code %d: %s", code, stderr)
	}
	tables, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	for text, wants := range map[string][]string{
		stdout: {"flows: round 1 of 1"},
		string(tables): {
			"before\n" + flowsOpening, "flows of 300 roots", "an item and state of 10500 roots, to one of 10000", "a step of River, to ours",
			"| go-workflows | github.com/cschleiden/go-workflows v1.2.0 | 300 |", "peak memory, 10500 children of one item", flowsClosing + "\nafter\n",
		},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in:\n%s", want, text)
			}
		}
	}
	old := &commandReport{}
	if err := readJSON(jsonFile, old); err != nil {
		t.Fatal(err)
	}
	if worse := compareClaims(t.Output(), old, old, 1); worse != 0 || len(old.Claims) != 9 || old.Flows == nil {
		t.Errorf("%d of %d claims are worse than themselves", worse, len(old.Claims))
	}
}

// TestPeersMakeTheirSteps: a peer that loses a step, or that changes a result, is an error.
func TestPeersMakeTheirSteps(t *testing.T) {
	for _, p := range flowPeers() {
		if ns, err := p.run(t.Context(), t.TempDir(), 9); err != nil || ns <= 0 {
			t.Errorf("%s: %v ns, %v", p.name, ns, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, p := range flowPeers() {
		if _, err := p.run(gone, t.TempDir(), 9); err == nil {
			t.Errorf("%s: no error after the end of its context", p.name)
		}
	}
}

// TestNothingExecuted: a second run that executes a step is an error.
func TestNothingExecuted(t *testing.T) {
	for _, test := range []struct {
		report string
		good   bool
	}{
		{`{"instances": {"created": 0}, "states": [{"attempts": 0, "reused": 2}, {"attempts": 0, "reused": 4}]}`, true},
		{`{"instances": {"created": 1}, "states": [{"attempts": 0, "reused": 6}]}`, false},
		{`{"instances": {"created": 0}, "states": [{"attempts": 1, "reused": 6}]}`, false},
		{`{"instances": {"created": 0}, "states": [{"attempts": 0, "reused": 5}]}`, false},
		{`{`, false},
	} {
		f := &flows{commands: &commands{chunks: 2}, ended: filepath.Join(t.TempDir(), "r.json")}
		if err := os.WriteFile(f.ended, []byte(test.report), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := f.nothingExecuted(); (err == nil) != test.good {
			t.Errorf("%s: %v", test.report, err)
		}
	}
}
