package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// TestImpureGuest runs a Go guest with every impurity it can have, over its chunks in
// any order, by any number of workers, in both isolation modes.
func TestImpureGuest(t *testing.T) {
	if testing.Short() || raceDetector {
		t.Skip("compiling a Go guest takes seconds, and 20 under the race detector: run without -short and -race")
	}
	dir := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", filepath.Join(dir, "cache"))
	wasm := filepath.Join(dir, "impure.wasm")
	build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", wasm, "../../testdata/impure")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var chunks [][]byte
	for id := range uint64(60) {
		chunks = append(chunks, abi.IntID(id).AppendCBOR(append([]byte{0xa1, 0x62}, "id"...)))
	}
	outputs := func(flags ...string) []byte {
		t.Helper()
		rand.Shuffle(len(chunks), func(i, j int) { chunks[i], chunks[j] = chunks[j], chunks[i] })
		var out, messages bytes.Buffer
		args := append([]string{"wasm-jobs", "run", wasm, "-", "--outputs", "-", "--no-store"}, flags...)
		if code := Main(t.Context(), args, bytes.NewReader(bytes.Join(chunks, nil)), &out, &messages); code != exitOK {
			t.Fatalf("%q: exit %d: %s", flags, code, &messages)
		}
		return out.Bytes()
	}
	want := outputs("-j", "1")
	for _, flags := range [][]string{{"-j", "1"}, {"-j", "2"}, {"-j", "16"}, {"-j", "2", "--isolation", "instance"}, {"-j", "3", "--no-metering"}} {
		if got := outputs(flags...); !bytes.Equal(got, want) {
			t.Errorf("%q gave other outputs", flags)
		}
	}
	if bytes.Equal(outputs("--seed", "1"), want) {
		t.Error("another seed gave the same outputs")
	}
	if n := bytes.Count(want, []byte("call 1 of")); n != len(chunks) {
		t.Errorf("%d of %d calls were the first", n, len(chunks))
	}
}
