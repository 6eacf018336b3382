package guestexamples_test

import (
	"bytes"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestPi(t *testing.T) {
	g := loadFile(t, "pi/c/pi.wasm")
	var outputs [][]byte
	var inside, samples uint64
	for _, chunk := range []any{0, 1, 511, 512, 100_000, map[string]any{"id": "x", "n": 100_000}} {
		output := g.must(t, abi.ExportExec, encode(t, chunk))
		var pair [2]uint64
		if err := cbor.Unmarshal(output, &pair); err != nil || pair[0] > pair[1] {
			t.Errorf("%v: %v, %v", chunk, pair, err)
		}
		inside, samples = inside+pair[0], samples+pair[1]
		outputs = append(outputs, output)
	}
	if estimate := 4 * float64(inside) / float64(samples); samples != 201_024 || estimate < 3.1 || estimate > 3.2 {
		t.Errorf("%d of %d samples inside: %v", inside, samples, estimate)
	}
	want := encodePi(t, 4*float64(inside)/float64(samples), inside, samples)
	whole := g.must(t, abi.ExportAggregate, entries(outputs...))
	none := g.must(t, abi.ExportAggregate, entries())
	merged := g.must(t, abi.ExportMerge, array(g.must(t, abi.ExportAggregate, entries(outputs[:3]...)), none,
		g.must(t, abi.ExportAggregate, entries(outputs[3:]...))))
	if !bytes.Equal(whole, want) || !bytes.Equal(merged, want) {
		t.Errorf("aggregate %x, merge %x, want %x", whole, merged, want)
	}
	if want := encodePi(t, nil, 0, 0); !bytes.Equal(none, want) {
		t.Errorf("aggregate of nothing: %x, want %x", none, want)
	}
	for _, chunk := range []any{-1, "1", 1.5, map[string]any{"m": 1}} {
		if _, err := g.run(t.Context(), &call{}, abi.ExportExec, encode(t, chunk)); err != (failure{abi.FailPermanent, "not a number of samples"}) {
			t.Errorf("%v: %v", chunk, err)
		}
	}
	// 2048 requests of 512 samples make one heartbeat.
	if _, err := g.run(t.Context(), &call{}, abi.ExportExec, encode(t, 2048*512)); err != (failure{abi.FailRetryable, "cancelled, or no random bytes"}) {
		t.Errorf("cancelled: %v", err)
	}
}

// encodePi keeps all eight bytes of a float; the deterministic encoding uses the
// shortest form.
func encodePi(t *testing.T, pi any, inside, samples uint64) []byte {
	t.Helper()
	mode, err := cbor.EncOptions{Sort: cbor.SortCoreDeterministic}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(map[string]any{"pi": pi, "inside": inside, "samples": samples})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
