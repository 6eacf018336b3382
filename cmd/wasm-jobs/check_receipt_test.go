package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

// checkReceipt runs the independent checker, and returns its output and exit code.
func checkReceipt(t *testing.T, args ...string) (string, int) {
	t.Helper()
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed: docs/check_receipt.py is not run")
	}
	cmd := exec.Command(python, append([]string{"../../docs/check_receipt.py"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// mustRun runs the real command.
func mustRun(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := command(args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("wasm-jobs %s: %v: %s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

// TestAnotherProgramComputesTheSameDigests checks the committed receipts, and proofs
// from them, with a program that shares no code with this one.
func TestAnotherProgramComputesTheSameDigests(t *testing.T) {
	for _, c := range receiptCases() {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			outputs, result := filepath.Join(dir, "outputs.cbor"), filepath.Join(dir, "result.cbor")
			args := []string{"run", c.modulePath(), c.path(".cbor"), "--no-store", "--progress", "none", "--outputs", outputs, "-o", result}
			args = append(args, c.flags()...)
			check := []string{c.path(".receipt.json"), "--module", c.modulePath(), "--chunks", c.path(".cbor"), "--outputs", outputs}
			want := []string{"module", "chunks", "input", "number of outputs", "outputs"}
			if c.context != "" {
				check, want = append(check, "--context", c.contextFile()), append(want, "settings.context")
			}
			mustRun(t, args...)
			if b, err := os.ReadFile(c.path(".receipt.json")); err != nil || bytes.Contains(b, []byte(`"aggregate"`)) {
				check, want = append(check, "--aggregate", result), append(want, "aggregate")
			}
			if len(c.chunks) > 0 {
				file, err := fileOutputs(t.Context(), outputs)
				if err != nil {
					t.Fatal(err)
				}
				defer file.Close()
				var last abi.ID
				for o, err := range file.All(t.Context()) {
					if err != nil {
						t.Fatal(err)
					}
					last = o.ID
				}
				proof := filepath.Join(dir, "proof.json")
				if err := os.WriteFile(proof, mustRun(t, "prove", c.path(".receipt.json"), last.String(), "--outputs", outputs), 0o600); err != nil {
					t.Fatal(err)
				}
				check, want = append(check, "--proof", proof), append(want, "size of the proof", "proof")
			}
			said, code := checkReceipt(t, check...)
			for _, what := range want {
				if !strings.Contains("\n"+said, "\n"+what+": agrees\n") {
					t.Errorf("%s is not checked, or differs", what)
				}
			}
			if code != 0 || strings.Count(said, "\n") != len(want) {
				t.Errorf("exit code %d: %s", code, said)
			}
		})
	}
}

// TestTheOtherProgramFindsChanges changes each file that it reads.
func TestTheOtherProgramFindsChanges(t *testing.T) {
	dir := t.TempDir()
	c := receiptCases()[1]
	module, chunkFile := filepath.Join(dir, "m.wasm"), filepath.Join(dir, "c.cbor")
	outputs, result, proof := filepath.Join(dir, "outputs.cbor"), filepath.Join(dir, "result.cbor"), filepath.Join(dir, "proof.json")
	mustRun(t, "run", c.modulePath(), c.path(".cbor"), "--no-store", "--progress", "none", "--outputs", outputs, "-o", result)
	for to, from := range map[string]string{module: c.modulePath(), chunkFile: c.path(".cbor")} {
		b, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(proof, mustRun(t, "prove", c.path(".receipt.json"), "299", "--outputs", outputs), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, what := range map[string]string{module: "module", chunkFile: "input", outputs: "outputs", result: "aggregate", proof: "proof"} {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		bad := bytes.Clone(good)
		if path == proof {
			bad = bytes.Replace(bad, []byte(`"index": 299`), []byte(`"index": 298`), 1)
		} else {
			bad[len(bad)-1] ^= 1 // of an integer
		}
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		said, code := checkReceipt(t, c.path(".receipt.json"), "--module", module, "--chunks", chunkFile, "--outputs", outputs, "--aggregate", result, "--proof", proof)
		if code != 1 || !strings.Contains("\n"+said, "\n"+what+": differs") || strings.Count(said, "differs") != 1 {
			t.Errorf("%s changed: exit code %d: %s", what, code, said)
		}
		if err := os.WriteFile(path, good, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// forge writes changed outputs, and a receipt of them whose digests are right. change
// returns the changed output; more are outputs after all others.
func forge(t *testing.T, c receiptCase, change func(id abi.ID, output []byte) []byte, more ...abi.ID) (r *receipt.Receipt, path, forged string) {
	t.Helper()
	dir := t.TempDir()
	outputs, forged, path := filepath.Join(dir, "outputs.cbor"), filepath.Join(dir, "forged.cbor"), filepath.Join(dir, "forged.json")
	mustRun(t, "run", c.modulePath(), c.path(".cbor"), "--no-store", "--progress", "none", "--outputs", outputs, "-o", filepath.Join(dir, "o"))
	file, err := fileOutputs(t.Context(), outputs)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var tree merkle.Tree
	var all []byte
	add := func(id abi.ID, output []byte) {
		tree.AddEntry(id, output)
		all = abi.AppendOutput(all, id, output)
	}
	for o, err := range file.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		add(o.ID, change(o.ID, o.Output))
	}
	for _, id := range more {
		add(id, abi.Null)
	}
	b, err := os.ReadFile(c.path(".receipt.json"))
	if err != nil {
		t.Fatal(err)
	}
	if r, err = receipt.Parse(b); err != nil {
		t.Fatal(err)
	}
	r.Outputs = tree.Root()
	if b, err = r.Marshal(); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(forged, all, 0o600), os.WriteFile(path, b, 0o600)); err != nil {
		t.Fatal(err)
	}
	return r, path, forged
}

// TestReceiptOfMoreOutputsThanChunks has a tree with all outputs and one leaf too many.
func TestReceiptOfMoreOutputsThanChunks(t *testing.T) {
	c := receiptCases()[1]
	_, path, forged := forge(t, c, func(_ abi.ID, output []byte) []byte { return output }, abi.TextID("one more"))
	out, code := verifyOf(t, path, c.modulePath(), c.path(".cbor"), "--sample", "10%", "--outputs", forged)
	said := fmt.Sprintf("note: %s has %d outputs for %d chunks", forged, len(c.chunks)+1, len(c.chunks))
	if code != exitDiffers || !strings.Contains(out, "outputs are not proved") || !strings.Contains(out, said) {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// TestForgedReceipt has one output that the module did not give. Only an execution can
// find that.
func TestForgedReceipt(t *testing.T) {
	c := receiptCases()[1]
	r, path, forged := forge(t, c, func(id abi.ID, output []byte) []byte {
		if id == abi.IntID(123) {
			return []byte{7}
		}
		return output
	})
	for _, flags := range [][]string{{"--against", forged}, {"--sample", "100%", "--outputs", forged}} {
		out, code := verifyOf(t, append([]string{path, c.modulePath(), c.path(".cbor")}, flags...)...)
		if code != exitDiffers || !strings.Contains(out, "chunk 123 differs\n  claimed: 7\n  executed: 15129\n") {
			t.Errorf("%v: exit code %d: %s", flags, code, out)
		}
	}
	// A sample without the chunk holds: it cannot find the change.
	for seed := uint64(0); ; seed++ {
		drawn, err := verify.Sample{Count: 3, Seed: &seed}.Numbers(len(c.chunks), r)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(drawn, 123) {
			continue
		}
		if out, code := verifyOf(t, path, c.modulePath(), c.path(".cbor"), "--sample", "3", "--sample-seed", fmt.Sprint(seed), "--outputs", forged); code != 0 {
			t.Errorf("the sample %v: exit code %d: %s", drawn, code, out)
		}
		return
	}
}

func verifyOf(t *testing.T, args ...string) (string, int) {
	t.Helper()
	cmd := command(append([]string{"verify"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// TestTheOtherProgramHashesDirectories has a tree with all kinds of entries.
func TestTheOtherProgramHashesDirectories(t *testing.T) {
	dir := t.TempDir()
	top, path := filepath.Join(dir, "top"), filepath.Join(dir, "receipt.json")
	for name, data := range map[string]string{"b.txt": "b", "a/empty": "", "a/b/c": "ccc", "a.b": "sorts before a/", "é": "text"} {
		file := filepath.Join(top, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../b.txt", filepath.Join(top, "a", "link")); err != nil {
		t.Skipf("no links here: %v", err)
	}
	mustRun(t, "run", "../../testdata/command/command.wasm", "--range-of", "1", "--stdin", "cbor", "--arg", "env", "--no-store", "--progress", "none",
		"--dir", top+":/data", "--receipt", path, "-o", filepath.Join(dir, "o"))
	if said, code := checkReceipt(t, path, "--dir", top+":/data"); code != 0 || said != "directory /data: agrees\n" {
		t.Errorf("exit code %d: %s", code, said)
	}
	if err := os.Remove(filepath.Join(top, "a", "empty")); err != nil {
		t.Fatal(err)
	}
	if said, code := checkReceipt(t, path, "--dir", top+":/data"); code != 1 || !strings.HasPrefix(said, "directory /data: differs") {
		t.Errorf("exit code %d: %s", code, said)
	}
}
