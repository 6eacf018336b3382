package chunks_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

const million = 1_000_000

// tiny returns n chunks of five bytes.
func tiny(n int) []byte {
	return bytes.Repeat([]byte{0x44, 1, 2, 3, 4}, n)
}

// stating returns n chunks whose ids are a permutation of the numbers given.
func stating(ids []int, text bool) []byte {
	var data []byte
	for _, id := range ids {
		data = append(data, 0xa1, 0x62, 'i', 'd')
		if text {
			data = abi.AppendText(data, fmt.Sprintf("chunk-%07d", id))
		} else {
			data = abi.AppendHead(data, abi.MajorUint, uint64(id))
		}
	}
	return data
}

func ascending(n int) []int {
	ids := make([]int, n)
	for i := range ids {
		ids[i] = i + 7
	}
	return ids
}

func BenchmarkScan(b *testing.B) {
	shuffled := rand.New(rand.NewPCG(1, 1)).Perm(million)
	for name, data := range map[string][]byte{
		"positions":     tiny(million),
		"integers":      stating(ascending(million), false),
		"texts":         stating(ascending(million), true),
		"shuffled":      stating(shuffled, false),
		"shuffledTexts": stating(shuffled, true),
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				f, err := open(b, data, chunks.Options{})
				if err != nil || f.Len() != million {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/million, "ns/chunk")
		})
	}
}

func BenchmarkRead(b *testing.B) {
	f, err := open(b, tiny(million), chunks.Options{})
	if err != nil {
		b.Fatal(err)
	}
	for _, batch := range []int{1, 64, million} {
		b.Run(fmt.Sprint(batch), func(b *testing.B) {
			at := 0
			for b.Loop() {
				if at+batch > million {
					at = 0
				}
				if err := f.Read(b.Context(), at, at+batch, func(int, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
				at += batch
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch), "ns/chunk")
		})
	}
}

// A million chunks take eight bytes each if they are numbered by position. Stated
// ids take eight more; texts and their order come on top.
func TestMemoryOfAFile(t *testing.T) {
	const n = 100_000
	for name, tt := range map[string]struct {
		data  []byte
		limit uint64 // bytes a chunk
	}{
		"positions":      {tiny(n), 12},
		"integers":       {stating(ascending(n), false), 24},
		"shuffled texts": {stating(rand.New(rand.NewPCG(1, 1)).Perm(n), true), 56},
	} {
		before := liveHeap()
		f, err := open(t, tt.data, chunks.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if after := liveHeap(); after > before+n*tt.limit {
			t.Errorf("%s: %d bytes a chunk, want %d at most", name, (after-before)/n, tt.limit)
		}
		runtime.KeepAlive(f)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	runtime.GC() // The first cycle only moves pooled buffers aside.
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
