package attest

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

func readReceipt(t testing.TB, path string) *receipt.Receipt {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r, err := receipt.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestStatements checks that a payload that was read is written again as the same
// statement, and that errors are one line: for every committed receipt, and for one
// receipt with every byte of the payload changed or cut off.
func TestStatements(t *testing.T) {
	receipts, err := filepath.Glob("../../testdata/receipts/*.receipt.json")
	if err != nil || len(receipts) == 0 {
		t.Fatalf("%d receipts, %v", len(receipts), err)
	}
	for _, path := range receipts {
		r := readReceipt(t, path)
		command := strings.Contains(path, "command")
		if command {
			r.Settings.Dirs = []receipt.Dir{{Digest: r.Module, Guest: "/data"}}
		}
		s, err := NewStatement(r, Run{})
		if err != nil {
			t.Fatal(err)
		}
		want := Resource{"directory /data", DigestSet{DirDigest: hexOf(r.Module)}}
		if all := s.Predicate.Definition.Dependency; command && !reflect.DeepEqual(all[len(all)-1], want) {
			t.Errorf("the last dependency of a command with a directory is %v, expected %v", all[len(all)-1], want)
		}
		payload, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseStatement(payload); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: got %+v, %v; expected %+v", path, got, err, s)
		}
		if !strings.Contains(path, "context") { // only one of them; it has every field but the aggregate
			continue
		}
		for i := range payload {
			checkStatement(t, payload[:i])
			for _, by := range []byte{1, '"' ^ payload[i], '}' ^ payload[i], 0xff} {
				changed := bytes.Clone(payload)
				changed[i] ^= by
				checkStatement(t, changed)
			}
		}
	}
}

func checkStatement(t *testing.T, payload []byte) {
	t.Helper()
	s, err := ParseStatement(payload)
	if err != nil {
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
		return
	}
	again, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseStatement(again); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v; expected %+v", got, err, s)
	}
}
