package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain makes the real command available to scripts as "wasm-jobs".
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"wasm-jobs": func() {
			os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// TestScripts runs the real binary. In scripts, $GUESTS is the folder of the
// example guests and $WASM that of the small test modules; "cbor FILE JSON..."
// writes a sequence of items, "hex FILE HEX..." bytes; "job VAR REPORT" sets VAR to the
// id of the job that a report is of.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("GUESTS", filepath.Join(root, "guest-examples"))
			e.Setenv("WASM", filepath.Join(root, "testdata", "wasm"))
			e.Setenv("COMMAND", filepath.Join(root, "testdata", "command", "command.wasm"))
			e.Setenv("XDG_CACHE_HOME", filepath.Join(e.WorkDir, ".cache"))
			e.Setenv("GOCOVERDIR", os.Getenv("GOCOVERDIR"))
			return nil
		},
		Condition: func(condition string) (bool, error) {
			if condition != "race" {
				return false, fmt.Errorf("unknown condition %q", condition)
			}
			return raceDetector, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"cbor": writeCBOR, "hex": writeHex, "job": readJob},
	})
}

func readJob(ts *testscript.TestScript, _ bool, args []string) {
	var report struct{ Job string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &report))
	if report.Job == "" {
		ts.Fatalf("%s names no job", args[1])
	}
	ts.Setenv(args[0], report.Job)
}

func writeCBOR(ts *testscript.TestScript, _ bool, args []string) {
	mode, err := cbor.CoreDetEncOptions().EncMode() // keys have one order
	ts.Check(err)
	var out []byte
	for _, text := range args[1:] {
		b, err := mode.Marshal(plain(ts, text))
		ts.Check(err)
		out = append(out, b...)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out, 0o600))
}

func plain(ts *testscript.TestScript, text string) any {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		ts.Fatalf("%s: %v", text, err)
	}
	return integers(v)
}

// integers makes integers of JSON's numbers.
func integers(v any) any {
	switch v := v.(type) {
	case json.Number:
		n, err := v.Int64()
		if err != nil {
			f, _ := v.Float64()
			return f
		}
		return n
	case []any:
		for i := range v {
			v[i] = integers(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = integers(v[key])
		}
	}
	return v
}

func writeHex(ts *testscript.TestScript, _ bool, args []string) {
	b, err := hex.DecodeString(strings.Join(args[1:], ""))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}
