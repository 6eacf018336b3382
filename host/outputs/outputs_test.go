package outputs_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// seqOf returns a sequence of JSON values with the ids 0, 1 and so on.
func seqOf(t testing.TB, values ...string) outputs.Seq {
	t.Helper()
	return outputs.Pushed(func(each func(outputs.Output) error) error {
		for i, value := range values {
			item, err := notation.AppendItem(nil, []byte(value))
			if err != nil {
				t.Fatal(err)
			}
			if err := each(outputs.Output{ID: abi.IntID(uint64(i)), Output: item}); err != nil {
				return err
			}
		}
		return nil
	})
}

// numbers returns a sequence of small integers by their ids.
func numbers(pairs ...[2]uint64) outputs.Seq {
	return func(yield func(outputs.Output, error) bool) {
		for _, p := range pairs {
			if !yield(outputs.Output{ID: abi.IntID(p[0]), Output: abi.AppendHead(nil, abi.MajorUint, p[1])}, nil) {
				return
			}
		}
	}
}

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "monday.cbor")
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	err = errors.Join(outputs.Write(w, outputs.CBOR, numbers([2]uint64{1, 1}, [2]uint64{2, 4})), w.Flush(), os.WriteFile(path, b.Bytes(), 0o600))
	if err != nil {
		fmt.Println(err)
		return
	}
	file, err := outputs.Open(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer file.Close()
	for d, err := range outputs.Compare(file.All(context.Background()), numbers([2]uint64{1, 1}, [2]uint64{2, 5})) {
		fmt.Println(d.ID, notation.Brief(d.A, 0), notation.Brief(d.B, 0), err)
	}
	// Output: 2 4 5 <nil>
}

func differencesOf(a, b outputs.Seq) (found []string) {
	for d, err := range outputs.Compare(a, b) {
		if err != nil {
			return append(found, err.Error())
		}
		found = append(found, fmt.Sprintf("%v %x %x", d.ID, d.A, d.B))
	}
	return found
}

func failing(all outputs.Seq) outputs.Seq {
	return func(yield func(outputs.Output, error) bool) {
		for o, err := range all {
			if !yield(o, err) {
				return
			}
		}
		yield(outputs.Output{}, errors.New("broken"))
	}
}

func TestCompare(t *testing.T) {
	one, two := numbers([2]uint64{1, 1}), numbers([2]uint64{1, 1}, [2]uint64{2, 2})
	for _, tt := range []struct {
		name string
		a, b outputs.Seq
		want []string
	}{
		{"nothing", numbers(), numbers(), nil},
		{"the same", two, two, nil},
		{"a has more", two, one, []string{"2 02 "}},
		{"b has more", one, two, []string{"2  02"}},
		{"another", one, numbers([2]uint64{1, 3}), []string{"1 01 03"}},
		{"apart", numbers([2]uint64{1, 1}, [2]uint64{3, 3}), numbers([2]uint64{0, 0}, [2]uint64{2, 2}, [2]uint64{4, 4}), []string{"0  00", "1 01 ", "2  02", "3 03 ", "4  04"}},
		{"a breaks", failing(one), two, []string{"broken"}},
		{"b breaks", two, failing(one), []string{"broken"}},
		{"b breaks at once", two, failing(numbers()), []string{"broken"}},
		{"both break", failing(one), failing(one), []string{"broken"}},
	} {
		if got := differencesOf(tt.a, tt.b); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
		for d, err := range outputs.Compare(tt.a, tt.b) {
			_, _ = d, err
			break // must stop both sequences
		}
	}
}

