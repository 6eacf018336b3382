package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// programsDir is the module that names the programs and their versions.
const programsDir = "../../testdata/programs"

// TestPrograms runs existing programs as WASI commands, and compares their outputs and
// exit codes with those of the same programs built for this machine.
func TestPrograms(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("compiling Go programs takes a minute, and several under the race detector: run without -short and -race")
	}
	download := exec.Command("go", "mod", "download")
	download.Dir = programsDir
	if out, err := download.CombinedOutput(); err != nil {
		t.Skipf("the programs' sources cannot be had: %v: %s", err, firstLineOf(out))
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	records := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `{"name":"n%d","price":%d.5,"tags":["t%d","größe",null],"nested":{"deep":[%d,{"x":true}]}}`+"\n", i%17, i*7919%1000, i%5, i)
		}
		return b.String()
	}
	table := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "key%d\t%d\tword%d and more\n", i%13, i*i%97, i)
		}
		return b.String()
	}
	for _, test := range []struct {
		name, pkg string
		args      []string
		files     map[string]string // that it finds in its directory
		chunks    []string
	}{
		{
			"gojq", "github.com/itchyny/gojq/cmd/gojq",
			[]string{"-c", "--slurpfile", "rates", "rates.json", "-f", "query.jq"},
			map[string]string{
				"rates.json": `{"n1": 2, "n2": 3.25}`,
				"query.jq":   `. as $r | select(.price > 100) | {name, cost: (.price * ($rates[0][.name] // 1)), tags: (.tags | map(. // "none") | join("+")), n: (.nested | tostring | length), m: (.name | test("^n1"))}`,
			},
			[]string{"", records(1), records(500), "{", `{"price":"x"}` + "\n" + records(2), "nul", `{"price":1e500,"name":null}`},
		},
		{
			"goawk", "github.com/benhoyt/goawk",
			[]string{"-F", "\t", "-f", "sum.awk", "names.txt", "-"},
			map[string]string{
				"names.txt": "key1 one\nkey2 two\n",
				"sum.awk": `FILENAME == "names.txt" { split($0, p, " "); name[p[1]] = p[2]; next }
{ sum[$1] += $2; gsub(/word/, "w", $3); last[$1] = $3; if (length($1) > 100) { print "too long"; exit 3 } }
END { for (i = 0; i < 13; i++) { k = "key" i; if (k in sum) printf "%s %s %d %.3f %s\n", k, name[k], sum[k], sqrt(sum[k]), last[k] } }`,
			},
			[]string{"", table(1), table(2000), "no tabs\n", strings.Repeat("x", 200), "größe\t1.5e3\tü\n"},
		},
		{
			"glua", "github.com/yuin/gopher-lua/cmd/glua",
			[]string{"job.lua", "3"},
			map[string]string{
				"job.lua": `local stem = require("stem")
local count = {}
for line in io.lines() do
  if line == "fail" then io.stderr:write("told to fail\n") os.exit(tonumber(arg[1])) end
  if line == "error" then error({}) end
  for w in line:gmatch("%a+") do w = stem(w) count[w] = (count[w] or 0) + 1 end
end
local words = {}
for w in pairs(count) do words[#words + 1] = w end
table.sort(words, function(a, b) if count[a] ~= count[b] then return count[a] > count[b] end return a < b end)
for i = 1, math.min(#words, 20) do print(("%-10s %4d %.4f"):format(words[i], count[words[i]], math.log(count[words[i]]))) end`,
				"stem.lua": `return function(w) return (w:lower():gsub("s$", "")) end`,
			},
			[]string{"", "Words and more words\n", table(1500), "a\nfail\n", "x\nerror\n"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, content := range test.files {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			native := buildProgram(t, test.pkg, nil)
			wasm := buildProgram(t, test.pkg, []string{"GOOS=wasip1", "GOARCH=wasm"})
			outputs, failures := runCommands(t, wasm, dir, test.args, test.chunks)
			failed := 0
			for i, chunk := range test.chunks {
				stdout, code := runNative(t, native, dir, test.args, chunk)
				switch message := failures[i]; {
				case code != 0:
					failed++
					if got, _, _ := strings.Cut(strings.TrimPrefix(message, "guest: exit code "), ":"); got != strconv.Itoa(code) {
						t.Errorf("chunk %d: failure %q, and built for this machine, exit code %d", i, message, code)
					}
				case message != "":
					t.Errorf("chunk %d failed with %q, and not where it is built for this machine", i, message)
				case outputs[i] != stdout:
					t.Errorf("chunk %d gave\n%.300s\nand built for this machine\n%.300s", i, outputs[i], stdout)
				}
			}
			if failed == 0 || failed == len(test.chunks) {
				t.Errorf("%d of %d chunks failed: there should be some of both kinds", failed, len(test.chunks))
			}
		})
	}
}

func firstLineOf(b []byte) string {
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}

func buildProgram(t *testing.T, pkg string, env []string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	if runtime.GOOS == "windows" && env == nil {
		out += ".exe"
	}
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", out, pkg)
	build.Dir = programsDir
	build.Env = append(os.Environ(), append(env, "GOFLAGS=", "CGO_ENABLED=0")...)
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", build, err, text)
	}
	return out
}

// runNative runs a program in a directory, with no environment.
func runNative(t *testing.T, program, dir string, args []string, stdin string) (stdout string, code int) {
	t.Helper()
	var out bytes.Buffer
	c := &exec.Cmd{Path: program, Args: append([]string{"command"}, args...), Dir: dir, Env: []string{}, Stdin: strings.NewReader(stdin), Stdout: &out}
	err := c.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), 0
}

// runCommands runs a WASI command over chunks, with a directory as its root. It returns
// the output or the failure of each chunk.
func runCommands(t *testing.T, wasm, dir string, args, chunks []string) (outputs, failures map[int]string) {
	t.Helper()
	report := filepath.Join(t.TempDir(), "report.json")
	var file []byte
	for _, chunk := range chunks {
		file = abi.AppendText(file, chunk)
	}
	run := []string{"wasm-jobs", "run", wasm, "-", "--no-store", "--progress", "none", "--dir", dir + ":/", "--outputs", "-", "--report", report, "--retries", "0"}
	for _, arg := range args {
		run = append(run, "--arg="+arg)
	}
	var out, stderr bytes.Buffer
	if code := Main(context.Background(), run, bytes.NewReader(file), &out, &stderr); code > exitFailed {
		t.Fatalf("exit code %d: %s", code, stderr.String())
	}
	outputs, failures = map[int]string{}, map[int]string{}
	for b := out.Bytes(); len(b) > 0; {
		size, err := abi.ItemSize(b)
		if err != nil {
			t.Fatal(err)
		}
		id, _, err := abi.FindID(b[:size], "id")
		if err != nil {
			t.Fatal(err)
		}
		n, _ := id.Int()
		item := b[len(abi.AppendText(id.AppendCBOR(abi.AppendText(b[:0:0], "id")), "output"))+1 : size] // behind the map's head
		h, err := abi.ReadHead(item)
		if err != nil || h.Major != abi.MajorBytes {
			t.Fatalf("chunk %v: the output is not a byte string: %x", id, item)
		}
		outputs[int(n)] = string(item[h.Size:])
		b = b[size:]
	}
	var r host.Report
	b, err := os.ReadFile(report)
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Failures {
		n, _ := f.ID.Int()
		failures[int(n)] = string(f.Class) + ": " + f.Message
	}
	return outputs, failures
}
