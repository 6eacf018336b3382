package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// packedAs writes data to a file in a form of compression, in two members.
func packedAs(t *testing.T, dir string, form packed.Form, data []byte) (path string) {
	t.Helper()
	var b bytes.Buffer
	for _, part := range [][]byte{data[:len(data)/2], data[len(data)/2:]} {
		if form == "" {
			b.Write(part)
			continue
		}
		w, err := packed.NewWriter(&b, form)
		if err == nil {
			_, err = w.Write(part)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	path = filepath.Join(dir, "file"+string(form))
	if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// outlined returns the number, digest and ids of the chunks of a file, or its error.
func outlined(file *chunks.File, err error) string {
	if err != nil {
		return strings.NewReplacer(".gz", "", ".zst", "").Replace(err.Error())
	}
	defer file.Close()
	s := fmt.Sprint(file.Len(), file.Digest())
	for i := range file.Len() {
		s += fmt.Sprint(" ", file.ID(i))
	}
	return s
}

// Compressed inputs have the chunks, ids, digests and errors of the plain ones, as chunk
// files and as every kind of text.
func FuzzPacked(f *testing.F) {
	for _, s := range []string{"", "1\n2\n", "a,b\n1,2\n", "[1,\n2]", "\x01\x02\xf6", "{\"id\":1}\r{\"id\":1}", "\xff\n", "\xff\xfea\x00", "\x1f\x8b\x08",
		"\xbb\xbf\xbf\xbf\xbf\xbf\xbf\xbf0\x1f-\x9b09C0000"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if packed.NewReader(bytes.NewReader(data)).Form() != "" {
			return // plain data that looks compressed
		}
		c, dir := &console{err: new(bytes.Buffer)}, t.TempDir()
		plain := packedAs(t, dir, "", data)
		for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
			path := packedAs(t, dir, form, data)
			want := outlined(openChunkFile(t.Context(), c, plain, chunks.Options{}))
			got := outlined(openChunkFile(t.Context(), c, path, chunks.Options{}))
			// A malformed chunk that also says that it is too large is refused for what
			// its first part shows, and a plain file is one part.
			early := strings.Contains(got, "too large") && strings.Contains(want, "(byte ")
			if got != want && !early {
				t.Fatalf("chunk file%s: %s, want %s", form, got, want)
			}
			for _, kind := range []string{"lines", "jsonl", "csv"} {
				want := outlined(scanned(t.Context(), c, kind, plain))
				if got := outlined(scanned(t.Context(), c, kind, path)); got != want {
					t.Fatalf("%s%s: %s, want %s", kind, form, got, want)
				}
			}
		}
	})
}

func scanned(ctx context.Context, c *console, kind string, paths ...string) (*chunks.File, error) {
	s := &source{kind: kind, paths: paths}
	s.csv.Comma = ','
	s.lines.Lines = 1
	if err := s.find(); err != nil {
		return nil, err
	}
	return s.scan(ctx, c, chunks.Options{})
}

// Files of lines are joined as by cat, position by position, and an error names the
// file and its own line.
func FuzzJoined(f *testing.F) {
	f.Add([]byte("a\nb\n"), []byte("c\r\nd"), []byte("e\n"))
	f.Add([]byte("a"), []byte(""), []byte("b\xff\n"))
	f.Add([]byte("a\r"), []byte("\nb\n"), []byte("\xff"))
	f.Fuzz(func(t *testing.T, a, b, d []byte) {
		for _, part := range [][]byte{a, b, d} {
			if packed.NewReader(bytes.NewReader(part)).Form() != "" || bytes.HasPrefix(part, []byte("\xff\xfe")) || bytes.HasPrefix(part, []byte("\xfe\xff")) {
				return
			}
		}
		if whole := slices.Concat(a, b, d); packed.NewReader(bytes.NewReader(whole)).Form() != "" || bytes.HasPrefix(whole, []byte("\xff\xfe")) || bytes.HasPrefix(whole, []byte("\xfe\xff")) {
			return
		}
		dir := t.TempDir()
		files := map[string][]byte{"1": a, "2": b, "3": d, "cat": slices.Concat(a, b, d)}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := &console{err: new(bytes.Buffer)}
		got, err := scanned(t.Context(), c, "lines", filepath.Join(dir, "1"), filepath.Join(dir, "[23]"))
		want, wantErr := scanned(t.Context(), c, "lines", filepath.Join(dir, "cat"))
		if err == nil && wantErr == nil {
			if g, w := outlined(got, nil), outlined(want, nil); g != w {
				t.Fatalf("%s, want %s", g, w)
			}
			return
		}
		defect, ok := errors.AsType[*sources.Error](err)
		if !ok || wantErr == nil || defect.Err != sources.ErrMalformed {
			t.Fatalf("error %v, want %v", err, wantErr)
		}
		content, known := files[filepath.Base(defect.Name)]
		if lines := bytes.Count(content, []byte("\n")) + bytes.Count(content, []byte("\r")) + 1; !known || defect.Line < 1 || defect.Line > lines {
			t.Fatalf("%v: the file has %d lines", err, lines)
		}
	})
}

// A bomb of zeros ends at the limit of a chunk, in whatever form and source.
func TestBombs(t *testing.T) {
	c, dir := &console{err: new(bytes.Buffer)}, t.TempDir()
	for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
		path := packedAs(t, dir, form, make([]byte, 8<<20))
		for _, kind := range []string{"lines", "jsonl", "csv", "files"} {
			s := &source{kind: kind, paths: []string{path}}
			s.csv.Comma = ','
			s.lines.Lines = 1
			if err := s.find(); err != nil {
				t.Fatal(err)
			}
			_, err := s.scan(t.Context(), c, chunks.Options{MaxChunk: 1 << 20})
			if !errors.Is(err, sources.ErrTooLarge) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%s%s: error %v", kind, form, err)
			}
		}
	}
}
