package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// chunksOf returns a copy of each chunk of a source.
func chunksOf(seq sources.Source) (items [][]byte, err error) {
	for item, err := range seq {
		if err != nil {
			return nil, err
		}
		items = append(items, bytes.Clone(item))
	}
	return items, nil
}

func input(b []byte) sources.Input { return sources.Input{Name: "in", Reader: bytes.NewReader(b)} }

// throughFile writes chunks to a chunk file, and reads them back.
func throughFile(t *testing.T, items [][]byte) iter.Seq[chunks.Chunk] {
	var file bytes.Buffer
	w := chunks.NewWriter(&file)
	for _, item := range items {
		if err := w.Write(item); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return func(yield func(chunks.Chunk) bool) {
		for chunk, err := range chunks.Stream(t.Context(), &file, chunks.Options{NoIDKey: true}) {
			if err != nil {
				t.Fatalf("%x: %v", items, err)
			}
			if !yield(chunk) {
				return
			}
		}
	}
}

// asText returns the output of cat for chunks.
func asText(t *testing.T, items [][]byte, format string) []byte {
	var out bytes.Buffer
	b := bufio.NewWriter(&out)
	cat := concatenation{format: format, w: b, file: chunks.NewWriter(b), table: outputs.NewChunkTable(b)}
	for chunk := range throughFile(t, items) {
		if err := cat.add(chunk); err != nil {
			t.Fatalf("%x: %v", chunk.Bytes, err)
		}
	}
	if err := cat.end(); err != nil {
		t.Fatal(err)
	}
	if err := b.Flush(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// checkBack checks that cat is the inverse of a source: its output makes the same
// chunks again. The error is the source's, if it refuses the content.
func checkBack(t *testing.T, content []byte, format string, source func(sources.Input) sources.Source) error {
	t.Helper()
	items, err := chunksOf(source(input(content)))
	if err != nil || len(items) == 0 {
		return err
	}
	if format == "json" && len(items) == 1 && items[0][0]>>5 == abi.MajorArray {
		return nil // a file that is one array has the chunks in it
	}
	text := asText(t, items, format)
	again, err := chunksOf(source(input(text)))
	if err != nil || len(again) != len(items) {
		t.Fatalf("%q became %q: %d chunks, want %d (%v)", content, text, len(again), len(items), err)
	}
	for i := range items {
		if !bytes.Equal(again[i], items[i]) {
			t.Fatalf("%q became %q: chunk %d is %x, want %x", content, text, i, again[i], items[i])
		}
	}
	return nil
}

func csvSource(in sources.Input) sources.Source { return sources.CSV(in, sources.CSVOptions{}) }

// FuzzJSONLinesBack checks that JSON lines come back unchanged from a chunk file.
func FuzzJSONLinesBack(f *testing.F) {
	for i, s := range []string{"[1,2]\n[3,4]\n", "[]", "[[0]]", `{"a":{"b":[]},"":"\u2028\ud83d\ude00"}` + "\r\n-0", "-0.0\n1e300\n123456789012345678901234567890\n-1"} {
		f.Add([]byte(s), uint64(i))
	}
	f.Fuzz(func(t *testing.T, content []byte, seed uint64) {
		_ = checkBack(t, content, "json", sources.JSONLines)
		random := rand.New(rand.NewPCG(seed, 1))
		if err := checkBack(t, randomLines(random), "json", sources.JSONLines); err != nil {
			t.Error(err)
		}
	})
}

// FuzzCSVBack checks that CSV records come back unchanged from a chunk file.
func FuzzCSVBack(f *testing.F) {
	for i, s := range []string{"a,b\r\n\"x\r\ny\",1\r\n", "a\n1\n\n3\n", "a\n\"\"\nx\n\"\"\n", "\"\"\n1\n", "a,b\r1,2\r3,4\r", "\"\ufeffa\"\n\ufeff\n"} {
		f.Add([]byte(s), uint64(i))
	}
	f.Fuzz(func(t *testing.T, content []byte, seed uint64) {
		_ = checkBack(t, content, "csv", csvSource)
		random := rand.New(rand.NewPCG(seed, 2))
		if err := checkBack(t, randomTable(random), "csv", csvSource); err != nil {
			t.Error(err)
		}
	})
}

// randomText returns a text that is likely to contain special characters of the
// formats.
func randomText(random *rand.Rand) string {
	special := []string{"", ",", "\"", "\r\n", "\n", "\r", " ", "\t", "\ufeff", `\.`, "\\", "\x00", "\u2028", "\u00a0", "é", "😀", "x", "null", "1"}
	var text strings.Builder
	for range random.IntN(4) {
		text.WriteString(special[random.IntN(len(special))])
	}
	return text.String()
}

func randomLines(random *rand.Rand) []byte {
	var lines bytes.Buffer
	for range random.IntN(4) {
		line, err := json.Marshal(randomValue(random, 3))
		if err != nil {
			panic(err)
		}
		lines.Write(append(line, []string{"\n", "\r\n", " \n"}[random.IntN(3)]...))
	}
	return lines.Bytes()
}

func randomValue(random *rand.Rand, depth int) any {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch random.IntN(kinds) {
	case 0:
		return json.Number(fmt.Sprint(int64(random.Uint64()) >> random.IntN(64)))
	case 1:
		return json.Number(fmt.Sprintf("%d%018d", random.Uint64(), random.Uint32()))
	case 2:
		return random.NormFloat64() * []float64{1, 1e300, 1e-310, 0}[random.IntN(4)]
	case 3:
		return []any{nil, true, false}[random.IntN(3)]
	case 4, 5:
		return randomText(random)
	case 6:
		all := []any{}
		for range random.IntN(4) {
			all = append(all, randomValue(random, depth-1))
		}
		return all
	}
	all := map[string]any{}
	for range random.IntN(4) {
		all[randomText(random)] = randomValue(random, depth-1)
	}
	return all
}

// randomTable returns CSV with any line ends, in which any field may be quoted.
func randomTable(random *rand.Rand) []byte {
	end := []string{"\n", "\r\n", "\r"}[random.IntN(3)]
	columns := 1 + random.IntN(3)
	var table bytes.Buffer
	for row := range 1 + random.IntN(4) {
		for column := range columns {
			if column > 0 {
				table.WriteByte(',')
			}
			field := randomText(random)
			if row == 0 {
				field += fmt.Sprint(column)
			}
			if random.IntN(2) == 0 || strings.ContainsAny(field, "\",\r\n") {
				field = `"` + strings.ReplaceAll(field, `"`, `""`) + `"`
			}
			table.WriteString(field)
		}
		table.WriteString(end)
	}
	return table.Bytes()
}

// All text formats refuse text that is not UTF-8, anywhere in a chunk. CBOR keeps it.
func TestNotUTF8(t *testing.T) {
	for name, chunk := range map[string]string{
		"a value":       "\xa1\x61a\x61\xff",
		"a key":         "\xa1\x61\xff\x01",
		"in parts":      "\xa1\x61a\x7f\x61\xc3\xff",
		"within a tag":  "\xa1\x61a\xc0\x61\xff",
		"in the second": "\xa2\x61a\x5f\x41\xff\xff\x61b\x61\xff",
	} {
		for _, format := range []string{"json", "diag", "csv", "cbor"} {
			var out bytes.Buffer
			b := bufio.NewWriter(&out)
			cat := concatenation{format: format, w: b, file: chunks.NewWriter(b), table: outputs.NewChunkTable(b)}
			err := cat.add(chunks.Chunk{Bytes: []byte(chunk)})
			if (err == nil) != (format == "cbor") || err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("%s: %s: %v", name, format, err)
			}
		}
	}
}
