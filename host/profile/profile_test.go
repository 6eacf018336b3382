package profile

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestSketchIsEmptyAtFirst(t *testing.T) {
	if d := new(Sketch).Distribution(); d.Count != 0 || d.Bins != nil {
		t.Errorf("got %+v", d)
	}
}

// TestSketchAgainstSorting compares quantiles with those of the sorted values, for few
// and many values, in one sketch and merged from several.
func TestSketchAgainstSorting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, few, few + 1, 5000} {
		var all []uint64
		var parts [3]Sketch
		for range n {
			v := uint64(math.Exp(random.Float64() * 40))
			all = append(all, v)
			parts[random.IntN(3)].Add(v, 1)
		}
		slices.Sort(all)
		var s Sketch
		for i := range parts {
			s.Merge(&parts[i])
		}
		d := s.Distribution()
		if d.Count != uint64(n) || d.Min != all[0] || d.Max != all[n-1] {
			t.Errorf("%d values: got %d from %d to %d, want from %d to %d", n, d.Count, d.Min, d.Max, all[0], all[n-1])
		}
		for q, got := range map[float64]uint64{0.5: d.P50, 0.9: d.P90, 0.95: d.P95, 0.99: d.P99} {
			want := all[int(math.Ceil(q*float64(n)))-1]
			if off := math.Abs(float64(got) - float64(want)); off > 0.01*float64(want)+1 {
				t.Errorf("%d values: the quantile %v is %d, want %d", n, q, got, want)
			}
		}
		checkBins(t, &d)
	}
}

func checkBins(t *testing.T, d *Distribution) {
	t.Helper()
	sum, last := uint64(0), uint64(0)
	for i, b := range d.Bins {
		if i > 0 && b.From <= last {
			t.Errorf("bin %d begins at %d, after one at %d", i, b.From, last)
		}
		sum, last = sum+b.Count, b.From
	}
	if sum != d.Count || len(d.Bins) > maxBins {
		t.Errorf("%d bins have %d values, want at most %d with %d", len(d.Bins), sum, maxBins, d.Count)
	}
}

func TestSketchOfExtremes(t *testing.T) {
	var s Sketch
	s.Add(0, 3)
	s.Add(math.MaxUint64, 1)
	for range few + 1 {
		s.Add(0, 1)
		s.Add(7, 1)
	}
	d := s.Distribution()
	if d.Min != 0 || d.Max != math.MaxUint64 || d.P50 != 0 && d.P50 != 7 {
		t.Errorf("got %+v", d)
	}
	checkBins(t, &d)
}

// TestTimelineIsBounded checks that joining intervals loses nothing.
func TestTimelineIsBounded(t *testing.T) {
	r := NewRecorder(time.Unix(0, 0))
	n := 0
	var busy time.Duration
	for at := time.Second; at < 100*time.Hour; at = at*11/10 + 13*time.Millisecond {
		r.Finished(time.Unix(0, 0).Add(at), 2, at/20)
		n += 2
		busy += at / 20
	}
	line := r.timeline.timeline(100*time.Hour, 100)
	sum, work := 0, 0.0
	for i, c := range line.Succeeded {
		sum += c
		work += line.Busy[i] * line.Interval
	}
	if sum != n || len(line.Succeeded) > maxSlots || math.Abs(work-busy.Seconds()) > 0.01*busy.Seconds() {
		t.Errorf("%d intervals have %d chunks and %v s, want at most %d with %d and %v", len(line.Succeeded), sum, work, maxSlots, n, busy.Seconds())
	}
}

// TestSlowestDoesNotDependOnOrder gives the same executions in two orders.
func TestSlowestDoesNotDependOnOrder(t *testing.T) {
	lists := [2][]Slow{}
	for turn, order := range [][]int{rand.New(rand.NewPCG(1, 1)).Perm(1000), rand.New(rand.NewPCG(2, 2)).Perm(1000)} {
		var s slowest
		for _, i := range order {
			if d := time.Duration(i / 7); s.wants(d) {
				s.add(Slow{ID: abi.IntID(uint64(i)), Duration: d})
			}
		}
		lists[turn] = s.sorted()
	}
	if len(lists[0]) != maxSlowest || !slices.Equal(lists[0], lists[1]) || lists[0][0].Duration != 142 {
		t.Errorf("got %v and %v", lists[0], lists[1])
	}
}

