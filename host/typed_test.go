package host_test

import (
	"bytes"
	"errors"
	"iter"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

type request struct {
	N     int64    `cbor:"n"`
	Names []string `cbor:"a"`
}

type reply struct {
	Square int64 `cbor:"square"`
}

// openAnswer opens a guest that is a Go function.
func openAnswer(t *testing.T, answer func(chunk []byte) string) *host.Guest {
	t.Helper()
	f := &fake{exec: func(chunk []byte, _ int) ([]byte, error) { return []byte(answer(chunk)), nil }}
	return open(t, fakeWasm, host.Options{Engine: f})
}

func TestTypedCall(t *testing.T) {
	g := host.TypedGuest[request, uint64]{Guest: open(t, readFile(t, "../guest-examples/square/c/square.wasm"), host.Options{})}
	if got, err := g.Call(t.Context(), request{N: -3}); got != 9 || err != nil {
		t.Errorf("%d, error %v", got, err)
	}
	_, err := g.Call(t.Context(), request{N: 1 << 40})
	if failure, ok := errors.AsType[*abi.Failure](err); !ok || failure.Class != abi.ClassGuest {
		t.Errorf("error %v", err)
	}
}

// Inputs are encoded as required by RFC 8949, section 4.2.1.
func TestTypedEncoding(t *testing.T) {
	var chunks []string
	g := host.TypedGuest[any, any]{Guest: openAnswer(t, func(chunk []byte) string {
		chunks = append(chunks, string(chunk))
		return "\xf6"
	})}
	for _, in := range []any{request{N: 1}, map[string]any{"bb": 1.5, "a": uint64(24)}, []int(nil)} {
		if _, err := g.Call(t.Context(), in); err != nil {
			t.Error(err)
		}
	}
	want := []string{"\xa2\x61a\x80\x61n\x01", "\xa2\x61a\x18\x18\x62bb\xf9\x3e\x00", "\x80"}
	if !slices.Equal(chunks, want) {
		t.Errorf("%x, want %x", chunks, want)
	}
}

func TestTypedDecoding(t *testing.T) {
	isDuplicate := func(err error) bool { _, ok := errors.AsType[*cbor.DupMapKeyError](err); return ok }
	isType := func(err error) bool { _, ok := errors.AsType[*cbor.UnmarshalTypeError](err); return ok }
	none := func(err error) bool { return err == nil }
	many := append(abi.AppendHead(nil, abi.MajorArray, 200_000), bytes.Repeat([]byte{1}, 200_000)...)
	for _, tt := range []struct {
		name, output string
		want         reply
		is           func(error) bool
	}{
		{"a value", "\xa1\x66square\x09", reply{9}, none},
		{"a key without a field", "\xa2\x66square\x09\x61x" + string(many), reply{9}, none},
		{"a key in another case", "\xa1\x66SQUARE\x09", reply{}, none},
		{"a duplicate key", "\xa2\x66square\x09\x66square\x08", reply{}, isDuplicate},
		{"another type", "\xa1\x66square\x61x", reply{}, isType},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := host.TypedGuest[request, reply]{Guest: openAnswer(t, func([]byte) string { return tt.output })}
			got, err := g.Call(t.Context(), request{})
			if got != tt.want || !tt.is(err) {
				t.Errorf("%v, error %v", got, err)
			}
		})
	}
}

// A value that cannot be encoded or does not fit is an error of one chunk.
func TestTypedMap(t *testing.T) {
	g := host.TypedGuest[any, int]{Guest: openAnswer(t, func(chunk []byte) string { return string(chunk) })}
	inputs := host.Values(slices.Values([]any{1, make(chan int), "x", 4}))
	checkTyped(t, "as they finish", g.Map(t.Context(), inputs), false)
	checkTyped(t, "in order", g.MapOrdered(t.Context(), inputs), true)
}

func checkTyped(t *testing.T, name string, seq iter.Seq2[host.TypedOutput[int], error], ordered bool) {
	t.Helper()
	want := map[uint64]int{0: 1, 3: 4}
	var order []uint64
	for o, err := range seq {
		n, _ := o.ID.Int()
		order = append(order, n)
		chunk, isChunk := errors.AsType[*host.ChunkError](err)
		if _, good := want[n]; good != (err == nil) || o.Output != want[n] || err != nil && (!isChunk || chunk.ID != o.ID) {
			t.Errorf("%s: output %v = %d, error %v", name, o.ID, o.Output, err)
		}
	}
	if len(order) != 4 || ordered && !slices.IsSorted(order) {
		t.Errorf("%s: outputs %v", name, order)
	}
}
