package profile

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// digits is the precision of a sketch: a value is off by at most 1 %.
	digits = 2
	// largest is the largest value that a sketch tells from larger ones.
	largest = 1<<62 - 1
	// few is the number of different runs of values that a sketch keeps exactly. A
	// histogram takes 57 KB, which is too much for a job of a few chunks.
	few = 256
	// maxBins is the number of bins of a distribution.
	maxBins = 40
)

// Sketch counts values in bounded memory, at most 60 KB. The zero Sketch is empty and
// ready for use. It is not safe for concurrent use.
type Sketch struct {
	count    uint64
	sum      float64
	min, max uint64
	exact    []run // while they are few
	rest     *hdrhistogram.Histogram
}

// run is a value that was added count times.
type run struct{ value, count uint64 }

// Add adds a value count times.
func (s *Sketch) Add(value, count uint64) {
	if count == 0 {
		return
	}
	if s.count == 0 || value < s.min {
		s.min = value
	}
	s.max = max(s.max, value)
	s.count += count
	s.sum += float64(value) * float64(count)
	if s.rest != nil {
		_ = s.rest.RecordValues(int64(min(value, largest)), int64(count)) // the value is in range
		return
	}
	if last := len(s.exact) - 1; last >= 0 && s.exact[last].value == value {
		s.exact[last].count += count
		return
	}
	s.exact = append(s.exact, run{value, count})
	if len(s.exact) > few {
		s.shrink()
	}
}

// shrink replaces the exact values by a histogram.
func (s *Sketch) shrink() {
	s.rest = hdrhistogram.New(1, largest, digits)
	for _, r := range s.exact {
		_ = s.rest.RecordValues(int64(min(r.value, largest)), int64(r.count))
	}
	s.exact = nil
}

// Merge adds the values of another sketch.
func (s *Sketch) Merge(other *Sketch) {
	if other.rest == nil {
		for _, r := range other.exact {
			s.Add(r.value, r.count)
		}
		return
	}
	if s.rest == nil {
		s.shrink()
	}
	s.rest.Merge(other.rest)
	if s.count == 0 || other.min < s.min {
		s.min = other.min
	}
	s.max = max(s.max, other.max)
	s.count += other.count
	s.sum += other.sum
}

// runs returns the values in ascending order, each within 1 % of the real one.
func (s *Sketch) runs() (all []run) {
	if s.rest == nil {
		all = slices.Clone(s.exact)
		slices.SortFunc(all, func(a, b run) int { return cmp.Compare(a.value, b.value) })
		return all
	}
	for _, bar := range s.rest.Distribution() {
		if bar.Count > 0 {
			middle := uint64(bar.From) + uint64(bar.To-bar.From)/2
			all = append(all, run{min(max(middle, s.min), s.max), uint64(bar.Count)})
		}
	}
	return all
}

// Distribution describes the values of a sketch. Count, Min, Max and Mean are exact,
// the others within 1 %.
type Distribution struct {
	Count uint64  `json:"count"`
	Min   uint64  `json:"min"`
	P50   uint64  `json:"p50"`
	P90   uint64  `json:"p90"`
	P95   uint64  `json:"p95"`
	P99   uint64  `json:"p99"`
	Max   uint64  `json:"max"`
	Mean  float64 `json:"mean"`
	Bins  []Bin   `json:"bins,omitempty"` // ascending; at most 40
}

// Bin counts the values from From up to, and without, the next bin's From. Its JSON
// is [from, count].
type Bin struct{ From, Count uint64 }

// MarshalJSON implements [json.Marshaler].
func (b Bin) MarshalJSON() ([]byte, error) { return json.Marshal([2]uint64{b.From, b.Count}) }

// UnmarshalJSON implements [json.Unmarshaler].
func (b *Bin) UnmarshalJSON(text []byte) error {
	var pair [2]uint64
	err := json.Unmarshal(text, &pair)
	b.From, b.Count = pair[0], pair[1]
	return err
}

// Distribution returns the distribution of the values so far.
func (s *Sketch) Distribution() (d Distribution) {
	if s.count == 0 {
		return d
	}
	d = Distribution{Count: s.count, Min: s.min, Max: s.max, Mean: s.sum / float64(s.count)}
	all := s.runs()
	for _, q := range []struct {
		at float64
		to *uint64
	}{{0.5, &d.P50}, {0.9, &d.P90}, {0.95, &d.P95}, {0.99, &d.P99}} {
		*q.to = quantile(all, uint64(math.Ceil(q.at*float64(s.count))))
	}
	d.Bins = binsOf(all)
	return d
}

// quantile returns the n-th smallest value, from 1.
func quantile(all []run, n uint64) (value uint64) {
	for _, r := range all {
		value = r.value
		if n <= r.count {
			break
		}
		n -= r.count
	}
	return value
}

// binsOf groups ascending values in bins whose borders grow by a constant factor.
func binsOf(all []run) []Bin {
	low, high := all[0].value, all[len(all)-1].value
	bins := []Bin{{From: low}}
	factor := math.Pow(float64(high+1)/float64(max(low, 1)), 1.0/maxBins)
	border := float64(max(low, 1))
	for _, r := range all {
		if float64(r.value) >= border*factor && len(bins) < maxBins {
			for float64(r.value) >= border*factor {
				border *= factor
			}
			bins = append(bins, Bin{From: min(uint64(math.Ceil(border)), r.value)})
		}
		bins[len(bins)-1].Count += r.count
	}
	return bins
}
