package linear

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkZero clears the 64 KiB of a small guest that wrote to some blocks of them,
// as a reset does. It reports the processor time as a part of that of clear, which
// takes turns with it: the median of at least nine rounds.
func BenchmarkZero(b *testing.B) {
	memory := make([]byte, PageSize)
	for _, written := range []int{1, 4, 16, 64, PageSize / 512} {
		b.Run(fmt.Sprintf("blocks=%d", written), func(b *testing.B) {
			var ratios, times []float64
			for range max(9, b.N) {
				took, whole := passes(memory, written, zero), passes(memory, written, func(part []byte) { clear(part) })
				ratios, times = append(ratios, took/whole), append(times, took)
			}
			slices.Sort(ratios)
			slices.Sort(times)
			b.ReportMetric(ratios[len(ratios)/2], "of-clear")
			b.ReportMetric(times[len(times)/2], "ns/pass")
		})
	}
}

// passes returns the nanoseconds of a pass over the memory from alternating ends.
func passes(memory []byte, written int, clear func(part []byte)) float64 {
	const count = 2000
	parts := partsOf(nil, PageSize)
	start := threadTime()
	for pass := range count {
		for at := range written {
			memory[at*PageSize/written+pass%512] = 1
		}
		for k := range parts {
			if pass%2 > 0 {
				k = len(parts) - 1 - k
			}
			clear(memory[parts[k].from:parts[k].to])
		}
	}
	return (threadTime() - start) / count
}

// threadTime returns the processor time of the thread in nanoseconds.
func threadTime() float64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return float64(t.Nano())
}
