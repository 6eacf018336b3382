package store_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/storetest"
)

func TestMemory(t *testing.T) {
	storetest.Run(t, func(*testing.T) store.Store { return store.NewMemory() })
}

// TestSharedPrefix stores digests that differ only in their last byte.
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
	storetest.RunJobs(t, func(*testing.T) storetest.Recording { return store.NewMemory() })
}

// BenchmarkMemoryPut measures the time per record if many are put in batches.
func BenchmarkMemoryPut(b *testing.B) {
	for _, total := range []int{10_000, 1_000_000} {
		b.Run(fmt.Sprint(total), func(b *testing.B) {
			records := numbered(total)
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

// BenchmarkMemoryNew measures the time for one new chunk if its action has many
// outputs, which were not put in the order of All: looking for any output, looking
// for the chunk's output, and putting it. x-empty is the ratio to an empty store.
func BenchmarkMemoryNew(b *testing.B) {
	var empty float64
	for _, rows := range []int{0, 10_000, 100_000, 1_000_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			m := store.NewMemory()
			for some := range slices.Chunk(numbered(rows), 1000) {
				slices.Reverse(some)
				if err := m.Put(b.Context(), store.Action{}, some); err != nil {
					b.Fatal(err)
				}
			}
			all := numbered(rows + b.N)[rows:]
			b.ResetTimer()
			for i := range b.N {
				for _, err := range m.All(b.Context(), store.Action{}) {
					if err != nil {
						b.Fatal(err)
					}
					break
				}
				err := m.Get(b.Context(), store.Action{}, []store.Key{all[i].Key}, func(int, store.Value) error { return fmt.Errorf("chunk %d is there", i) })
				if err == nil {
					err = m.Put(b.Context(), store.Action{}, all[i:i+1])
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			each := float64(b.Elapsed()) / float64(b.N)
			if rows == 0 {
				empty = each
			}
			b.ReportMetric(each/empty, "x-empty")
		})
	}
}

// numbered returns n records whose orders are the numbers from 0 on.
func numbered(n int) []store.Record {
	records := make([]store.Record, n)
	for i := range records {
		order := binary.BigEndian.AppendUint32(nil, uint32(i))
		records[i] = store.Record{Key: store.Key{Chunk: sha256.Sum256(order), Order: order}, Value: store.Value{Output: order, Fuel: 100}}
	}
	return records
}

// The details of attempts are bounded, each and in sum, and a common beginning is
// stored once.
func TestDetailsAreBounded(t *testing.T) {
	ctx := t.Context()
	m := store.NewMemory()
	defer m.Close()
	run, err := m.Begin(ctx, store.JobRecord{ID: store.JobID{1}, Total: 1}, slices.Values([][]byte{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	note := func(chunk int, detail string) {
		t.Helper()
		if err := m.Note(ctx, run, nil, []store.Attempt{{Chunk: chunk, Class: "trap", Detail: []byte(detail)}}); err != nil {
			t.Fatal(err)
		}
	}
	read := func(from, to int) (details []string) {
		t.Helper()
		for a, err := range m.Attempts(ctx, run.Job, from, to) {
			if err != nil || a.Class != "trap" || a.Run != 1 {
				t.Fatalf("%+v, %v", a, err)
			}
			details = append(details, string(a.Detail))
		}
		return details
	}
	large := strings.Repeat("x", 64<<10+1)
	note(0, large)
	note(0, large[1:])
	if got := read(0, 1); got[0] != "" || got[1] != large[1:] {
		t.Errorf("%d and %d bytes", len(got[0]), len(got[1]))
	}
	const many = 10_000
	common := `{"class":"trap","message":"` + strings.Repeat("m", 4000)
	before := heap()
	for i := range many {
		note(1+i, common+fmt.Sprint(i))
	}
	if grown := heap() - before; grown > 16<<20 {
		t.Errorf("%d attempts with a common text of %d bytes take %d bytes", many, len(common), grown)
	}
	for i, got := range read(1, 1+many) {
		if got != common+fmt.Sprint(i) {
			t.Fatalf("attempt %d has %.100q", i, got)
		}
	}
	for i := range 2000 { // with nothing in common
		note(many+1+i, fmt.Sprintf("%048d", i)+large[:32<<10])
	}
	sum := 0
	for _, got := range read(0, 1<<30) {
		if !strings.HasPrefix(got, common[:10]) {
			sum += len(got)
		}
	}
	if sum < 31<<20 || sum > 32<<20 {
		t.Errorf("%d bytes are kept", sum)
	}
	if err := m.Delete(ctx, run.Job); err != nil {
		t.Fatal(err)
	}
	if run, err = m.Begin(ctx, store.JobRecord{ID: store.JobID{2}, Total: 1}, slices.Values([][]byte{}), nil); err != nil {
		t.Fatal(err)
	}
	if note(0, "again"); read(0, 1)[0] != "again" {
		t.Error("the bytes of a deleted job still count")
	}
}

func heap() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}
