package sdk_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	wasmjobs "github.com/wasm-jobs/wasm-jobs/sdk/go"
)

// nativeC runs lines of requests through the guest conform in C as a program of the
// host, with the sanitizers if the compiler has them.
func nativeC(t *testing.T, compiler string, flags []string, lines []string) []string {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		t.Skip("no compiler for the host:", err)
	}
	program := filepath.Join(t.TempDir(), "native")
	build := func(extra ...string) ([]byte, error) {
		args := append(append([]string{"-O1", "-Wall", "-Wextra", "-Werror", "-o", program}, flags...), extra...)
		return exec.Command(compiler, append(args, "c/native.c")...).CombinedOutput()
	}
	if _, err := build("-fsanitize=address,undefined", "-fno-sanitize-recover=all"); err != nil {
		if out, err := build(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	run := exec.Command(program)
	run.Env = append(os.Environ(), "ASAN_OPTIONS=detect_leaks=0")
	run.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var stderr bytes.Buffer
	run.Stderr = &stderr
	out, err := run.Output()
	if err != nil {
		t.Fatalf("%v\n%.2000s", err, stderr.String())
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(lines) {
		t.Fatalf("%d answers to %d lines", len(answers), len(lines))
	}
	return answers
}

// The header compiles to a program of the host as C17 and as C++, and gives the same
// results as the SDK for Go. Malformed items do not make it read past their end.
func TestNativeC(t *testing.T) {
	lines := []string{
		"x" + hex.EncodeToString([]byte("\xa3\x62do\x64fail\x64kind\x01\x67message\x63why")),
		"x" + hex.EncodeToString([]byte("\xa2\x62do\x64fail\x64kind\x01")),
		"x" + hex.EncodeToString([]byte("\xa1\x62do\x69heartbeat")),
		"s" + hex.EncodeToString([]byte("\xa3\x62do\x64fail\x64kind\x02\x67message\x63not")),
		"a82820001826161fb4000000000000000",
	}
	want := []string{"1 why", "0 message: missing", "f5", "2 not", "82820001826161f94000"}
	echo := wasmjobs.Exec(func(v wasmjobs.Value) (wasmjobs.Value, error) { return v, nil })
	for _, item := range wellFormed(t) {
		output, err := echo.Call(item)
		if err != nil {
			t.Fatalf("%x: %v", item, err)
		}
		lines, want = append(lines, "x"+hex.EncodeToString(item)), append(want, hex.EncodeToString(output))
	}
	checked := len(lines)
	r := rand.New(rand.NewPCG(1, 2))
	for range 3000 {
		b := make([]byte, r.IntN(24))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		for _, export := range "xams" {
			lines = append(lines, fmt.Sprintf("%c%x", export, b))
		}
	}
	for _, tt := range []struct {
		compiler string
		flags    []string
	}{{"cc", []string{"-std=c17"}}, {"c++", []string{"-std=c++17", "-x", "c++"}}} {
		t.Run(tt.compiler, func(t *testing.T) {
			answers := nativeC(t, tt.compiler, tt.flags, lines)
			for i := range checked {
				if answers[i] != want[i] {
					t.Errorf("%s: got %s, want %s", lines[i], answers[i], want[i])
				}
			}
		})
	}
}

// wellFormed returns the items of the ABI's vectors.
func wellFormed(t *testing.T) (items [][]byte) {
	t.Helper()
	b, err := os.ReadFile("../testdata/abi/items.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct {
			Bytes string
			Size  int
		}
	}
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	for _, v := range file.Vectors {
		item, err := hex.DecodeString(strings.ReplaceAll(v.Bytes, " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if v.Size == len(item) && v.Size > 0 {
			items = append(items, item)
		}
	}
	if len(items) < 20 {
		t.Fatal("only", len(items), "items")
	}
	return items
}
