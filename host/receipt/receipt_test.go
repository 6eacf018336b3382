package receipt_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

func sample() *receipt.Receipt {
	return &receipt.Receipt{
		Version: 1, Module: receipt.Digest{1}, Chunks: 10, Input: receipt.Digest{2}, Outputs: receipt.Digest{3}, Aggregate: &receipt.Digest{4},
		Fuel: 1<<64 - 1, Settings: receipt.Settings{
			Args: []string{"-v", "a b"}, Context: &receipt.Digest{5}, Dirs: []receipt.Dir{{Digest: receipt.Digest{6}, Guest: "/data"}}, Env: []string{"A=1"},
			Memory: 1 << 20, Metering: true, NaNs: receipt.CanonicalNaNs, Seed: 1<<64 - 1, Stack: 1 << 16, Stdin: receipt.StdinCBOR,
		},
		Engine: receipt.Engine{ABI: 1, Fixes: 1, Metering: 1, Wazero: "v1.2.3-rc.1"},
	}
}

func marshal(t *testing.T, r *receipt.Receipt) []byte {
	t.Helper()
	b, err := r.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestForm checks the bytes against the form that docs/receipt.md describes: keys
// in bytewise order on each level, two spaces a level, ASCII.
func TestForm(t *testing.T) {
	b := marshal(t, sample())
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber() // integers of 64 bits
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	sorted, err := json.MarshalIndent(v, "", "  ") // maps have sorted keys
	if err != nil {
		t.Fatal(err)
	}
	if want := append(sorted, '\n'); !bytes.Equal(b, want) {
		t.Errorf("receipt\n%s\nexpected\n%s", b, want)
	}
	for _, c := range b {
		if c > 126 {
			t.Fatalf("byte %#x is not ASCII", c)
		}
	}
}

func TestParseIsTheInverse(t *testing.T) {
	without := sample()
	without.Aggregate, without.Settings.Context = nil, nil
	texts := sample()
	texts.Settings.Args = []string{"", "é<&>\u2028\"\\\n\x00"}
	for _, r := range []*receipt.Receipt{sample(), without, texts} {
		b := marshal(t, r)
		got, err := receipt.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if differences := receipt.Compare(r, got); len(differences) > 0 || !bytes.Equal(marshal(t, got), b) {
			t.Errorf("read again it differs: %v", differences)
		}
	}
	paths, err := filepath.Glob("../../testdata/receipts/*.receipt.json")
	if err != nil || len(paths) < 5 {
		t.Fatalf("%d receipts, %v", len(paths), err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := receipt.Parse(b); err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// TestDocs checks the receipt in docs/receipt.md against the form described there.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/receipt.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "```json\n")
	text, _, _ := strings.Cut(rest, "```")
	if _, err := receipt.Parse([]byte(text)); err != nil {
		t.Error(err)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(marshal(t, sample()))
	change := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q not found in the receipt", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	tests := []struct{ name, text, says string }{
		{"nothing", "", ": empty"},
		{"half", good[:len(good)/2], "truncated"},
		{"no JSON", "receipt", "invalid character"},
		{"another type", "[]", "cannot unmarshal array"},
		{"too large", strings.Repeat(" ", receipt.MaxSize+1), "too large"},
		{"no newline", strings.TrimSuffix(good, "\n"), "line "},
		{"more after it", good + "{}", "line "},
		{"other white space", change(`"abi": 1`, `"abi":  1`), "line 5"},
		{"another order", change("    \"abi\": 1,\n    \"fixes\": 1,\n", "    \"fixes\": 1,\n    \"abi\": 1,\n"), "line 5"},
		{"a key twice", change(`  "chunks": 10,`, "  \"chunks\": 9,\n  \"chunks\": 10,"), "line 3"},
		{"another case", change(`"chunks"`, `"Chunks"`), "line 3"},
		{"an escape", change(`"v1.2.3`, `"\u007611.2.3`), "line "},
		{"an unknown field", change(`  "chunks": 10,`, "  \"chunks\": 10,\n  \"comment\": \"hi\","), `unknown field "comment"`},
		{"a missing field", change("  \"chunks\": 10,\n", ""), "line 3"},
		{"null", change(`"chunks": 10`, `"chunks": null`), "line 3"},
		{"a float", change(`"chunks": 10`, `"chunks": 10.0`), "chunks"},
		{"a negative number", change(`"chunks": 10`, `"chunks": -1`), "chunks"},
		{"upper case in a digest", change(`sha256:01`, `sha256:0A`), "invalid digest"},
		{"a short digest", change(`sha256:0100`, `sha256:01`), "invalid digest"},
		{"another hash", change(`sha256:01`, `sha512:01`), "invalid digest"},
		{"another version", change(`"version": 1`, `"version": 2`), "version 2"},
		{"another stdin", change(`"stdin": "cbor"`, `"stdin": "raw"`), "settings.stdin"},
		{"no UTF-8", change(`"-v"`, "\"\xff\""), "line "},
		{"an empty list", change("\"args\": [\n      \"-v\",\n      \"a b\"\n    ]", `"args": []`), "line "},
		{"other NaNs", change(`canonical`, `signalling`), "settings.nans"},
		{"no memory", change(`"memory": 1048576`, `"memory": 0`), "settings.memory"},
		{"the default stack", change(`"stack": 65536`, `"stack": 8388608`), "invalid settings.stack 8388608: the default"},
		{"a stack of 0", change(`"stack": 65536`, `"stack": 0`), "line "},
		{"a stack that is not counted", strings.Replace(change(`"metering": true`, `"metering": false`), `"fuel": 18446744073709551615`, `"fuel": 0`, 1), "invalid settings.stack 65536 without metering"},
		{"no metering", change(`"metering": true`, `"metering": false`), "without metering"},
		{"a path as version", change(`v1.2.3-rc.1`, `/home`), "engine.wazero"},
		{"negative fixes", change(`"fixes": 1`, `"fixes": -1`), "invalid engine.fixes -1"},
		{"no engine", change(`"abi": 1`, `"abi": 0`), "engine"},
	}
	for _, test := range tests {
		_, err := receipt.Parse([]byte(test.text))
		if !errors.Is(err, receipt.ErrForm) {
			t.Errorf("%s: error %v", test.name, err)
		} else if !strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: error %q, expected one line with %q", test.name, err, test.says)
		}
	}
}

func TestMarshalRefusesWhatParseDoes(t *testing.T) {
	if _, err := new(receipt.Receipt).Marshal(); err == nil {
		t.Error("an empty receipt was written")
	}
	for _, change := range []func(*receipt.Settings){
		func(s *receipt.Settings) { s.Args[1] = "\xff" }, func(s *receipt.Settings) { s.Env[0] = "A=\xff" }, func(s *receipt.Settings) { s.Dirs[0].Guest = "\xff" },
	} {
		r := sample()
		change(&r.Settings)
		if _, err := r.Marshal(); err == nil || !strings.Contains(err.Error(), "UTF-8") {
			t.Errorf("text that is not UTF-8: %v", err)
		}
	}
	large := sample()
	large.Settings.Args[0] = strings.Repeat("a", receipt.MaxSize)
	if _, err := large.Marshal(); err == nil {
		t.Error("a receipt was written that is too large to be read")
	}
}

// TestCompareNamesEachField changes one field at a time.
func TestCompareNamesEachField(t *testing.T) {
	changes := map[string]func(*receipt.Receipt){
		"version":           func(r *receipt.Receipt) { r.Version = 2 },
		"module":            func(r *receipt.Receipt) { r.Module[31] = 1 },
		"chunks":            func(r *receipt.Receipt) { r.Chunks++ },
		"input":             func(r *receipt.Receipt) { r.Input[31] = 1 },
		"settings.args":     func(r *receipt.Receipt) { r.Settings.Args = nil },
		"settings.dirs":     func(r *receipt.Receipt) { r.Settings.Dirs[0].Digest[31] = 1 },
		"settings.env":      func(r *receipt.Receipt) { r.Settings.Env = append(r.Settings.Env, "B=2") },
		"settings.stdin":    func(r *receipt.Receipt) { r.Settings.Stdin = "" },
		"settings.context":  func(r *receipt.Receipt) { r.Settings.Context = nil },
		"settings.memory":   func(r *receipt.Receipt) { r.Settings.Memory++ },
		"settings.metering": func(r *receipt.Receipt) { r.Settings.Metering = false },
		"settings.nans":     func(r *receipt.Receipt) { r.Settings.NaNs = receipt.NativeNaNs },
		"settings.stack":    func(r *receipt.Receipt) { r.Settings.Stack = 0 },
		"settings.seed":     func(r *receipt.Receipt) { r.Settings.Seed-- },
		"engine.abi":        func(r *receipt.Receipt) { r.Engine.ABI++ },
		"engine.fixes":      func(r *receipt.Receipt) { r.Engine.Fixes = 0 },
		"engine.metering":   func(r *receipt.Receipt) { r.Engine.Metering++ },
		"engine.wazero":     func(r *receipt.Receipt) { r.Engine.Wazero = "v2" },
		"outputs":           func(r *receipt.Receipt) { r.Outputs[31] = 1 },
		"aggregate":         func(r *receipt.Receipt) { r.Aggregate = nil },
		"fuel":              func(r *receipt.Receipt) { r.Fuel-- },
	}
	for name, change := range changes {
		b := sample()
		change(b)
		found := receipt.Compare(sample(), b)
		if len(found) != 1 || found[0].Field != name || found[0].A == found[0].B {
			t.Errorf("%s changed: found %v", name, found)
		}
	}
	if found := receipt.Compare(sample(), sample()); len(found) > 0 {
		t.Errorf("equal receipts differ: %v", found)
	}
	// A field of the format without a change here would not be compared.
	if keys := leaves(t, marshal(t, sample())); keys != len(changes) {
		t.Errorf("a receipt has %d fields, and %d are compared", keys, len(changes))
	}
}

func leaves(t *testing.T, b []byte) (n int) {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	for _, value := range v {
		if inner, isMap := value.(map[string]any); isMap {
			n += len(inner)
		} else {
			n++
		}
	}
	return n
}

func FuzzParse(f *testing.F) {
	b, err := sample().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(fmt.Sprintf("%s ", b)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := receipt.Parse(b)
		if err != nil {
			if !errors.Is(err, receipt.ErrForm) || strings.Contains(err.Error(), "\n") {
				t.Errorf("error %q", err)
			}
			return
		}
		if own, err := r.Marshal(); err != nil || !bytes.Equal(own, b) {
			t.Errorf("the encoding changed after reading: %v", err)
		}
	})
}
