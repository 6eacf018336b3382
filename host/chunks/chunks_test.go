package chunks_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// unhex returns the bytes of a hex string, which may contain blanks.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// open scans data as a file.
func open(t testing.TB, data []byte, o chunks.Options) (*chunks.File, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "chunks.cbor")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if o.Name == "" {
		o.Name = "chunks.cbor"
	}
	f, err := chunks.Open(t.Context(), path, o)
	if err == nil {
		t.Cleanup(func() { f.Close() })
	}
	return f, err
}

// dump returns each chunk in id order as "id=hex".
func dump(t testing.TB, f *chunks.File) []string {
	t.Helper()
	all := []string{}
	err := f.Read(context.Background(), 0, f.Len(), func(i int, chunk []byte) error {
		if i != len(all) || f.Size(i) != len(chunk) {
			t.Errorf("chunk %d: handed out as %d with %d bytes, Size says %d", len(all), i, len(chunk), f.Size(i))
		}
		all = append(all, f.ID(i).String()+"="+hex.EncodeToString(chunk))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// naiveDigest computes the input digest directly from its definition.
func naiveDigest(t testing.TB, f *chunks.File) [32]byte {
	t.Helper()
	var tree merkle.Tree
	for i := range f.Len() {
		err := f.Read(context.Background(), i, i+1, func(i int, chunk []byte) error {
			tree.Add(abi.AppendEntry(nil, f.ID(i), chunk))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return tree.Root()
}

const (
	a1 = "a1 62 6964 01"    // {"id": 1}
	a2 = "a1 62 6964 02"    // {"id": 2}
	ax = "a1 62 6964 61 78" // {"id": "x"}
	k7 = "a1 61 6b 07"      // {"k": 7}
)

func TestChunksAndTheirIDs(t *testing.T) {
	tests := []struct {
		name string
		hex  string
		o    chunks.Options
		want []string
	}{
		{"an empty file holds none", "", chunks.Options{}, []string{}},
		{"an empty array holds none", "80", chunks.Options{}, []string{}},
		{"an empty indefinite array holds none", "9fff", chunks.Options{}, []string{}},
		{"an empty array in a sequence is a chunk", "80", chunks.Options{Format: chunks.Sequence}, []string{"0=80"}},
		{"a sequence is numbered by position", "01 f6 4100", chunks.Options{}, []string{"0=01", "1=f6", "2=4100"}},
		{"so is an array", "83 01 f6 4100", chunks.Options{}, []string{"0=01", "1=f6", "2=4100"}},
		{"so is an indefinite array", "9f 01 f6 4100 ff", chunks.Options{}, []string{"0=01", "1=f6", "2=4100"}},
		{"an array head may be longer than needed", "9b0000000000000001 05", chunks.Options{}, []string{"0=05"}},
		{"arrays are chunks after a first item that is not an array", "01 80", chunks.Options{}, []string{"0=01", "1=80"}},
		{"arrays are chunks in format Sequence", "8101 8102", chunks.Options{Format: chunks.Sequence}, []string{"0=8101", "1=8102"}},
		{"a tagged array is a chunk", "d9d9f7 820102", chunks.Options{}, []string{"0=d9d9f7820102"}},
		{"stated ids order the chunks", a2 + a1, chunks.Options{}, []string{"1=a162696401", "2=a162696402"}},
		{"texts come after integers", ax + a2 + a1, chunks.Options{},
			[]string{"1=a162696401", "2=a162696402", `"x"=a16269646178`}},
		{"a map without the key is numbered by position", a2 + "07" + k7, chunks.Options{IDKey: "k"},
			[]string{"0=a162696402", "1=07", "7=a1616b07"}},
		{"a stated id may take an unused position's place", "07 a1626964 1863 08", chunks.Options{},
			[]string{"0=07", "2=08", "99=a16269641863"}},
		{"ids that are their positions", "a162696400" + a1, chunks.Options{}, []string{"0=a162696400", "1=a162696401"}},
		{"another key", k7 + a1, chunks.Options{IDKey: "k"}, []string{"1=a162696401", "7=a1616b07"}},
		{"no key", a2 + a2 + "a16269646161", chunks.Options{NoIDKey: true},
			[]string{"0=a162696402", "1=a162696402", "2=a16269646161"}},
		{"no key allows ids of any type", "a1626964 80", chunks.Options{NoIDKey: true}, []string{"0=a162696480"}},
		{"integers sort by value, not by length", "a1626964 190100 a1626964 18ff", chunks.Options{},
			[]string{"255=a162696418ff", "256=a1626964190100"}},
		{"texts sort bytewise", "a1626964 6162 a1626964 626161 a1626964 60", chunks.Options{},
			[]string{`""=a162696460`, `"aa"=a1626964626161`, `"b"=a16269646162`}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := unhex(t, tt.hex)
			f, err := open(t, data, tt.o)
			if err != nil {
				t.Fatal(err)
			}
			if got := dump(t, f); !slices.Equal(got, tt.want) {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
			if f.Digest() != naiveDigest(t, f) {
				t.Error("the digest differs from the definition")
			}
			if got := len(f.Warnings()) == 1; got != (len(data) == 0) {
				t.Errorf("warnings %q", f.Warnings())
			}
			spooled, err := chunks.Spool(t.Context(), iotest.OneByteReader(bytes.NewReader(data)), tt.o)
			if err != nil {
				t.Fatal(err)
			}
			defer spooled.Close()
			if got := dump(t, spooled); !slices.Equal(got, tt.want) || spooled.Digest() != f.Digest() {
				t.Errorf("spooled: got %q", got)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	const (
		formats = "; Format Sequence takes each item of the file as a chunk, Format Array takes each element of one array"
		keys    = "; use another IDKey, or NoIDKey"
	)
	var syntax *abi.SyntaxError
	tests := []struct {
		name  string
		hex   string
		o     chunks.Options
		cause error // nil means a syntax error
		want  string
	}{
		{"an empty file as an array", "", chunks.Options{Format: chunks.Array}, io.ErrUnexpectedEOF,
			"chunks.cbor: empty: want one array of chunks" + formats},
		{"a sequence as an array", "01", chunks.Options{Format: chunks.Array}, chunks.ErrFormat,
			"chunks.cbor: the first item is not an array: want one array of chunks" + formats},
		{"a sequence that begins with an array", "820102 05", chunks.Options{}, chunks.ErrFormat,
			"chunks.cbor: byte 3: more bytes after the array of 2 chunks" + formats},
		{"bytes after an indefinite array", "9f01ff ff", chunks.Options{Format: chunks.Array}, chunks.ErrFormat,
			"chunks.cbor: byte 3: more bytes after the array of 1 chunks" + formats},
		{"a chunk that ends early", "01 420a", chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 1 (byte 1): truncated: the input ends at byte 3 within the chunk"},
		{"an array that ends early", "8301", chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 1 (byte 2): truncated: the array ends after 1 of 3 chunks"},
		{"an array without its break", "9f01", chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 1 (byte 2): truncated: the array does not end after 1 chunks"},
		{"an array whose head ends early", "9a0000", chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 0 (byte 0): truncated: the input ends at byte 3 within the chunk"},
		{"a count that no file can hold", "9bffffffffffffffff 01", chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 1 (byte 10): truncated: the array ends after 1 of 18446744073709551615 chunks"},
		{"a malformed array head", "9c", chunks.Options{}, nil,
			"chunks.cbor: chunk 0 (byte 0): reserved additional information 28"},
		{"a malformed chunk", "01 8201fe", chunks.Options{}, nil,
			"chunks.cbor: chunk 1 (byte 3): reserved additional information 30"},
		{"a break between chunks", "01 ff", chunks.Options{}, nil,
			"chunks.cbor: chunk 1 (byte 1): break outside an item of indefinite length"},
		{"a malformed item within a huge map", "01 bbffffffffffffffff 01 ff", chunks.Options{}, nil,
			"chunks.cbor: chunk 1 (byte 11): break outside an item of indefinite length"},
		{"a string of a length that cannot be", "01 5bffffffffffffffff", chunks.Options{}, chunks.ErrTooLarge,
			"chunks.cbor: chunk 1 (byte 1): too large: more than 67108864 bytes; MaxChunk sets the limit"},
		{"a chunk above the limit", "01 4401020304", chunks.Options{MaxChunk: 4}, chunks.ErrTooLarge,
			"chunks.cbor: chunk 1 (byte 1): too large: more than 4 bytes; MaxChunk sets the limit"},
		{"a chunk above the limit that never ends", "9f 9f0101010101", chunks.Options{MaxChunk: 4}, chunks.ErrTooLarge,
			"chunks.cbor: chunk 0 (byte 1): too large: more than 4 bytes; MaxChunk sets the limit"},
		{"JSON objects", hex.EncodeToString([]byte(`{"id": 1}`)), chunks.Options{}, chunks.ErrTooLarge,
			"chunks.cbor: chunk 0 (byte 0): too large: more than 67108864 bytes; it looks like JSON: chunk files are CBOR"},
		{"JSON in short", hex.EncodeToString([]byte(`[1]`)), chunks.Options{}, io.ErrUnexpectedEOF,
			"chunks.cbor: chunk 0 (byte 0): truncated: the input ends at byte 3 within the chunk; it looks like JSON: chunk files are CBOR"},
		{"an id of the wrong type", "01 a162696420", chunks.Options{}, abi.ErrIDType,
			`chunks.cbor: chunk 1 (byte 1): invalid id: want an unsigned integer or a text in UTF-8 (key "id")` + keys},
		{"an id that is not UTF-8", "a162696461ff", chunks.Options{}, abi.ErrIDType,
			`chunks.cbor: chunk 0 (byte 0): invalid id: want an unsigned integer or a text in UTF-8 (key "id")` + keys},
		{"the key twice", "a2 626964 01 626964 02", chunks.Options{}, abi.ErrIDTwice,
			`chunks.cbor: chunk 0 (byte 0): duplicate id key (key "id")` + keys},
		{"two chunks with one id", a2 + "05" + a2, chunks.Options{}, chunks.ErrDuplicateID,
			"chunks.cbor: chunk 2 (byte 6): duplicate id 2, first used by chunk 0 (byte 0)" + keys},
		{"the earliest of several duplicates", ax + a2 + ax + a2, chunks.Options{}, chunks.ErrDuplicateID,
			`chunks.cbor: chunk 2 (byte 11): duplicate id "x", first used by chunk 0 (byte 0)` + keys},
		{"a stated id that is another's position", "05" + "a162696400", chunks.Options{}, chunks.ErrDuplicateID,
			"chunks.cbor: chunk 1 (byte 1): duplicate id 0, first used by chunk 0 (byte 0)" + keys},
		{"an id text above its limit", "a1626964 7a00010001" + strings.Repeat("61", 1<<16+1), chunks.Options{}, chunks.ErrTooLarge,
			"chunks.cbor: chunk 0 (byte 0): id too large: a text of 65537 bytes, want at most 65536" + keys},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := unhex(t, tt.hex)
			_, err := open(t, data, tt.o)
			if err == nil || err.Error() != tt.want {
				t.Fatalf("got  %v\nwant %s", err, tt.want)
			}
			if _, ok := errors.AsType[*chunks.InputError](err); !ok {
				t.Errorf("got a %T, want an *InputError", err)
			}
			if tt.cause == nil && !errors.As(err, &syntax) || tt.cause != nil && !errors.Is(err, tt.cause) {
				t.Errorf("cause is %v, want %v", errors.Unwrap(err), tt.cause)
			}
			tt.o.Name = "chunks.cbor"
			_, err = chunks.Spool(t.Context(), iotest.OneByteReader(bytes.NewReader(data)), tt.o)
			if err == nil || err.Error() != tt.want {
				t.Errorf("spooled: got %v", err)
			}
		})
	}
}

func TestNestingCountsFromTheChunk(t *testing.T) {
	deep := strings.Repeat("81", abi.MaxDepth) + "00"
	if _, err := open(t, unhex(t, "81"+deep), chunks.Options{}); err != nil {
		t.Errorf("%d levels within the file's array: %v", abi.MaxDepth, err)
	}
	if _, err := open(t, unhex(t, "01 81"+deep), chunks.Options{}); err == nil {
		t.Errorf("%d levels in a chunk of a sequence were taken", abi.MaxDepth+1)
	}
}

func TestAnIDOfTheLargestSize(t *testing.T) {
	one := "a1626964 7a00010000" + strings.Repeat("61", chunks.MaxTextID)
	two := "a1626964 7a00010000" + strings.Repeat("62", chunks.MaxTextID)
	f, err := open(t, unhex(t, two+one), chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"a", "b"} {
		if got, _ := f.ID(i).Text(); got != strings.Repeat(want, chunks.MaxTextID) {
			t.Errorf("ID(%d) has %d bytes, begins %.3q", i, len(got), got)
		}
	}
}

// Every truncation of a file is refused, or holds only the first chunks.
func TestTruncationsAtEveryByte(t *testing.T) {
	sequence := unhex(t, a2+"c2420102"+ax+"5f4101ff"+"bf01fbffffffffffffffffff"+"9f8080ff")
	array := append([]byte{0x86}, sequence...)
	for name, data := range map[string][]byte{"sequence": sequence, "array": array} {
		whole, err := chunks.Spool(t.Context(), bytes.NewReader(data), chunks.Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		defer whole.Close()
		for n := range data {
			f, err := chunks.Spool(t.Context(), bytes.NewReader(data[:n]), chunks.Options{})
			if err == nil {
				if f.Close(); f.Len() >= whole.Len() || name == "array" && n > 0 {
					t.Errorf("%s cut at byte %d holds %d chunks", name, n, f.Len())
				}
				continue
			}
			input, ok := errors.AsType[*chunks.InputError](err)
			if !ok || !errors.Is(err, io.ErrUnexpectedEOF) || input.Offset > int64(n) {
				t.Errorf("%s cut at byte %d: %v", name, n, err)
			}
		}
	}
}

// A large chunk that arrives slowly is read whole, and so are the small chunks
// around it.
func TestChunksLargerThanTheWindow(t *testing.T) {
	big := append(abi.AppendHead(nil, abi.MajorArray, 1<<20), make([]byte, 1<<20)...)
	data := append([]byte{0x01}, big...)
	data = append(append(data, big...), 0x02)
	for name, r := range map[string]io.Reader{
		"whole reads": bytes.NewReader(data),
		"half reads":  iotest.HalfReader(bytes.NewReader(data)),
		"eof early":   iotest.DataErrReader(bytes.NewReader(data)),
	} {
		f, err := chunks.Spool(t.Context(), r, chunks.Options{})
		if err != nil {
			t.Fatal(name, err)
		}
		defer f.Close()
		var got []byte
		err = f.Read(t.Context(), 0, f.Len(), func(_ int, chunk []byte) error {
			got = append(got, chunk...)
			return nil
		})
		if err != nil || f.Len() != 4 || !bytes.Equal(got, data) {
			t.Errorf("%s: %d chunks, %d bytes, %v", name, f.Len(), len(got), err)
		}
	}
}

// kibibytes returns n chunks of 1024 bytes each.
func kibibytes(n int) []byte {
	one := append(abi.AppendHead(nil, abi.MajorBytes, 1021), make([]byte, 1021)...)
	return bytes.Repeat(one, n)
}

// endless repeats one byte for ever and counts the bytes that were read.
type endless struct {
	b byte
	n int64
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.b
	}
	e.n += int64(len(p))
	return len(p), nil
}

func TestEndlessInputIsRefusedAtTheLimit(t *testing.T) {
	const limit = 1 << 20
	for name, head := range map[string]string{
		"an array without end": "01 9f",
		"a nested long string": "01 8201 5b00ffffffffffffff",
		"a map of 2^63 pairs":  "01 bb8000000000000000",
	} {
		tail := &endless{}
		r := io.MultiReader(bytes.NewReader(unhex(t, head)), tail)
		_, err := chunks.Spool(t.Context(), r, chunks.Options{MaxChunk: limit})
		if !errors.Is(err, chunks.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
		if tail.n > 3*limit {
			t.Errorf("%s: %d bytes read, the limit is %d", name, tail.n, limit)
		}
	}
}

func TestBadInputIsRefusedWithoutWaitingForItsEnd(t *testing.T) {
	tail := &endless{b: 0xff}
	if _, err := chunks.Spool(t.Context(), tail, chunks.Options{}); err == nil {
		t.Fatal("breaks were taken as chunks")
	}
	if tail.n > 1<<20 {
		t.Errorf("%d bytes read to refuse the first", tail.n)
	}
}

func TestOpenRefusesWhatIsNoFile(t *testing.T) {
	dir := t.TempDir()
	_, err := chunks.Open(t.Context(), dir, chunks.Options{Name: "d"})
	if err == nil || err.Error() != "d: is a directory; want a chunk file" {
		t.Errorf("a directory: %v", err)
	}
	_, err = chunks.Open(t.Context(), filepath.Join(dir, "none"), chunks.Options{Name: "none"})
	if input, ok := errors.AsType[*chunks.InputError](err); !ok || !errors.Is(err, os.ErrNotExist) || input.Name != "none" {
		t.Errorf("a missing file: %v", err)
	}
}

func TestOpenKeepsADeviceInATemporaryFile(t *testing.T) {
	f, err := chunks.Open(t.Context(), os.DevNull, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if f.Len() != 0 || len(f.Warnings()) != 1 {
		t.Errorf("%d chunks, warnings %q", f.Len(), f.Warnings())
	}
}

func TestSpoolLeavesNoFileBehind(t *testing.T) {
	for name, data := range map[string]string{"good": "010203", "bad": "01ff"} {
		dir := t.TempDir()
		f, err := chunks.Spool(t.Context(), bytes.NewReader(unhex(t, data)), chunks.Options{TempDir: dir})
		if err == nil {
			err = f.Close()
		}
		if left, _ := os.ReadDir(dir); len(left) != 0 || (err != nil) != (name == "bad") {
			t.Errorf("%s: left %v, error %v", name, left, err)
		}
	}
}

func TestSpoolNeedsItsDirectory(t *testing.T) {
	_, err := chunks.Spool(t.Context(), strings.NewReader("\x01"), chunks.Options{TempDir: filepath.Join(t.TempDir(), "none")})
	if _, isInput := errors.AsType[*chunks.InputError](err); isInput || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want the system's error and no InputError", err)
	}
}

func TestReadErrorsOfTheInput(t *testing.T) {
	broken := errors.New("broken pipe")
	r := io.MultiReader(strings.NewReader("\x01\x02\x42"), iotest.ErrReader(broken))
	_, err := chunks.Spool(t.Context(), r, chunks.Options{})
	input, ok := errors.AsType[*chunks.InputError](err)
	if !ok || !errors.Is(err, broken) || input.Position != 2 || input.Offset != 2 {
		t.Errorf("got %v", err)
	}
	if _, err = chunks.Spool(t.Context(), silent{}, chunks.Options{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

type silent struct{}

func (silent) Read([]byte) (int, error) { return 0, nil }

func TestContextEndsAScan(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	reads := 0
	stop := readerFunc(func(p []byte) (int, error) {
		if reads++; reads > 100 {
			cancel()
		}
		return copy(p, kibibytes(1)), nil
	})
	if _, err := chunks.Spool(ctx, stop, chunks.Options{}); err != context.Canceled {
		t.Errorf("Spool: %v", err)
	}
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte{1}, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := chunks.Open(ctx, path, chunks.Options{}); err != context.Canceled {
		t.Errorf("Open: %v", err)
	}
	if _, err := chunks.FromSeq(ctx, seqOf([]byte{1}), chunks.Options{}); err != context.Canceled {
		t.Errorf("FromSeq: %v", err)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestContextInterruptsAWaitingPipe(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := chunks.Spool(ctx, r, chunks.Options{}); err != context.DeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

func TestUnchanged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, []byte{1, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := chunks.Open(t.Context(), path, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Unchanged(); err != nil {
		t.Errorf("untouched: %v", err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := f.Unchanged(); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("another time: %v", err)
	}
	each := func(int, []byte) error { return nil }
	if err := os.Truncate(path, 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Read(t.Context(), 0, 2, each); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("reading an item that was cut off: %v", err)
	}
	if err := os.WriteFile(path, []byte{0x41, 2}, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Read(t.Context(), 0, 1, each); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("reading an item that was overwritten: %v", err)
	}
}

func TestAFileThatGrowsDuringItsScan(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c")
	if err := os.WriteFile(path, kibibytes(2<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	grow := func(int64, int64) {
		if err := os.Truncate(path, 2<<20+1); err != nil {
			t.Error(err)
		}
	}
	if _, err := chunks.Open(t.Context(), path, chunks.Options{Progress: grow}); !errors.Is(err, chunks.ErrChanged) {
		t.Errorf("got %v", err)
	}
}

func TestProgress(t *testing.T) {
	const size = 5 << 20
	var calls []int64
	progress := func(n, total int64) {
		if total != size {
			t.Errorf("total = %d", total)
		}
		calls = append(calls, n)
	}
	if _, err := open(t, kibibytes(size>>10), chunks.Options{Progress: progress}); err != nil {
		t.Fatal(err)
	}
	if len(calls) < 2 || len(calls) > 6 || !slices.IsSorted(calls) || calls[len(calls)-1] != size {
		t.Errorf("progress %v", calls)
	}
}

func seqOf(items ...[]byte) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
}

func TestChunksFromCode(t *testing.T) {
	items := [][]byte{unhex(t, ax), {0x05}, {0x80}}
	o := chunks.Options{TempDir: t.TempDir()}
	f, err := chunks.FromSeq(t.Context(), seqOf(items...), o)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	of, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	defer of.Close()
	if got, want := dump(t, f), []string{"1=05", "2=80", `"x"=a16269646178`}; !slices.Equal(got, want) {
		t.Errorf("FromSeq: %q", got)
	}
	if !slices.Equal(dump(t, of), dump(t, f)) || of.Digest() != f.Digest() {
		t.Errorf("Of: %q", dump(t, of))
	}
	if _, err := chunks.Of(unhex(t, a1), []byte{0x05}); !errors.Is(err, chunks.ErrDuplicateID) {
		t.Errorf("Of with one id twice: %v", err)
	}
	if none, err := chunks.Of(); err != nil || none.Len() != 0 || len(none.Warnings()) != 1 {
		t.Errorf("Of(): %v", err)
	}
}

func TestChunksFromCodeAreChecked(t *testing.T) {
	for name, tt := range map[string]struct {
		item []byte
		want string
	}{
		"nothing":   {nil, "chunks: chunk 1 (byte 1): empty: not a CBOR item"},
		"two items": {[]byte{1, 2}, "chunks: chunk 1 (byte 1): 1 more bytes after the CBOR item that ends at byte 1"},
		"half":      {[]byte{0x42, 1}, "chunks: chunk 1 (byte 1): truncated: the CBOR item does not end within its 2 bytes"},
		"too large": {make([]byte, 9), "chunks: chunk 1 (byte 1): too large: more than 8 bytes; MaxChunk sets the limit"},
	} {
		_, err := chunks.FromSeq(t.Context(), seqOf([]byte{1}, tt.item), chunks.Options{MaxChunk: 8, TempDir: t.TempDir()})
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s: got %v\nwant %s", name, err, tt.want)
		}
	}
	gone := errors.New("gone")
	seq := func(yield func([]byte, error) bool) { yield(nil, gone) }
	if _, err := chunks.FromSeq(t.Context(), seq, chunks.Options{TempDir: t.TempDir()}); !errors.Is(err, gone) {
		t.Errorf("an error of the sequence: %v", err)
	}
}

func TestReadStopsWhereToldTo(t *testing.T) {
	f, err := chunks.Of([]byte{1}, []byte{2}, []byte{3})
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	calls := 0
	err = f.Read(t.Context(), 1, 3, func(i int, chunk []byte) error {
		if calls++; i != 1 || chunk[0] != 2 {
			t.Errorf("chunk %d is %x", i, chunk)
		}
		return stop
	})
	if err != stop || calls != 1 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = f.Read(ctx, 0, 3, func(int, []byte) error { cancel(); calls++; return nil })
	if err != context.Canceled || calls != 2 {
		t.Errorf("got %v after %d calls", err, calls)
	}
	if err := f.Read(t.Context(), 3, 3, nil); err != nil {
		t.Errorf("reading none: %v", err)
	}
}

// Many readers see the same chunks, whatever their order in the file.
func TestConcurrentReads(t *testing.T) {
	const n = 5000
	var data []byte
	random := rand.New(rand.NewPCG(1, 2))
	for _, id := range random.Perm(n) {
		data = append(data, 0xa2, 0x62, 'i', 'd')
		data = abi.AppendHead(data, abi.MajorUint, uint64(id))
		data = append(data, 0x00)
		data = abi.AppendHead(data, abi.MajorUint, uint64(id))
	}
	f, err := open(t, data, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := dump(t, f)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for from := 0; from < n; from += 777 {
				err := f.Read(t.Context(), from, min(from+777, n), func(i int, chunk []byte) error {
					if got := f.ID(i).String() + "=" + hex.EncodeToString(chunk); got != want[i] {
						t.Errorf("chunk %d: %s, want %s", i, got, want[i])
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if f.Digest() != naiveDigest(t, f) {
		t.Error("the digest differs from the definition")
	}
	if f.ID(n-1) != abi.IntID(n-1) || f.ID(0) != abi.IntID(0) {
		t.Error("ids are not in order")
	}
}

func TestReadAfterClose(t *testing.T) {
	f, err := open(t, []byte{1}, chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if err := f.Read(t.Context(), 0, 1, func(int, []byte) error { return nil }); !errors.Is(err, os.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestFormatsRoundTrip(t *testing.T) {
	for _, f := range []chunks.Format{chunks.Auto, chunks.Sequence, chunks.Array} {
		if got, err := chunks.ParseFormat(f.String()); got != f || err != nil {
			t.Errorf("ParseFormat(%q) = %v, %v", f.String(), got, err)
		}
	}
	if _, err := chunks.ParseFormat("json"); err == nil {
		t.Error("json was taken as a format")
	}
}
