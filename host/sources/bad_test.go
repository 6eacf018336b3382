package sources_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// skipping returns an input that passes over malformed records, and those.
func skipping(data []byte) (sources.Input, *[]string) {
	bad := new([]string)
	in := sources.Input{Name: "in", Reader: bytes.NewReader(data), Bad: func(defect *sources.Error, raw []byte) error {
		*bad = append(*bad, string(raw))
		return nil
	}}
	return in, bad
}

// items returns the chunks of a source, and its error.
func items(s sources.Source) (all []string, err error) {
	for item, err := range s {
		if err != nil {
			return all, err
		}
		all = append(all, string(item))
	}
	return all, nil
}

// Only malformed records are passed over: what comes before the first is the same as
// without Bad, no malformed record ends the source, and no record has bytes that are
// not in the input.
func FuzzBad(f *testing.F) {
	for _, s := range []string{"", "1,2\n", "1\n\"a\"b\n3,4\n", "\"\n\"\"x\n", "1,\xff\r2,3", "\"a\r\nb\",c\n\"open\n1,2\n", "\"\"\"\n\"\"\"\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		table := append([]byte("a,b\n"), data...)
		of := map[string]func(in sources.Input) sources.Source{
			"csv":   func(in sources.Input) sources.Source { return sources.CSV(in, sources.CSVOptions{}) },
			"jsonl": sources.JSONLines,
			"lines": func(in sources.Input) sources.Source { return sources.Lines(in, sources.LinesOptions{}) },
		}
		for name, source := range of {
			in, bad := skipping(table)
			got, err := items(source(in))
			want, plainErr := items(source(sources.Input{Name: "in", Reader: bytes.NewReader(table)}))
			if err != nil && !strings.Contains(err.Error(), "array") {
				t.Fatalf("%s: %v", name, err)
			}
			if len(got) < len(want) || !slices.Equal(got[:len(want)], want) || plainErr == nil && len(*bad)+len(got) != len(want) {
				t.Fatalf("%s: %q and %q, want %q, error %v", name, got, *bad, want, plainErr)
			}
			if plainErr != nil && err == nil && len(*bad) == 0 {
				t.Fatalf("%s: %v is lost", name, plainErr)
			}
			for _, raw := range *bad {
				if name != "jsonl" && !bytes.Contains(table, []byte(raw)) {
					t.Fatalf("%s: %q is not in the input", name, raw)
				}
			}
		}
	})
}

// The lines of an input are the input, however it is read; each has one line end, at
// its end.
func FuzzLineEnds(f *testing.F) {
	f.Add([]byte("a\rb\r\nc\n\r\n\r\rd"), 1)
	f.Add([]byte("\r"), 2)
	f.Fuzz(func(t *testing.T, data []byte, lines int) {
		lines = max(1, lines&7)
		o := sources.LinesOptions{Cut: sources.Cut{Lines: lines}, Bytes: true}
		whole, err := items(sources.Lines(sources.Input{Name: "in", Reader: bytes.NewReader(data)}, o))
		if err != nil {
			t.Fatal(err)
		}
		parts, err := items(sources.Lines(sources.Input{Name: "in", Reader: oneByte{bytes.NewReader(data)}}, o))
		if err != nil || !slices.Equal(whole, parts) {
			t.Fatalf("%q, by bytes %q, error %v", whole, parts, err)
		}
		want := splitLines(data, lines)
		for i, item := range whole {
			if !strings.HasSuffix(item, want[i]) {
				t.Fatalf("%q, want %q", whole, want)
			}
		}
		if len(whole) != len(want) {
			t.Fatalf("%q, want %q", whole, want)
		}
	})
}

// oneByte reads single bytes.
type oneByte struct{ r *bytes.Reader }

func (o oneByte) Read(b []byte) (int, error) { return o.r.Read(b[:min(1, len(b))]) }

// splitLines is the model of lines: each is the shortest text up to a line end.
func splitLines(data []byte, lines int) (all []string) {
	start, count := 0, 0
	for i := range data {
		if data[i] == '\n' || data[i] == '\r' && (i+1 == len(data) || data[i+1] != '\n') {
			if count++; count == lines {
				all, start, count = append(all, string(data[start:i+1])), i+1, 0
			}
		}
	}
	if start < len(data) {
		all = append(all, string(data[start:]))
	}
	return all
}
