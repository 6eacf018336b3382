package telemetry

import (
	"math"
	"strings"
	"testing"
	"time"
)

// A histogram is written as cumulative counts, with a bucket for each bound.
func TestHistogram(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{-1, 0, 100 * time.Microsecond, 100*time.Microsecond + 1, 2500 * time.Microsecond, 30 * time.Second, time.Hour} {
		h.Add(d)
	}
	var b strings.Builder
	w := NewWriter(&b)
	w.PutTimes(ChunkSeconds, &h, "module", `a"b`)
	w.PutTimes(ChunkSeconds, new(Histogram))
	want := `# HELP wasm_jobs_chunk_seconds
# TYPE wasm_jobs_chunk_seconds histogram
wasm_jobs_chunk_seconds_bucket{module="a\"b",le="0.0001"} 3
wasm_jobs_chunk_seconds_bucket{module="a\"b",le="0.00025"} 4
`
	got := b.String()
	if !strings.HasPrefix(got, want) || strings.Count(got, "# TYPE") != 1 {
		t.Errorf("%s, want %s", got, want)
	}
	for _, line := range []string{
		`{module="a\"b",le="0.001"} 4`, `{module="a\"b",le="0.0025"} 5`, `{module="a\"b",le="10"} 5`, `{module="a\"b",le="30"} 6`, `{module="a\"b",le="+Inf"} 7`,
		`_sum{module="a\"b"} 3630.002700001`, `_count{module="a\"b"} 7`, `_bucket{le="+Inf"} 0`, "_sum 0", "_count 0",
	} {
		if !strings.Contains(got, "wasm_jobs_chunk_seconds"+line+"\n") && !strings.Contains(got, line+"\n") {
			t.Errorf("no line %s in %s", line, got)
		}
	}
}

// The number of series is bounded, whatever is counted.
func TestHistogramBounds(t *testing.T) {
	for i := 1; i < len(bounds); i++ {
		if bounds[i-1] >= bounds[i] {
			t.Errorf("%v is not below %v", bounds[i-1], bounds[i])
		}
	}
	var h Histogram
	h.Add(math.MaxInt64)
	if h.counts[len(bounds)] != 1 {
		t.Errorf("counts %v", h.counts)
	}
}
