package wasmjobs

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
)

type point struct {
	X int8    `cbor:"x"`
	Y float32 `cbor:"y"`
}

type chunk struct {
	embedded
	Name   string           `cbor:"name"`
	Data   []byte           `cbor:"data"`
	Key    [4]byte          `cbor:"key"`
	Points []point          `cbor:"points"`
	Counts map[string]uint8 `cbor:"counts"`
	Pair   struct {
		_    struct{} `cbor:",toarray"`
		A, B bool
	} `cbor:"pair"`
	Next  *chunk          `cbor:"next,omitempty"`
	Extra any             `cbor:"extra,omitempty"`
	Raw   cbor.RawMessage `cbor:"raw,omitempty"`
	Seven uint64          `cbor:"7,keyasint"`
}

type embedded struct {
	ID uint64 `cbor:"id"`
}

func valid() map[any]any {
	return map[any]any{
		"id": 1, "name": "a", "data": []byte{1}, "key": []byte{1, 2, 3, 4}, "points": []any{map[string]any{"x": -128, "y": 1}},
		"counts": map[string]int{"a": 255}, "pair": []bool{true, false}, 7: 1,
	}
}

// with returns a valid chunk with one key changed. deleted removes the key.
func with(key, value any) map[any]any {
	c := valid()
	c[key] = value
	if value == deleted {
		delete(c, key)
	}
	return c
}

var deleted any = "deleted"

func TestWrongChunks(t *testing.T) {
	f := Exec(func(c chunk) (chunk, error) { return c, nil })
	for _, tt := range []struct {
		chunk any
		want  string // "" = it is read
	}{
		{valid(), ""},
		{with("next", nil), ""},
		{with("next", valid()), ""},
		{with("extra", []any{nil, 1.5}), ""},
		{with("raw", nil), ""},
		{nil, "chunk: want a map, got null"},
		{1, "chunk: want a map, got an integer"},
		{[]int{1}, "chunk: want a map, got an array"},
		{cbor.Tag{Number: 5, Content: valid()}, "chunk: want a map, got tag 5"},
		{with("id", deleted), "chunk.id: missing"},
		{with("id", nil), "chunk.id: want an integer, got null"},
		{with("id", -1), "chunk.id: -1 is out of range for uint64"},
		{with("id", 1.0), "chunk.id: want an integer, got a float"},
		{with("unknown", 1), `chunk: unknown key "unknown"`},
		{with("Name", "a"), `chunk: unknown key "Name"`},
		{with(8, 1), "chunk: unknown key 8"},
		{with(7, deleted), "chunk.7: missing"},
		{with("name", []byte("a")), "chunk.name: want a text, got a byte string"},
		{with("name", cbor.Tag{Number: 1, Content: "a"}), "chunk.name: want a text, got tag 1"},
		{with("name", cbor.RawMessage("\x61\xff")), "chunk.name: not UTF-8"},
		{with("data", []int{1}), "chunk.data: want a byte string, got an array"},
		{with("data", nil), "chunk.data: want a byte string, got null"},
		{with("key", []byte{1}), "chunk.key: want a length of 4, got 1"},
		{with("points", nil), "chunk.points: want an array, got null"},
		{with("points", []any{map[string]any{"x": 1, "y": 1}, map[string]any{"x": 128, "y": 1}}), "chunk.points[1].x: 128 is out of range for int8"},
		{with("points", []any{map[string]any{"x": 1, "y": 1 << 24}}), "chunk.points[0].y: 16777216 does not fit float32 exactly"},
		{with("counts", map[string]int{"b": 256}), `chunk.counts["b"]: 256 is out of range for uint8`},
		{with("counts", map[int]int{1: 1}), "chunk.counts(key): want a text, got an integer"},
		{with("counts", cbor.RawMessage("\xa2\x61a\x01\x61a\x02")), "duplicate map key"},
		{with("pair", []bool{true}), "chunk.pair.B: missing"},
		{with("pair", []bool{true, true, true}), "chunk.pair: more than 2 elements"},
		{with("next", with("name", true)), "chunk.next.name: want a text, got a boolean"},
		{cbor.RawMessage("\xa2\x62id\x01\x62id\x01"), "chunk.id: duplicate key"},
		{cbor.RawMessage("\xa2\x62id"), "EOF"},
		{cbor.RawMessage("\x01\x02"), "extra"},
	} {
		b, err := cbor.Marshal(tt.chunk)
		if raw, ok := tt.chunk.(cbor.RawMessage); ok {
			b, err = raw, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		output, err := f.Call(b)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%v: %v", tt.chunk, err)
		case tt.want == "":
			if again, err := f.Call(output); err != nil || !bytes.Equal(again, output) {
				t.Errorf("%v: the output is read as %x, %v", tt.chunk, again, err)
			}
		case err == nil || !strings.Contains(err.Error(), tt.want):
			t.Errorf("%v: got %v, want %s", tt.chunk, err, tt.want)
		case kindOf(err) != permanent:
			t.Errorf("%v: kind %d", tt.chunk, kindOf(err))
		}
	}
}

func TestNilSliceIsRead(t *testing.T) {
	type lists struct {
		A []int          `cbor:"a"`
		B map[string]int `cbor:"b"`
		C []byte         `cbor:"c"`
	}
	output, err := Exec(func(bool) (lists, error) { return lists{}, nil }).Call([]byte{0xf5})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Exec(func(l lists) (int, error) { return 0, nil }).Call(output); err != nil {
		t.Errorf("%x: %v", output, err)
	}
}