func batchOf(worker int, calls ...Calls) *Batch {
	b := &Batch{Worker: worker, Fuel: func(i int) uint64 { return uint64(i) }, Size: func(int) int { return 9 },
		ID: func(i int) abi.ID { return abi.IntID(uint64(i)) }, Calls: len(calls), Call: func(i int) Calls { return calls[i] }}
	for _, c := range calls {
		b.Len += c.Count
	}
	b.Runs, b.Alike = b.Len, func(i int) Alike { return Alike{1, b.Fuel(i), b.Size(i)} }
	return b
}

// TestPartsOfTheTime checks where the time goes, for long calls and for short ones.
func TestPartsOfTheTime(t *testing.T) {
	start := time.Unix(0, 0)
	for _, test := range []struct {
		name  string
		calls Calls
		lease Lease
		each  Sampled
		took  time.Duration
		want  Seconds
		cause string
	}{
		{"long", Calls{1, 8 * time.Second, 65536}, Lease{Total: 9 * time.Second, Store: time.Second / 2}, Sampled{Reset: time.Second}, 10 * time.Second,
			Seconds{Guest: 7, Reset: 1, Host: 0.5, Store: 0.5, Waiting: 1}, "guest"},
		{"short", Calls{1000, 8 * time.Millisecond, 65536}, Lease{Total: 10 * time.Millisecond}, Sampled{Reset: time.Microsecond, Guest: 2 * time.Microsecond}, 10 * time.Millisecond,
			Seconds{Guest: 0.002, Reset: 0.001, Host: 0.007}, "host"},
		{"unknown", Calls{5, -1, 0}, Lease{}, Sampled{}, time.Second, Seconds{}, ""},
	} {
		r := NewRecorder(start)
		r.Batch(batchOf(1, test.calls))
		r.Lease(1, test.lease)
		p := r.Profile(1, test.took, 0, test.each)
		if p.Seconds != test.want || test.cause != "" && p.Bottleneck.Cause != test.cause || p.Fuel.Count != uint64(test.calls.Count) {
			t.Errorf("%s: got %+v %+v, want %+v", test.name, p.Seconds, p.Bottleneck, test.want)
		}
	}
}

func TestProfileOfFailures(t *testing.T) {
	r := NewRecorder(time.Unix(0, 0))
	r.Failed(time.Unix(1, 0), false, Slow{ID: abi.IntID(1), Duration: time.Second})
	r.Failed(time.Unix(2, 0), true, Slow{ID: abi.IntID(1), Duration: time.Second, Class: abi.ClassTrap})
	p := r.Profile(2, 3*time.Second, 0, Sampled{})
	if p.Duration.Count != 2 || len(p.Slowest) != 1 || p.Slowest[0].Class != abi.ClassTrap {
		t.Errorf("got %+v", p)
	}
	failed, retried := 0, 0
	for i := range p.Timeline.Failed {
		failed += p.Timeline.Failed[i]
		retried += p.Timeline.Retried[i]
	}
	if failed != 1 || retried != 1 {
		t.Errorf("the timeline has %d failures and %d retries, want 1 and 1", failed, retried)
	}
}

func TestProfileIsItsJSON(t *testing.T) {
	r := NewRecorder(time.Unix(0, 0))
	r.Batch(batchOf(3, Calls{1, time.Second, 65536}))
	r.Finished(time.Unix(1, 0), 1, time.Second)
	text, err := json.Marshal(r.Profile(1, time.Second, 0, Sampled{}))
	if err != nil {
		t.Fatal(err)
	}
	var read Profile
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(&read); string(again) != string(text) {
		t.Errorf("got %s, want %s", again, text)
	}
}

// BenchmarkBatch measures the cost of one executed chunk.
func BenchmarkBatch(b *testing.B) {
	r := NewRecorder(time.Now())
	calls := make([]Calls, 128)
	for i := range calls {
		calls[i] = Calls{8, time.Duration(8000 + i*137%512), 65536}
	}
	batch := batchOf(1, calls...)
	batch.Fuel = func(i int) uint64 { return uint64(i * 31 % 1000) }
	for b.Loop() {
		r.Batch(batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(batch.Len), "ns/chunk")
}