// Random sequences are compared with maps of their contents.
func TestCompareFindsEach(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var in [2]map[uint64]uint64
		var seqs [2]outputs.Seq
		for i := range in {
			in[i] = map[uint64]uint64{}
			var pairs [][2]uint64
			for id := range uint64(20) {
				if random.IntN(3) > 0 {
					value := random.Uint64N(3)
					in[i][id] = value
					pairs = append(pairs, [2]uint64{id, value})
				}
			}
			seqs[i] = numbers(pairs...)
		}
		var want []string
		for id := range uint64(20) {
			a, hasA := in[0][id]
			b, hasB := in[1][id]
			if hasA == hasB && a == b {
				continue
			}
			text := func(v uint64, has bool) string {
				if !has {
					return ""
				}
				return fmt.Sprintf("%02x", v)
			}
			want = append(want, fmt.Sprintf("%d %s %s", id, text(a, hasA), text(b, hasB)))
		}
		if got := differencesOf(seqs[0], seqs[1]); !slices.Equal(got, want) {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

func TestPushed(t *testing.T) {
	broken := errors.New("broken")
	all := outputs.Pushed(func(each func(outputs.Output) error) error {
		if err := each(outputs.Output{ID: abi.IntID(1)}); err != nil {
			return err
		}
		return broken
	})
	var got []string
	for o, err := range all {
		got = append(got, fmt.Sprint(o.ID, err))
	}
	if want := []string{"1 <nil>", "0 broken"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for range all {
		break // the pushing function must not yield again
	}
}

func TestOnly(t *testing.T) {
	all := outputs.Only(failing(numbers([2]uint64{1, 1}, [2]uint64{2, 2}, [2]uint64{3, 3})), func(id abi.ID) bool { return id == abi.IntID(2) })
	if got := differencesOf(all, numbers()); !slices.Equal(got, []string{"2 02 ", "broken"}) {
		t.Errorf("%q", got)
	}
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"nothing", "", nil},
		{"two", "\xa2\x62id\x01\x66output\x04\xa2\x62id\x61a\x66output\x80", []string{"1 04 ", "\"a\" 80 "}},
		{"another order of keys", "\xa2\x66output\x04\x62id\x01", []string{"1 04 "}},
		{"no map", "\x01", []string{"f: invalid item 0: want a map of id and output"}},
		{"a key more", "\xa3\x62id\x01\x66output\x04\x61a\x00", []string{"f: invalid item 0: want a map of id and output"}},
		{"no output", "\xa2\x62id\x01\x61a\x00", []string{"f: invalid item 0: want a map of id and output"}},
		{"twice", "\xa2\x62id\x01\x66output\x04\xa2\x62id\x01\x66output\x04", []string{"1 04 ", "f: the output of chunk 1 comes after the output of chunk 1: want outputs in id order, without duplicates"}},
		{"cut off", "\xa2\x62id\x01\x66output", []string{"f: item at position 0, byte 0: cut short"}},
	} {
		got := differencesOf(outputs.Read(t.Context(), "f", strings.NewReader(tt.file)), numbers())
		if tt.name == "cut off" { // the message is from package chunks
			if len(got) != 1 || !strings.HasPrefix(got[0], "f: ") {
				t.Errorf("%s: %q", tt.name, got)
			}
			continue
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]error{filepath.Join(dir, "a.JSONL"): outputs.ErrNotCBOR, filepath.Join(dir, "a.csv"): outputs.ErrNotCBOR, dir: outputs.ErrNotRegular, filepath.Join(dir, "none"): os.ErrNotExist} {
		if f, err := outputs.Open(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, %v; want %v", path, f, err, want)
		}
	}
}

// Columns hold the outputs that fit them. Otherwise the error names the chunk's
// id and the key.
func TestTable(t *testing.T) {
	for _, tt := range []struct {
		name, in  string // JSON lines, one for each output
		want, err string
	}{
		{name: "of nothing", want: "id,output\n"},
		{name: "maps", in: "{\"a\":1,\"b\":null}\n{\"b\":\"x,y\",\"a\":false}", want: "id,a,b\n0,1,\n1,false,\"x,y\"\n"},
		{name: "not a map", in: "1\n{\"a\":1}\n\"t\"\nnull", want: "id,output\n0,1\n1,\"{\"\"a\"\":1}\"\n2,t\n3,\n"},
		{name: "an empty map", in: "{}\n1", want: "id,output\n0,{}\n1,1\n"},
		{name: "a map with an array", in: "{\"a\":[]}\n1", want: "id,output\n0,\"{\"\"a\"\":[]}\"\n1,1\n"},
		{name: "an id, and its column", in: `{"id":1,"output.id":2}`, want: "id,output\n0,\"{\"\"id\"\":1,\"\"output.id\"\":2}\"\n"},
		{name: "another key", in: "{\"a\":1}\n{\"b\":1}", err: `output of chunk 1: unknown key "b"`},
		{name: "a key less", in: "{\"a\":1,\"b\":2}\n{\"b\":1}", err: `output of chunk 1: missing key "a"`},
		{name: "an array later", in: "{\"a\":1}\n{\"a\":[1]}", err: `output of chunk 1: not a map of texts to single values`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			w := bufio.NewWriter(&out)
			var lines []string
			if tt.in != "" {
				lines = strings.Split(tt.in, "\n")
			}
			err := outputs.Write(w, outputs.FormOf("x.CSV"), seqOf(t, lines...))
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

// Outputs that JSON cannot represent give an error in JSON lines and in CSV.
// The error names the chunk. CBOR keeps them.
func TestWhatTextsCannotKeep(t *testing.T) {
	for item, want := range map[string]string{
		"\xa2\x01\x02\x611\x613":         `duplicate key "1" in a map`,
		"\xa1\x61a\x61\xff":              `a text is not UTF-8: "\xff"`,
		"\xa1\x61\xff\x00":               `a text is not UTF-8: "\xff"`,
		"\x61\xff":                       `a text is not UTF-8: "\xff"`,
		"\xa2\x61a\x00\x7f\x61a\xff\x01": `duplicate key "a" in a map`,
	} {
		all := outputs.Pushed(func(each func(outputs.Output) error) error {
			return each(outputs.Output{ID: abi.IntID(7), Output: []byte(item)})
		})
		for _, form := range []outputs.Form{outputs.JSONLines, outputs.CSV} {
			var out bytes.Buffer
			err := outputs.Write(bufio.NewWriter(&out), form, all)
			_, isForm := errors.AsType[*notation.FormError](err)
			if !isForm || !strings.HasPrefix(err.Error(), "output of chunk 7: cannot be written as ") || !strings.HasSuffix(err.Error(), want) {
				t.Errorf("%x as %s: %v, want %s", item, form, err, want)
			}
		}
		var out bytes.Buffer
		w := bufio.NewWriter(&out)
		if err := errors.Join(outputs.Write(w, outputs.CBOR, all), w.Flush()); err != nil || !bytes.HasSuffix(out.Bytes(), []byte(item)) {
			t.Errorf("%x as CBOR: %x, %v", item, &out, err)
		}
	}
}

// A duplicate key would be lost from a record.
func TestTableOfAKeyTwice(t *testing.T) {
	table := outputs.NewTable(new(bytes.Buffer))
	if err := table.Add(outputs.Output{ID: abi.IntID(0), Output: []byte("\xa1\x61a\x00")}); err != nil {
		t.Fatal(err)
	}
	err := table.Add(outputs.Output{ID: abi.IntID(1), Output: []byte("\xa2\x61a\x00\x61a\x01")})
	if err == nil || !strings.HasPrefix(err.Error(), `output of chunk 1: duplicate key "a"`) {
		t.Errorf("%v", err)
	}
}

func TestWriteDiagnostic(t *testing.T) {
	var out bytes.Buffer
	w := bufio.NewWriter(&out)
	err := errors.Join(outputs.Write(w, outputs.Diagnostic, seqOf(t, `{"a":1}`)), w.Flush())
	if want := "{\"id\": 0, \"output\": {\"a\": 1}}\n"; err != nil || out.String() != want {
		t.Errorf("%q, %v; want %q", &out, err, want)
	}
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new")
	temporary := 0
	d, err := outputs.OpenDir(path, outputs.DirOptions{Temporary: func() string {
		temporary++
		return fmt.Sprint("t", temporary)
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(d.Put(outputs.Output{ID: abi.TextID("../a"), Output: []byte{1}}), d.Write("b", nil)); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Write("c", nil); !errors.Is(err, outputs.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	entries, err := os.ReadDir(path)
	if err != nil || temporary != 3 || len(entries) != 2 || entries[1].Name() != "b" {
		t.Errorf("%v, %v", entries, err)
	}
	if _, err := outputs.OpenDir(filepath.Join(path, "b"), outputs.DirOptions{}); err == nil {
		t.Error("a file was taken for a directory")
	}
}
