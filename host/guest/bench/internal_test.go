package bench

import (
	"slices"
	"testing"
)

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		all  []float64
		want float64
	}{{nil, 0}, {[]float64{4}, 4}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 3}} {
		if got := median(tt.all); got != tt.want {
			t.Errorf("%v: got %v, want %v", tt.all, got, tt.want)
		}
	}
}

func TestWorkerCounts(t *testing.T) {
	for most, want := range map[int][]int{1: {1}, 2: {1, 2}, 3: {1, 2, 3}, 8: {1, 2, 4, 8}, 9: {1, 2, 4, 8, 9}} {
		if got := workerCounts(most); !slices.Equal(got, want) {
			t.Errorf("%d: got %v, want %v", most, got, want)
		}
	}
}

func TestRateHasAllTime(t *testing.T) {
	for _, tt := range []struct {
		name  string
		times JobTimes
		call  float64
		want  Rate
	}{
		{"calls and host", JobTimes{Workers: 2, Chunks: 8, Attempts: 8, Scan: 1, Compile: 2, Prepare: 3, Execute: 8, Fold: 2}, 1,
			Rate{Workers: 2, Chunks: 8, Rate: 0.5, Seconds: 16, Scan: 1, Prepare: 5, Calls: 4, Host: 4, Fold: 2}},
		{"folding during execution", JobTimes{Workers: 2, Chunks: 8, Attempts: 8, Execute: 8, FoldCalls: 4}, 1,
			Rate{Workers: 2, Chunks: 8, Rate: 1, Seconds: 8, Calls: 4, Host: 2, Fold: 2}},
		{"calls that were slower before", JobTimes{Workers: 1, Chunks: 8, Attempts: 8, Execute: 8}, 2,
			Rate{Workers: 1, Chunks: 8, Rate: 1, Seconds: 8, Calls: 8}},
	} {
		if got := tt.times.rate(tt.call); got != tt.want {
			t.Errorf("%s: got %+v, want %+v", tt.name, got, tt.want)
		}
	}
}
