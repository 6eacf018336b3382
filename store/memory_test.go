package store_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

// TestSharedPrefix stores digests that differ in their last byte alone.
func TestSharedPrefix(t *testing.T) {
	m := store.NewMemory()
	var records []store.Record
	for i := range 3 {
		r := store.Record{Key: store.Key{Order: []byte{byte(i)}}, Value: store.Value{Output: []byte{0x10 + byte(i)}}}
		r.Chunk[31] = byte(i)
		records = append(records, r)
	}
	if err := m.Put(t.Context(), store.Action{}, records); err != nil {
		t.Fatal(err)
	}
	found := 0
	keys := []store.Key{records[0].Key, records[1].Key, records[2].Key, {Chunk: store.Digest{31: 9}}}
	err := m.Get(t.Context(), store.Action{}, keys, func(i int, v store.Value) error {
		if found++; v.Output[0] != 0x10+byte(i) {
			t.Errorf("key %d: v.Output %x", i, v.Output)
		}
		return nil
	})
	if err != nil || found != 3 {
		t.Errorf("found %d, %v", found, err)
	}
	all := 0
	for r, err := range m.All(t.Context(), store.Action{}) {
		if err != nil || r.Order[0] != byte(all) {
			t.Errorf("record %d: %v, %v", all, r, err)
		}
		all++
	}
	if all != 3 {
		t.Errorf("%d records", all)
	}
}

func TestMemoryJobs(t *testing.T) {
	storetest.RunJobs(t, func(*testing.T) store.Jobs { return store.NewMemory() })
}

// BenchmarkMemoryPut is the price of a record, of many that come in batches.
func BenchmarkMemoryPut(b *testing.B) {
	for _, total := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(total), func(b *testing.B) {
			records := make([]store.Record, total)
			for i := range records {
				order := binary.BigEndian.AppendUint32(nil, uint32(i))
				records[i] = store.Record{Key: store.Key{Chunk: sha256.Sum256(order), Order: order}, Value: store.Value{Output: order, Fuel: 100}}
			}
			for b.Loop() {
				m := store.NewMemory()
				for batch := range slices.Chunk(records, 10_000) {
					if err := m.Put(b.Context(), store.Action{}, batch); err != nil {
						b.Fatal(err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(total), "ns/record")
		})
	}
}
