package arrow

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// lines returns the rows of data as JSON lines, and the error that ended them.
func lines(t testing.TB, b []byte, o Options) (string, error) {
	t.Helper()
	if o.MaxRow == 0 {
		o.MaxRow = 1 << 20
	}
	var s strings.Builder
	w := bufio.NewWriter(&s)
	defer w.Flush()
	for row, err := range Rows(iotest.HalfReader(bytes.NewReader(b)), o) {
		if err != nil {
			w.Flush()
			return s.String(), err
		}
		if err := abi.CheckItem(row); err != nil {
			t.Fatalf("%x: %v", row, err)
		}
		if err := notation.WriteJSON(w, row); err != nil {
			t.Fatal(err)
		}
		w.WriteByte('\n')
	}
	w.Flush()
	return s.String(), nil
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Files and streams of another implementation have the values that were put in.
func TestFiles(t *testing.T) {
	paths, _ := filepath.Glob("testdata/*.arrow*")
	if len(paths) < 6 {
		t.Fatalf("only %d files", len(paths))
	}
	for _, path := range paths {
		name, _, _ := strings.Cut(strings.TrimSuffix(path, filepath.Ext(path)), "_")
		got, err := lines(t, read(t, path), Options{})
		if want := string(read(t, name+".jsonl")); got != want || err != nil {
			t.Errorf("%s: error %v, got\n%s", path, err, got)
		}
	}
}

func TestColumns(t *testing.T) {
	b := read(t, "testdata/types.arrows")
	got, err := lines(t, b, Options{Columns: []string{"u64", "dict"}})
	if want := "{\"u64\":18446744073709551615,\"dict\":\"one\"}\n"; !strings.HasPrefix(got, want) || err != nil {
		t.Errorf("%s, error %v", got, err)
	}
	if _, err := lines(t, b, Options{Columns: []string{"none"}}); err == nil || err.Error() != `missing column "none"` {
		t.Errorf("error %v", err)
	}
	if _, err := lines(t, b, Options{MaxRow: 20}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
}

// A file that ends anywhere too early is an error, wherever it ends.
func TestTruncated(t *testing.T) {
	whole := read(t, "testdata/more_zstd.arrow")
	for size := range len(whole) {
		if _, err := lines(t, whole[:size], Options{}); err == nil {
			t.Fatalf("%d of %d bytes: no error", size, len(whole))
		}
	}
	for name, b := range map[string]string{"empty": "", "text": "a,b\n1,2\n3,4\n", "Parquet": "PAR1aaaaaaaaaaaaaaaaaaPAR1"} {
		if _, err := lines(t, []byte(b), Options{}); err != ErrNot {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// No data makes the reader panic, or take more than it may.
func FuzzRows(f *testing.F) {
	paths, _ := filepath.Glob("testdata/*.arrow*")
	for _, path := range paths {
		f.Add(read(f, path))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := 0
		for row, err := range Rows(bytes.NewReader(b), Options{MaxRow: 1 << 16}) {
			if err != nil {
				if strings.ContainsAny(err.Error(), "\r\n") {
					t.Fatalf("%q has several lines", err)
				}
				return
			}
			if err := abi.CheckItem(row); err != nil {
				t.Fatalf("%x: %v", row, err)
			}
			if n++; n > 1000 {
				return
			}
		}
	})
}
