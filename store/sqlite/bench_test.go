package sqlite

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// records returns tiny outputs for the ids from..to-1, in id order.
func records(from, to int) []store.Record {
	all := make([]store.Record, 0, to-from)
	for i := from; i < to; i++ {
		order := binary.BigEndian.AppendUint64([]byte{1}, uint64(i))
		chunk := sha256.Sum256(order)
		all = append(all, store.Record{Key: store.Key{Chunk: chunk, Order: order}, Value: store.Value{Output: chunk[:4:4]}})
	}
	return all
}

func fill(t testing.TB, s *Store, action store.Action, n, batch int) {
	t.Helper()
	for i := 0; i < n; i += batch {
		if err := s.Put(t.Context(), action, records(i, min(i+batch, n))); err != nil {
			t.Fatal(err)
		}
	}
}

func perRow(b *testing.B, rows int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(rows), "ns/row")
}

const benchRows = 200_000

func BenchmarkPut(b *testing.B) {
	for _, batch := range []int{1000, 10000} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			for b.Loop() {
				s := open(b, b.TempDir(), Options{})
				fill(b, s, store.Action{1}, benchRows, batch)
				b.ReportMetric(float64(s.Stats().Syncs), "syncs/op")
			}
			perRow(b, benchRows)
		})
	}
}

func BenchmarkGet(b *testing.B) {
	all := records(0, benchRows)
	for _, test := range []struct {
		name   string
		change func(i int, k *store.Key)
	}{
		{"random", func(i int, k *store.Key) { *k = all[i*7919%len(all)].Key }},
		{"sequential", func(int, *store.Key) {}},
		{"otherOrder", func(_ int, k *store.Key) { k.Order = append([]byte{0}, k.Order...) }},
		{"missing", func(_ int, k *store.Key) { k.Chunk = sha256.Sum256(k.Chunk[:]) }},
	} {
		b.Run(test.name, func(b *testing.B) {
			s := open(b, b.TempDir(), Options{})
			fill(b, s, store.Action{1}, benchRows, 10000)
			var keys []store.Key
			for i, r := range all {
				test.change(i, &r.Key)
				keys = append(keys, r.Key)
			}
			found := 0
			for b.Loop() {
				for i := 0; i < len(keys); i += 1000 {
					err := s.Get(b.Context(), store.Action{1}, keys[i:i+1000], func(int, store.Value) error { found++; return nil })
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			if (found == 0) != (test.name == "missing") {
				b.Fatal(found)
			}
			perRow(b, benchRows)
		})
	}
}

func BenchmarkAll(b *testing.B) {
	s := open(b, b.TempDir(), Options{})
	fill(b, s, store.Action{1}, benchRows, 10000)
	for b.Loop() {
		n := 0
		for _, err := range s.All(b.Context(), store.Action{1}) {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
		if n != benchRows {
			b.Fatal(n)
		}
	}
	perRow(b, benchRows)
}

// finishAll is like fill, but records a span for each batch, as a run of a job does.
func finishAll(t testing.TB, s *Store, n, batch int) {
	run := begin(t, s, jobA)
	for i := 0; i < n; i += batch {
		finish(t, s, run, i, min(i+batch, n))
	}
}

// finishRows is large enough for the constant cost of a run not to matter.
const finishRows = 1_000_000

// BenchmarkFinish compares Finish with Put of the same records. Both times include
// making the records.
func BenchmarkFinish(b *testing.B) {
	for _, batch := range []int{1000, 4096} {
		for _, test := range []struct {
			name string
			run  func(s *Store)
		}{
			{"put", func(s *Store) { fill(b, s, store.Action{1}, finishRows, batch) }},
			{"finish", func(s *Store) { finishAll(b, s, finishRows, batch) }},
		} {
			b.Run(fmt.Sprintf("%s/batch=%d", test.name, batch), func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					s := open(b, b.TempDir(), Options{})
					b.StartTimer()
					test.run(s)
				}
				b.ReportMetric(b.Elapsed().Seconds()*1e6/float64(b.N)/finishRows, "us/row")
			})
		}
	}
}

// BenchmarkPutShuffled puts outputs in another order than their ids.
func BenchmarkPutShuffled(b *testing.B) {
	all := records(0, benchRows)
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for b.Loop() {
		s := open(b, b.TempDir(), Options{})
		for some := range slices.Chunk(all, 10_000) {
			if err := s.Put(b.Context(), store.Action{1}, some); err != nil {
				b.Fatal(err)
			}
		}
	}
	perRow(b, benchRows)
}
