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

// What from-jsonl takes, cat -f json gives back so that from-jsonl makes the
// same chunk of it.
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

// inProcess runs the command here.
func inProcess(t *testing.T, in []byte, args ...string) []byte {
	t.Helper()
	var out, err bytes.Buffer
	if code := Main(context.Background(), append([]string{"wasm-jobs"}, args...), bytes.NewReader(in), &out, &err); code != 0 {
		t.Fatalf("%q: exit %d: %s", args, code, &err)
	}
	return out.Bytes()
}

// Whatever the chunks and the way they are split, merge is the inverse, and the
// files are as even, or as small, as was asked for.
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

// Columns hold what fits them, and else the chunk's id and its key are named.
func TestOutputsCSV(t *testing.T) {
	for _, tt := range []struct {
		name, in  string // JSON lines, of which each is an output
		want, err string
	}{
		{name: "of nothing", want: "id,output\n"},
		{name: "maps", in: "{\"a\":1,\"b\":null}\n{\"b\":\"x,y\",\"a\":false}", want: "id,a,b\n0,1,\n1,false,\"x,y\"\n"},
		{name: "no map", in: "1\n{\"a\":1}\n\"t\"\nnull", want: "id,output\n0,1\n1,\"{\"\"a\"\":1}\"\n2,t\n3,\n"},
		{name: "an empty map", in: "{}\n1", want: "id,output\n0,{}\n1,1\n"},
		{name: "a map with an array", in: "{\"a\":[]}\n1", want: "id,output\n0,\"{\"\"a\"\":[]}\"\n1,1\n"},
		{name: "an id, and its column", in: `{"id":1,"output.id":2}`, want: "id,output\n0,\"{\"\"id\"\":1,\"\"output.id\"\":2}\"\n"},
		{name: "another key", in: "{\"a\":1}\n{\"b\":1}", err: `output of chunk 1: its key "b" is no column`},
		{name: "a key less", in: "{\"a\":1,\"b\":2}\n{\"b\":1}", err: `output of chunk 1: it has no key "a"`},
		{name: "an array later", in: "{\"a\":1}\n{\"a\":[1]}", err: `output of chunk 1: it is no map of texts to single values`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			err := writeOutputsAs(w, "x.CSV", func(each func(abi.ID, []byte) error) error {
				n := uint64(0)
				for item, err := range sources.JSONLines(sources.Input{Reader: strings.NewReader(tt.in)}) {
					if err := errors.Join(err, each(abi.IntID(n), item)); err != nil {
						return err
					}
					n++
				}
				return nil
			})
			if tt.err != "" {
				if err == nil || !strings.HasPrefix(err.Error(), tt.err+": the columns") {
					t.Errorf("error %v, want %s", err, tt.err)
				}
				return
			}
			if err := errors.Join(err, w.Flush()); err != nil || out.String() != tt.want {
				t.Errorf("%q (%v), want %q", &out, err, tt.want)
			}
		})
	}
}

// Bytes, bignums and tags in cells.
func TestOutputsCSVCells(t *testing.T) {
	for in, want := range map[string]string{
		"\x43abc": "YWJj", "\xc2\x49\x01\x00\x00\x00\x00\x00\x00\x00\x00": "18446744073709551616", "\xc3\x41\x00": "-1",
		"\xc0\x61t": "t", "\xf9\x7e\x00": "", "\x61\xff": "\ufffd", "\x7f\x61a\x61b\xff": "ab", "\xf9\x3c\x00": "1.0", "\xc2\x5f\x41\x01\x41\x00\xff": "256",
	} {
		if got := new(csvTable).text([]byte(in)); got != want {
			t.Errorf("%x is the cell %q, want %q", in, got, want)
		}
	}
}
