package linear

import (
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
)

// benchSizes are the sizes of the measured images, in pages of WebAssembly: a C
// guest, a Go guest, and a guest with a large context.
var benchSizes = []int{1, 48, 800}

// cycle is one call: it writes to the given number of pages, spread over the
// image, and resets. It includes writing, because some strategies make it fault.
func cycle(b *testing.B, i *instance, dirty int) {
	step := max(len(i.bytes)/unit/dirty, 1) * unit
	for n, at := 0, 0; n < dirty && at < len(i.bytes); n, at = n+1, at+step {
		i.bytes[at+n%unit]++
	}
	if err := i.m.Reset(i); err != nil {
		b.Error(err)
	}
}

func attached(b testing.TB, v variant, img *Image, keep uint64) *instance {
	m := v.memory(b, Options{Keep: keep})
	i := instantiate(m, 1, MaxLimit/PageSize)
	must(b, m.Attach(img, i))
	return i
}

// readAll makes the system map all pages, as a guest does that reads its context.
// That makes it more expensive to find written pages.
func readAll(i *instance) {
	sum := byte(0)
	for at := 0; at < len(i.bytes); at += unit {
		sum += i.bytes[at]
	}
	sink.Store(uint32(sum))
}

// sink keeps the compiler from removing the computation.
var sink atomic.Uint32

// BenchmarkReset measures a call that writes to some pages, with its reset. Run
// it with -cpu 1,2 to see how it scales: ns/op should halve.
func BenchmarkReset(b *testing.B) {
	for _, pages := range benchSizes {
		img := imageOf(b, pattern(pages))
		for _, dirty := range []int{1, 10, 100} {
			if dirty*unit > pages*PageSize {
				continue
			}
			for _, v := range variants() {
				b.Run(fmt.Sprintf("image=%dKiB/dirty=%d/%s", pages*PageSize>>10, dirty, v), func(b *testing.B) {
					ready := make(chan *instance, runtime.GOMAXPROCS(0))
					for range cap(ready) {
						i := attached(b, v, img, 0)
						readAll(i)
						cycle(b, i, dirty)
						ready <- i
					}
					b.ResetTimer()
					b.RunParallel(func(pb *testing.PB) {
						for i := <-ready; pb.Next(); {
							cycle(b, i, dirty)
						}
					})
				})
			}
		}
	}
}

// BenchmarkKeep compares keeping written pages with dropping them, for calls that
// write a lot. If both cost the same, keeping is not worth its memory.
func BenchmarkKeep(b *testing.B) {
	if len(Strategies()) < 4 {
		b.Skip("nothing is tracked on this system")
	}
	img := imageOf(b, pattern(1600))
	for _, mib := range []int{1, 4, 16, 64} {
		for name, keep := range map[string]uint64{"keep": 1 << 30, "drop": 1} {
			b.Run(fmt.Sprintf("dirty=%dMiB/%s", mib, name), func(b *testing.B) {
				i := attached(b, variant{}, img, keep)
				cycle(b, i, mib<<20/unit)
				for b.Loop() {
					cycle(b, i, mib<<20/unit)
				}
			})
		}
	}
}

// BenchmarkGrown measures a call that grows the memory by 1 MiB and uses all of it.
func BenchmarkGrown(b *testing.B) {
	img := imageOf(b, pattern(4))
	for _, v := range variants() {
		b.Run(v.String(), func(b *testing.B) {
			i := attached(b, v, img, 0)
			call := func() {
				i.Grow(16)
				for at := 0; at < len(i.bytes); at += unit {
					i.bytes[at]++
				}
				must(b, i.m.Reset(i))
			}
			call()
			for b.Loop() {
				call()
			}
		})
	}
}

// BenchmarkClone measures a clone without its instantiation.
func BenchmarkClone(b *testing.B) {
	for _, pages := range benchSizes {
		img := imageOf(b, pattern(pages))
		b.Run(fmt.Sprintf("image=%dKiB", pages*PageSize>>10), func(b *testing.B) {
			for b.Loop() {
				m, err := New(Options{})
				must(b, err)
				must(b, m.Attach(img, instantiate(m, 1, MaxLimit/PageSize)))
				m.Free()
			}
		})
	}
}