func TestKinds(t *testing.T) {
	for kind, err := range map[uint32]error{permanent: io.EOF, retryable: Retryable(io.EOF), requeue: errors.Join(Requeue(io.EOF))} {
		_, got := Exec(func(int) (int, error) { return 0, err }).Call([]byte{1})
		if kindOf(got) != kind || !errors.Is(got, io.EOF) || got.Error() != "EOF" {
			t.Errorf("kind %d, %v; want %d", kindOf(got), got, kind)
		}
	}
}

func TestFolding(t *testing.T) {
	var ids []string
	sum := Aggregate(func(outputs iter.Seq2[ID, int]) (total int, err error) {
		for id, n := range outputs {
			if n < 0 {
				break
			}
			ids = append(ids, id.String())
			total += n
		}
		return total, nil
	})
	product := Merge(func(partials iter.Seq[int]) (int, error) {
		n := 1
		for p := range partials {
			n *= p
		}
		return n, nil
	})
	for _, tt := range []struct {
		f           *Function
		input, want string
		fails       string
	}{
		{sum, "80", "00", ""},
		{sum, "83820003820104826161181a", "1821", ""},
		{sum, "8382000382012082026178", "03", ""}, // stops before the text
		{sum, "8282000382016178", "", "chunk 1: output: want an integer, got a text"},
		{sum, "818100", "", "want a pair"},
		{sum, "81822001", "", "invalid id"},
		{sum, "a0", "", "want an array"},
		{product, "80", "01", ""},
		{product, "9f0304ff", "0c", ""},
		{product, "8203f6", "", "number 1: partial result: want an integer, got null"},
	} {
		input, err := hex.DecodeString(tt.input)
		if err != nil {
			t.Fatal(err)
		}
		output, err := tt.f.Call(input)
		if hex.EncodeToString(output) != tt.want || (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: got %x, %v; want %s, %s", tt.input, output, err, tt.want, tt.fails)
		}
	}
	if got := strings.Join(ids, " "); got != `0 1 "a" 0 0` {
		t.Error("ids", got)
	}
}

func TestSetup(t *testing.T) {
	type config struct {
		N int `cbor:"n"`
	}
	var got *config
	f := Setup(func(c *config) error { got = c; return nil })
	if _, err := f.Call([]byte{0xf6}); err != nil || got != nil {
		t.Error(got, err)
	}
	if _, err := f.Call([]byte("\xa1\x61n\x05")); err != nil || got.N != 5 {
		t.Error(got, err)
	}
	if _, err := f.Call([]byte{0xa0}); err == nil || err.Error() != "context.n: missing" {
		t.Error(err)
	}
}

// A well-formed item comes back as an item with the same meaning, and that item
// comes back unchanged.
func FuzzValue(f *testing.F) {
	for _, seed := range []string{"00", "fa7fc00001", "bf61615f4101ffff", "a201f60102", "c249010000000000000000", "f820", "f7", "fb3ff0000000000000"} {
		b, err := hex.DecodeString(seed)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	echo := Exec(func(v Value) (Value, error) { return v, nil })
	f.Fuzz(func(t *testing.T, item []byte) {
		once, err := echo.Call(item)
		if err != nil {
			if cbor.Wellformed(item) == nil && !strings.Contains(err.Error(), "exceeded") {
				t.Errorf("%x: %v", item, err)
			}
			return
		}
		twice, err := echo.Call(once)
		// A length takes more bytes than the two that mark the ends of an array or a map
		// of more than 255 elements.
		if err != nil || !bytes.Equal(once, twice) || len(once) > len(item)+len(item)/256 {
			t.Errorf("%x gave %x, and that %x, %v", item, once, twice, err)
		}
	})
}

func TestValue(t *testing.T) {
	v, err := ValueOf(map[string]any{"n": -3, "t": "x"})
	if err != nil {
		t.Fatal(err)
	}
	n, _ := v.Get("n")
	text, _ := v.Get("t")
	i, isInt := n.Int()
	s, isText := text.Text()
	if i != -3 || !isInt || s != "x" || !isText {
		t.Errorf("%d %v %q %v", i, isInt, s, isText)
	}
	if _, ok := (Value{Kind: KindMap, Items: append(v.Items, v.Items...)}).Get("n"); ok {
		t.Error("Get returns a duplicate key")
	}
	type typed struct {
		N int    `cbor:"n"`
		T string `cbor:"t"`
	}
	if got, err := Decode[typed](v); err != nil || got != (typed{-3, "x"}) {
		t.Error(got, err)
	}
	for _, bad := range []Value{
		{Kind: KindTag}, {Kind: KindMap, Items: []Value{Null}}, {Kind: KindSimple, Num: 24}, {Kind: KindSimple, Num: 256}, {Kind: 99},
	} {
		if b, err := bad.MarshalCBOR(); err == nil {
			t.Errorf("%v is written as %x", bad, b)
		}
	}
	deep := Null
	for range maxDepth + 1 {
		deep = Value{Kind: KindArray, Items: []Value{deep}}
	}
	if _, err := deep.MarshalCBOR(); err == nil {
		t.Error("257 levels are written")
	}
}
