package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestOutputsAllocateNothing reads the outputs of a part: what an output costs is what a
// fold of a million costs a million times.
func TestOutputsAllocateNothing(t *testing.T) {
	records := make([]store.Record, 1000)
	for i := range records {
		order := binary.BigEndian.AppendUint32(nil, uint32(i))
		records[i] = store.Record{Key: store.Key{Chunk: sha256.Sum256(order), Order: order}, Value: store.Value{Output: order, Fuel: uint64(i)}}
	}
	p := NewPack(records)
	digests := sha256.Sum256(p.Chunks)
	s := &Store{}
	n := testing.AllocsPerRun(10, func() {
		i := 100
		for v, err := range s.outputs(t.Context(), 100, 900, func(int) ([]part, error) {
			return []part{{first: 0, count: p.Count, heads: p.Heads, data: p.Data, chunksSum: digests[:], sum: p.Sum[:]}}, nil
		}) {
			if err != nil || v.Fuel != uint64(i) || binary.BigEndian.Uint32(v.Output) != uint32(i) {
				t.Fatalf("output %d is %v, %v", i, v, err)
			}
			i++
		}
		if i != 900 {
			t.Fatalf("the last output is %d", i-1)
		}
	})
	if n > 20 {
		t.Errorf("800 outputs take %v allocations, want at most 20", n)
	}
}
