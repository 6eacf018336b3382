package main

import (
	"bufio"
	"context"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// TestAgainstPlainGo counts the words of the Go toolchain's sources with a job and
// without one, and compares every count.
func TestAgainstPlainGo(t *testing.T) {
	if raceDetector {
		t.Skip("runs without the race detector, in a step of its own: make test does both")
	}
	if testing.Short() {
		t.Skip("counts the words of over 10,000 files: skipped with -short")
	}
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Skipf("no Go toolchain whose sources could be counted: %v", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(root)), "src")
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	out := bufio.NewWriter(file)
	files, _, err := write(out, dir, func(fs.FileInfo) bool { return false })
	if err != nil || out.Flush() != nil || file.Close() != nil {
		t.Fatal(err)
	}
	got, want := countInJob(t, path, files), countPlainly(t, dir)
	if len(got) != len(want) {
		t.Errorf("%d words, expected %d", len(got), len(want))
	}
	for word, n := range want {
		if got[word] != n {
			t.Errorf("%q: %d times, expected %d", word, got[word], n)
		}
	}
	t.Logf("%d files, %d different words", files, len(want))
}

func countInJob(t *testing.T, path string, files int) (counts map[string]uint64) {
	wasm, err := os.ReadFile("../c/wordcount.wasm")
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	input, err := chunks.Open(ctx, path, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer input.Close()
	c, err := host.New(ctx, host.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	result, err := c.Run(ctx, &host.Job{Module: wasm, Chunks: input})
	if err != nil {
		t.Fatal(err)
	}
	if r := result.Report; r.Chunks.Succeeded != files || r.Instances.Created != r.Instances.Closed {
		t.Errorf("%d files: %+v, %+v", files, r.Chunks, r.Instances)
	}
	mode, err := cbor.DecOptions{MaxMapPairs: 1 << 30}.DecMode()
	if err != nil {
		t.Fatal(err)
	}
	if err := mode.Unmarshal(result.Aggregate, &counts); err != nil {
		t.Fatal(err)
	}
	return counts
}

func countPlainly(t *testing.T, dir string) map[string]uint64 {
	counts := map[string]*uint64{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		countWords(text, counts)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	plain := make(map[string]uint64, len(counts))
	for word, n := range counts {
		plain[word] = *n
	}
	return plain
}

// countWords lowers text in place.
func countWords(text []byte, counts map[string]*uint64) {
	start := 0
	for i := 0; i <= len(text); i++ {
		if i < len(text) && isWord(text, i) {
			continue
		}
		if word := text[start:i]; len(word) > 0 {
			n := counts[string(word)]
			if n == nil {
				n = new(uint64)
				counts[string(word)] = n
			}
			*n++
		}
		start = i + 1
	}
}

func isWord(text []byte, i int) bool {
	if c := text[i]; c >= 'A' && c <= 'Z' {
		text[i] = c + 'a' - 'A'
	}
	c := text[i]
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
}
