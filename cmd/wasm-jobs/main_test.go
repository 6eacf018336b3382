package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestMain makes the real command available to scripts as "wasm-jobs".
func TestMain(m *testing.M) {
	if raceDetector {
		os.Setenv("GORACE", raceOptions+" "+os.Getenv("GORACE"))
	}
	if strings.HasSuffix(os.Args[0], ".test") && signal.Ignored(syscall.SIGHUP) {
		// Tests were started with nohup. The commands that they start must not inherit it.
		signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	}
	testscript.Main(m, map[string]func(){
		"wasm-jobs": func() {
			os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
		},
	})
}

// raceOptions are for the hundreds of processes that tests start. Otherwise the race
// detector makes each of them sleep for a second before it exits, in case goroutines
// are still running. The command waits for all of its goroutines.
const raceOptions = "atexit_sleep_ms=0"

// TestScripts runs the real binary. In scripts, $GUESTS is the folder of the example
// guests and $WASM the folder of the small test modules; "cbor FILE JSON..." writes a
// sequence of items, "hex FILE HEX..." bytes; "job VAR REPORT" sets VAR to the id of a
// report's job; "tamper TO FROM OLD NEW" replaces text, in which ? is any character;
// "edit TO FROM ID [JSON]" changes an output, or removes it; "database VAR" sets VAR
// to the URL of a new database; "start", "see" and "end" are about a command that goes
// on.
func TestScripts(t *testing.T) {
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	compiled := t.TempDir() // shared by all scripts, which use few modules
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			cache := filepath.Join(e.WorkDir, ".cache")
			if err := os.MkdirAll(filepath.Join(cache, "wasm-jobs"), 0o700); err != nil {
				return err
			}
			if err := os.Symlink(compiled, filepath.Join(cache, "wasm-jobs", "compiled")); err != nil {
				return err
			}
			e.Setenv("GUESTS", filepath.Join(root, "guest-examples"))
			e.Setenv("WASM", filepath.Join(root, "testdata", "wasm"))
			e.Setenv("COMMAND", filepath.Join(root, "testdata", "command", "command.wasm"))
			e.Setenv("XDG_CACHE_HOME", cache)
			e.Setenv("GORACE", os.Getenv("GORACE"))
			e.Setenv("GOCOVERDIR", os.Getenv("GOCOVERDIR"))
			return nil
		},
		Condition: func(condition string) (bool, error) {
			switch condition {
			case "race":
				return raceDetector, nil
			case "postgres":
				return pgtest.Installed(), nil
			}
			return false, fmt.Errorf("unknown condition %q", condition)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"cbor": writeCBOR, "hex": writeHex, "job": readJob, "tamper": tamper, "edit": editOutputs,
			"serve": startServing, "stop": stopServing, "http": askServer, "database": newDatabase(t),
			"start": startBackground, "see": see, "end": end,
		},
	})
}

// newDatabase returns the command of scripts that sets a variable to the URL of a new
// database.
func newDatabase(t *testing.T) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, _ bool, args []string) {
		ts.Setenv(args[0], pgtest.Shared(t).Database(t))
	}
}

func readJob(ts *testscript.TestScript, _ bool, args []string) {
	var report struct{ Job string }
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &report))
	if report.Job == "" {
		ts.Fatalf("%s does not name a job", args[1])
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

// integers converts JSON numbers to integers.
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

func tamper(ts *testscript.TestScript, _ bool, args []string) {
	old := regexp.MustCompile(strings.ReplaceAll(regexp.QuoteMeta(args[2]), `\?`, "."))
	text := ts.ReadFile(args[1])
	at := old.FindStringIndex(text)
	if at == nil {
		ts.Fatalf("%s has no %s", args[1], args[2])
	}
	changed := text[:at[0]] + args[3] + text[at[1]:]
	if changed == text {
		ts.Fatalf("%s does not change", args[1])
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(changed), 0o600))
}

func editOutputs(ts *testscript.TestScript, _ bool, args []string) {
	id, err := abi.ParseID(args[2])
	ts.Check(err)
	var replacement []byte
	if len(args) > 3 {
		replacement, err = notation.ParseExact([]byte(args[3]))
		ts.Check(err)
	}
	claimed, err := fileOutputs(context.Background(), ts.MkAbs(args[1]))
	ts.Check(err)
	defer claimed.Close()
	var out []byte
	for o, err := range claimed.All(context.Background()) {
		ts.Check(err)
		output := o.Output
		if o.ID == id {
			output = replacement
		}
		if output != nil {
			out = abi.AppendOutput(out, o.ID, output)
		}
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), out, 0o600))
}

func writeHex(ts *testscript.TestScript, _ bool, args []string) {
	b, err := hex.DecodeString(strings.Join(args[1:], ""))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o600))
}

// command returns the real command.
func command(args ...string) *exec.Cmd {
	return &exec.Cmd{Path: os.Args[0], Args: append([]string{"wasm-jobs"}, args...)}
}
