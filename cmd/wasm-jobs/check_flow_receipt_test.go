//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// flowCheck runs a flow, and has its receipt checked by a program that shares no code
// with this one.
type flowCheck struct {
	t   *testing.T
	dir string
}

func (f *flowCheck) in(name string) string { return filepath.Join(f.dir, name) }

// write writes a file of the folder.
func (f *flowCheck) write(name string, b []byte) {
	f.t.Helper()
	if err := os.MkdirAll(filepath.Dir(f.in(name)), 0o700); err != nil {
		f.t.Fatal(err)
	}
	if err := os.WriteFile(f.in(name), b, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

func (f *flowCheck) copy(from, to string) {
	f.t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(to, b)
}

// agrees checks that every line of the checker says so, for the things that it names.
func (f *flowCheck) agrees(args []string, want ...string) {
	f.t.Helper()
	out, code := checkReceipt(f.t, args...)
	if code != 0 || strings.Contains(out, "differs") {
		f.t.Errorf("exit %d: %s", code, out)
	}
	for _, what := range want {
		if !strings.Contains("\n"+out, "\n"+what+": agrees\n") {
			f.t.Errorf("%s is not checked: %s", what, out)
		}
	}
}

// differs checks that the checker finds a changed file.
func (f *flowCheck) differs(name, from, to string, args ...string) {
	f.t.Helper()
	b, err := os.ReadFile(f.in(name))
	if err != nil {
		f.t.Fatal(err)
	}
	changed := bytes.Replace(b, []byte(from), []byte(to), 1)
	if bytes.Equal(b, changed) {
		f.t.Fatalf("%s has no %q", name, from)
	}
	f.write(name, changed)
	if out, code := checkReceipt(f.t, args...); code == 0 {
		f.t.Errorf("%s with %q for %q: exit 0: %s", name, to, from, out)
	}
	f.write(name, b)
}

// TestAnotherProgramChecksFlows checks a flow with children, a join and folds, whose
// roots have ids that need quotes.
func TestAnotherProgramChecksFlows(t *testing.T) {
	f := &flowCheck{t, t.TempDir()}
	for _, name := range []string{"cut.wasm", "count.wasm", "directory.wasm"} {
		f.copy("../../examples/words/"+name, name)
	}
	f.write("flow.json", []byte(`{"states": {
 "cut": {"module": "cut.wasm", "returns": "move", "to": ["count", "directory"], "children": {"join": "directory", "tolerate": "12.5%", "fold": "count.wasm"}},
 "count": {"module": "count.wasm", "next": "counted", "retry": {"retries": 1}, "meta": [1.5]},
 "directory": {"module": "directory.wasm", "next": "done", "fuel": 1000000, "concurrency": 2},
 "counted": {"end": true}, "done": {"end": true, "fold": "count.wasm"}},
 "flow": "words", "seed": 7, "meta": "é", "limits": {"x": {"rate": "1/s"}}}`))
	for _, name := range []string{"7", "10", "a,b", `say "x"`, "x->0", "é"} {
		f.write("tree/"+name+"/file", bytes.Repeat([]byte("one two "+name+"\n"), 2000))
	}
	f.write("in.cbor", directories(t, f.in("tree")))
	mustRun(t, "flow", "run", f.in("flow.json"), f.in("in.cbor"), "--store", f.in("store"), "--progress", "none",
		"--receipt", f.in("receipt.json"), "--outputs", f.in("ends.cbor"), "-o", f.in("result.cbor"))
	all := []string{f.in("receipt.json"), "--definition", f.in("flow.json"), "--chunks", f.in("in.cbor"), "--outputs", f.in("ends.cbor"), "--aggregate", f.in("result.cbor")}
	f.agrees(all, "flow", "input", "end counted", "end done", "items", "result")
	f.differs("flow.json", `"fuel": 1000000`, `"fuel": 1000001`, all...)
	f.differs("in.cbor", "one two 7", "one two 8", all...)
	f.differs("ends.cbor", "->1", "->9", all...)
	f.differs("result.cbor", "one", "two", all...)
	for _, item := range []string{`"7"->1`, `"a,b"`, `"say ""x"""->0`, "é->2"} {
		proof := mustRun(t, "flow", "prove", "--store", f.in("store"), f.in("receipt.json"), item)
		f.write("proof.json", proof)
		check := []string{f.in("receipt.json"), "--proof", f.in("proof.json")}
		f.agrees(check, "root of the proof", "item of the proof", "step 1 in state cut")
		f.differs("proof.json", `"index": `, `"index": 1`, check...)
		f.differs("proof.json", `"id": "`, `"id": "x`, check...)
	}
}

// TestAnotherProgramChecksEffects checks a flow with effects and a person's decision.
func TestAnotherProgramChecksEffects(t *testing.T) {
	f := &flowCheck{t, t.TempDir()}
	f.write("flow.json", []byte(`{"flow": "says", "states": {"say": {"effect": "command", "command": ["echo", "{name}"], "next": "done"}, "done": {"end": true}}}`))
	f.write("in.jsonl", []byte(`{"id":3,"name":"one"}`+"\n"+`{"id":"a,b","name":"two"}`+"\n"+`{"id":10,"name":"three"}`+"\n"))
	files := []string{"--store", f.in("store"), "--progress", "none", "--allow", "command", "--receipt", f.in("receipt.json"), "--outputs", f.in("ends.cbor"), "-o", f.in("result.cbor"), "--effects", f.in("effects.cbor")}
	mustRun(t, append([]string{"flow", "run", f.in("flow.json"), "--jsonl", f.in("in.jsonl"), "--stop-at", "say"}, files...)...)
	mustRun(t, append([]string{"flow", "redrive", "says", "--to", "done", "--items", "10"}, files...)...)
	all := []string{f.in("receipt.json"), "--definition", f.in("flow.json"), "--outputs", f.in("ends.cbor"), "--aggregate", f.in("result.cbor"), "--effects", f.in("effects.cbor")}
	f.agrees(all, "flow", "end done", "items", "result", "effects", "interventions")
	f.differs("effects.cbor", "one", "two", all...)
	f.differs("effects.cbor", "done", "gone", all...)
	// the decision is known to a verification too
	verify := []string{"flow", "verify", "--no-store", "--progress", "none", f.in("receipt.json"), f.in("flow.json"), "--jsonl", f.in("in.jsonl"), "--effects", f.in("effects.cbor")}
	mustRun(t, verify...)
	f.differs("effects.cbor", "done", "gone", all...)
	mustRun(t, append(verify, "--engine", "interpreter")...)
	mustRun(t, "flow", "run", f.in("flow.json"), "--jsonl", f.in("in.jsonl"), "--no-store", "--progress", "none", "--replay-effects", f.in("effects.cbor"), "--receipt", f.in("again.json"), "-o", os.DevNull)
	a, err := os.ReadFile(f.in("again.json"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(f.in("receipt.json")); err != nil || !bytes.Equal(a, b) {
		t.Errorf("%v: another receipt with the journal\n%s\n%s", err, a, b)
	}
}
