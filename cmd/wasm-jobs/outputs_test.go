package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// from-jsonl makes the same chunk from a value and from the output of cat -f json for
// that chunk.
func FuzzJSONRoundTrip(f *testing.F) {
	for _, s := range []string{"null", "[true,false]", `{"a":{"b":[1,-1,1.5,-0]}}`, "18446744073709551616", "-18446744073709551617", `"\u2028<&>\u0000\ud83d\ude00"`, "1e21", "1e20", "100.0", "5e-324", `{"":""}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, value []byte) {
		item, err := sources.AppendJSON(nil, value)
		if err != nil {
			return
		}
		var line bytes.Buffer
		w := bufio.NewWriter(&line)
		if err := errors.Join(writeItem(w, item, "json"), w.Flush()); err != nil {
			t.Fatal(err)
		}
		again, err := sources.AppendJSON(nil, line.Bytes())
		if err != nil || !bytes.Equal(again, item) || bytes.Count(line.Bytes(), []byte("\n")) != 1 {
			t.Errorf("%q is %x, prints as %q, and that is %x (%v)", value, item, &line, again, err)
		}
	})
}

// inProcess runs the command in this process.
func inProcess(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	var out, err bytes.Buffer
	if code := Main(context.Background(), append([]string{"wasm-jobs"}, args...), bytes.NewReader(in), &out, &err); code != 0 {
		t.Fatalf("%q: exit %d: %s", args, code, &err)
	}
	return out.Bytes()
}

// merge is the inverse of split, for all chunks and ways to split them. The files have
// the even numbers of chunks, or the size, that were asked for.
func TestSplitAndMerge(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	for round := range 60 {
		var file []byte
		count, largest := random.IntN(40), 0
		for range count {
			b := make([]byte, random.IntN(300))
			largest = max(largest, len(b)+3)
			file = append(abi.AppendHead(file, abi.MajorBytes, uint64(len(b))), b...)
		}
		prefix, n := filepath.Join(dir, fmt.Sprint(round)), 1+random.IntN(12)
		how := []string{"-n", fmt.Sprint(n)}
		size := 1 + random.IntN(1000)
		if round%2 == 0 {
			how = []string{"--size", fmt.Sprintf("%dB", size)}
		}
		names := strings.Fields(string(inProcess(t, file, append([]string{"chunks", "split", "-", "-o", prefix}, how...)...)))
		merged := inProcess(t, nil, append([]string{"chunks", "merge", "-o", "-"}, names...)...)
		if !bytes.Equal(merged, file) {
			t.Errorf("%d chunks, split by %v: other bytes came back", count, how)
		}
		if round%2 == 1 && len(names) != n {
			t.Errorf("%d files, want %d", len(names), n)
		}
		for _, name := range names {
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			file, err := chunks.Open(t.Context(), name, chunks.Options{})
			if err != nil {
				t.Fatal(err)
			}
			chunks := file.Len()
			file.Close()
			if round%2 == 0 && len(b) > max(size, largest) || round%2 == 0 && chunks > 1 && len(b) > size {
				t.Errorf("%s has %d bytes in %d chunks, and --size is %d", name, len(b), chunks, size)
			}
			if round%2 == 1 && (chunks < count/n || chunks > (count+n-1)/n) {
				t.Errorf("%s has %d of %d chunks in %d files", name, chunks, count, n)
			}
		}
	}
}
