package packed_test

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
)

func pack(t testing.TB, form packed.Form, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := packed.NewWriter(&b, form)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(t testing.TB, r io.Reader) ([]byte, error) {
	t.Helper()
	u := packed.NewReader(r)
	defer u.Close()
	return io.ReadAll(u)
}

// The original data comes back, from one member and from several; plain data is read
// unchanged.
func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte(nil), []byte("x"))
	f.Add([]byte("a\nb\n"), bytes.Repeat([]byte{0}, 1<<17))
	f.Add([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0, 1}, []byte{0x1f})
	f.Fuzz(func(t *testing.T, a, b []byte) {
		both := append(bytes.Clone(a), b...)
		for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
			members := append(pack(t, form, a), pack(t, form, b)...)
			got, err := unpack(t, iotest.HalfReader(bytes.NewReader(members)))
			if err != nil || !bytes.Equal(got, both) {
				t.Fatalf("%s: %d bytes of %d, error %v", form, len(got), len(both), err)
			}
		}
		if got, err := unpack(t, bytes.NewReader(a)); packed.NewReader(bytes.NewReader(a)).Form() == "" && (err != nil || !bytes.Equal(got, a)) {
			t.Fatalf("plain: %q, error %v", got, err)
		}
	})
}

// Parallel compressors begin with a skippable frame.
func TestSkippable(t *testing.T) {
	frame := "\x50\x2a\x4d\x18\x04\x00\x00\x00abcd"
	got, err := unpack(t, strings.NewReader(frame+string(pack(t, packed.Zstd, []byte("inside")))))
	if string(got) != "inside" || err != nil {
		t.Errorf("%q, error %v", got, err)
	}
	if got, err = unpack(t, strings.NewReader(frame+"text")); string(got) != frame+"text" || err != nil {
		t.Errorf("plain: %q, error %v", got, err)
	}
}

func TestDefects(t *testing.T) {
	for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
		whole := pack(t, form, []byte(strings.Repeat("data", 1000)))
		_, err := unpack(t, bytes.NewReader(whole[:len(whole)-1]))
		if err == nil || !strings.Contains(err.Error(), "truncated") || errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s, cut: %v", form, err)
		}
		if _, err = unpack(t, bytes.NewReader(append(bytes.Clone(whole), "more"...))); err == nil {
			t.Errorf("%s: bytes after the end are taken", form)
		}
		damaged := bytes.Clone(whole)
		damaged[len(damaged)-5] ^= 1
		if _, err = unpack(t, bytes.NewReader(damaged)); err == nil {
			t.Errorf("%s: damage is not seen", form)
		}
	}
}

// A defect within the first bytes is not taken for the end, also by a reader that
// looks ahead and drops the error. The offset is that of the compressed data.
func TestTruncated(t *testing.T) {
	for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
		whole := pack(t, form, []byte(strings.Repeat("data", 1000)))
		for size := 4; size < len(whole); size++ {
			r := bufio.NewReader(packed.NewReader(bytes.NewReader(whole[:size])))
			r.Peek(2)
			_, err := io.ReadAll(r)
			defect, ok := errors.AsType[*packed.Error](err)
			if !ok || defect.Err != nil || defect.Offset != int64(size) {
				t.Fatalf("%s, %d of %d bytes: %v", form, size, len(whole), err)
			}
		}
	}
}

// An error of the underlying reader is not an error of the data.
func TestErrorOfReader(t *testing.T) {
	broken := errors.New("broken")
	for _, form := range []packed.Form{packed.Gzip, packed.Zstd} {
		whole := pack(t, form, []byte(strings.Repeat("data", 1000)))
		_, err := unpack(t, io.MultiReader(bytes.NewReader(whole[:20]), iotest.ErrReader(broken)))
		if err != broken {
			t.Errorf("%s: %v", form, err)
		}
	}
}

// TestPadding has zeros after gzip data, which gzip(1) and Python skip, and other bytes.
func TestPadding(t *testing.T) {
	whole := pack(t, packed.Gzip, []byte("data"))
	empty := pack(t, packed.Gzip, nil)
	for name, c := range map[string]struct {
		after []byte
		want  string // of the data or the error
	}{
		"zeros":          {make([]byte, 70_000), "data"},
		"then a member":  {append(make([]byte, 512), whole...), "datadata"},
		"empty members":  {bytes.Repeat(empty, 1000), "data"},
		"a byte":         {[]byte{1}, "truncated gzip data"},
		"other bytes":    {[]byte("0123456789012345"), "damaged gzip data"},
		"half a member":  {whole[:len(whole)-3], "truncated gzip data"},
		"zeros, garbage": {append(make([]byte, 10), "garbage that is long"...), "damaged gzip data"},
	} {
		got, err := unpack(t, io.MultiReader(bytes.NewReader(whole), bytes.NewReader(c.after)))
		if err != nil && !strings.Contains(err.Error(), c.want) || err == nil && string(got) != c.want {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestNames(t *testing.T) {
	for path, want := range map[string][2]string{
		"a.cbor": {"", "a.cbor"}, "a.jsonl.GZ": {".gz", "a.jsonl"}, "d.gz/a": {"", "d.gz/a"}, "a.zst": {".zst", "a"}, "": {"", ""},
	} {
		if form, name := packed.FormOf(path), packed.Trim(path); string(form) != want[0] || name != want[1] {
			t.Errorf("%s: form %q, name %q", path, form, name)
		}
	}
}
