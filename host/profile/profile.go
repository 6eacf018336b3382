// Package profile measures how a job was executed: how long the calls took, what they
// used, and how the work was spread over time and over workers.
//
// A [Recorder] takes the measurements of whole batches and keeps sketches of them. Its
// memory is bounded, about 3 MB for a job of any size, and small jobs take a few KB. A
// [Profile] is the summary that a report holds.
package profile

import (
	"math"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Profile describes how a job was executed. Outputs that the store had already do not
// count.
type Profile struct {
	Workers    int          `json:"workers"` // that executed the job at once, at most
	Seconds    Seconds      `json:"seconds"`
	Bottleneck *Bottleneck  `json:"bottleneck,omitempty"` // nil if nothing was executed
	Duration   Distribution `json:"duration_ns"`          // of attempts
	Fuel       Distribution `json:"fuel"`                 // of calls that gave outputs
	Size       Distribution `json:"output_size"`          // in bytes
	Memory     Distribution `json:"memory"`               // at the end of calls that gave outputs, in bytes
	Timeline   *Timeline    `json:"timeline,omitempty"`
	Slowest    []Slow       `json:"slowest,omitempty"` // at most 50, the slowest first; short calls share the mean of a few
}

// Seconds says where the time of all workers went while chunks were executed. The sum
// is the number of workers times the duration of the phase.
type Seconds struct {
	Guest   float64 `json:"guest"`   // calls of the module
	Reset   float64 `json:"reset"`   // return of instances to the fresh state
	Host    float64 `json:"host"`    // reading, hashing and handing over
	Store   float64 `json:"store"`   // waiting until outputs were stored
	Fold    float64 `json:"fold"`    // calls of aggregate and merge
	Waiting float64 `json:"waiting"` // nothing to do: no chunk left, a retry not due yet, or slots of other jobs
}

// Bottleneck is the part of [Seconds] that took most.
type Bottleneck struct {
	Cause string  `json:"cause"` // guest, reset, host, store, fold or waiting
	Share float64 `json:"share"` // of the time of all workers
}

// Batch has the measurements of consecutive executed chunks of one worker.
type Batch struct {
	Worker int
	Len    int
	Fuel   func(i int) uint64 // of the i-th chunk, from 0
	Size   func(i int) int    // of its output, in bytes
	ID     func(i int) abi.ID
	Runs   int
	Alike  func(i int) Alike // from 0; together they have Len chunks
	Calls  int
	Call   func(i int) Calls // from 0; together they have at most Len chunks
}

// Alike are consecutive executed chunks that used the same fuel and gave outputs of the
// same size.
type Alike struct {
	Count int
	Fuel  uint64
	Size  int // in bytes
}

// Calls are consecutive executed chunks that were measured together.
type Calls struct {
	Count  int           // 1 or more
	Took   time.Duration // together; negative = unknown
	Memory uint64        // of the last one, at its end, in bytes; 0 = unknown
}

// Lease is how a worker spent its time on one lease or call of the fold.
type Lease struct {
	Total time.Duration
	Store time.Duration // of Total, spent waiting for the store
}

// shards is the number of independent parts of a recorder, so that workers rarely
// wait for each other.
const shards = 8

// Recorder takes measurements. All methods are safe for concurrent use.
type Recorder struct {
	started time.Time
	shards  [shards]shard

	mu       sync.Mutex // guards timeline
	timeline timeline
}

// shard has the measurements of some workers.
type shard struct {
	mu                           sync.Mutex
	duration, fuel, size, memory Sketch
	slowest                      slowest
	long, short                  calls // by the time that one call took
	lease, store                 time.Duration
	_                            [64]byte // keeps other shards off the cache line
}

// calls sums up calls.
type calls struct {
	count int
	took  time.Duration
}

// shortCall is the time of a short call. The time between two long calls does not
// matter.
const shortCall = 100 * time.Microsecond

// NewRecorder returns a recorder for a job whose execution starts at a time.
func NewRecorder(started time.Time) *Recorder { return &Recorder{started: started} }

// Batch adds the measurements of a batch that was stored. It does not keep b.
func (r *Recorder) Batch(b *Batch) {
	s := &r.shards[b.Worker%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range b.Runs {
		a := b.Alike(i)
		s.fuel.Add(a.Fuel, uint64(a.Count))
		s.size.Add(uint64(a.Size), uint64(a.Count))
	}
	first := 0
	for i := range b.Calls {
		c := b.Call(i)
		s.calls(b, first, c)
		first += c.Count
	}
}

// calls adds calls that were measured together, the first of which is the i-th chunk
// of the batch. mu is held.
func (s *shard) calls(b *Batch, i int, c Calls) {
	if c.Took < 0 {
		return
	}
	each := c.Took / time.Duration(c.Count)
	s.duration.Add(uint64(each), uint64(c.Count))
	if c.Memory > 0 {
		s.memory.Add(c.Memory, uint64(c.Count))
	}
	s.spent(each).add(c.Count, c.Took)
	if !s.slowest.wants(each) {
		return
	}
	for ; c.Count > 0 && i < b.Len; i, c.Count = i+1, c.Count-1 {
		s.slowest.add(Slow{ID: b.ID(i), Duration: each, Fuel: b.Fuel(i), Size: b.Size(i), Worker: b.Worker})
	}
}

// spent returns the sum to which a call that took some time belongs.
func (s *shard) spent(each time.Duration) *calls {
	if each < shortCall {
		return &s.short
	}
	return &s.long
}

func (c *calls) add(count int, took time.Duration) {
	c.count += count
	c.took += took
}

// Finished notes at a time that chunks have outputs now, and that a worker was busy
// until then for some time.
func (r *Recorder) Finished(now time.Time, chunks int, busy time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	at := now.Sub(r.started)
	r.timeline.at(at).succeeded += chunks
	r.timeline.worked(at, busy)
}

// Failed adds a failed attempt that ended at a time. last tells that its chunk is not
// tried again.
func (r *Recorder) Failed(now time.Time, last bool, one Slow) {
	s := &r.shards[one.Worker%shards]
	s.failed(last, one)
	r.mu.Lock()
	defer r.mu.Unlock()
	slot := r.timeline.at(now.Sub(r.started))
	if last {
		slot.failed++
	} else {
		slot.retried++
	}
}

func (s *shard) failed(last bool, one Slow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.duration.Add(uint64(max(one.Duration, 0)), 1)
	s.spent(one.Duration).add(1, one.Duration)
	if last && s.slowest.wants(one.Duration) {
		s.slowest.add(one)
	}
}

// Lease adds the time that a worker spent on a lease.
func (r *Recorder) Lease(worker int, l Lease) {
	s := &r.shards[worker%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lease += l.Total
	s.store += l.Store
}

// Sampled are average times of one call.
type Sampled struct{ Reset, Guest time.Duration }

// Profile returns the summary. The execution took some time, in which the fold was
// called for folding.
func (r *Recorder) Profile(workers int, took, folding time.Duration, each Sampled) *Profile {
	var sum shard
	for i := range r.shards {
		sum.merge(&r.shards[i])
	}
	p := &Profile{
		Workers: workers, Duration: sum.duration.Distribution(), Fuel: sum.fuel.Distribution(),
		Size: sum.size.Distribution(), Memory: sum.memory.Distribution(), Slowest: sum.slowest.sorted(),
	}
	if sum.duration.count == 0 {
		return p
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	p.Timeline = r.timeline.timeline(took, workers)
	p.Seconds = sum.seconds(time.Duration(workers)*took, folding, each)
	p.Bottleneck = p.Seconds.bottleneck()
	return p
}

func (s *shard) merge(other *shard) {
	other.mu.Lock()
	defer other.mu.Unlock()
	s.duration.Merge(&other.duration)
	s.fuel.Merge(&other.fuel)
	s.size.Merge(&other.size)
	s.memory.Merge(&other.memory)
	for _, one := range other.slowest.all {
		s.slowest.add(one)
	}
	s.long.add(other.long.count, other.long.took)
	s.short.add(other.short.count, other.short.took)
	s.lease += other.lease
	s.store += other.store
}

// seconds splits the time of all workers. The guest's part of short calls is an
// average of samples, because reading the clock takes as long as some calls; of long
// calls, it is everything but the reset.
func (s *shard) seconds(all, folding time.Duration, each Sampled) Seconds {
	times := func(n int, d time.Duration) time.Duration { return time.Duration(n) * d }
	resets := [2]time.Duration{min(times(s.short.count, each.Reset), s.short.took), min(times(s.long.count, each.Reset), s.long.took)}
	guest := min(times(s.short.count, each.Guest), s.short.took-resets[0]) + s.long.took - resets[1]
	reset := resets[0] + resets[1]
	host := max(s.lease-s.store-guest-reset, 0)
	waiting := max(all-guest-reset-host-s.store-folding, 0)
	return Seconds{
		Guest: rounded(guest.Seconds()), Reset: rounded(reset.Seconds()), Host: rounded(host.Seconds()),
		Store: rounded(s.store.Seconds()), Fold: rounded(folding.Seconds()), Waiting: rounded(waiting.Seconds()),
	}
}

// Parts returns the parts of the time, with their names, in a fixed order.
func (s *Seconds) Parts() []Part {
	return []Part{{"guest", s.Guest}, {"reset", s.Reset}, {"host", s.Host}, {"store", s.Store}, {"fold", s.Fold}, {"waiting", s.Waiting}}
}

// Part is a part of the time.
type Part struct {
	Name    string
	Seconds float64
}

// bottleneck returns nil if no time was spent.
func (s *Seconds) bottleneck() *Bottleneck {
	sum, most := 0.0, Part{}
	for _, p := range s.Parts() {
		sum += p.Seconds
		if p.Seconds > most.Seconds {
			most = p
		}
	}
	if sum == 0 {
		return nil
	}
	return &Bottleneck{most.Name, math.Round(1000*most.Seconds/sum) / 1000}
}

// rounded rounds to six decimals.
func rounded(v float64) float64 { return math.Round(v*1e6) / 1e6 }
