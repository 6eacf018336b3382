package processor

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Turner is an [Appender] that can run several requests with one wait for what they
// need. [Stream] then runs its requests in turns.
type Turner interface {
	Appender
	// Turn waits for the right to run requests one after the other. The caller must end
	// it soon: others wait. The error is one of Append's.
	Turn(ctx context.Context) (Turn, error)
}

// Turn is the right to run requests one after the other. One goroutine at a time may use
// it.
type Turn interface {
	// Append is that of [Appender].
	Append(ctx context.Context, in, dst []byte) (Result[[]byte], error)
	// End is called once.
	End()
}

const (
	// groupTime is how long a group of requests should take. To wake a goroutine costs
	// about 10 us, and more if its processor sleeps: 5% of it.
	groupTime = 200 * time.Microsecond
	// maxGroup is the limit of requests in a group.
	maxGroup = 256
	// splitTime is how long a group may take before it is split: its answers so far are
	// written, and other workers get the requests that have not begun.
	splitTime = time.Millisecond
)

// crew is the workers of a stream. stream.mu guards it.
type crew struct {
	size     int
	work     *sync.Cond
	sleeping int
	called   int           // of the sleeping, those that were woken and do not run yet
	running  int           // that have a group
	stuck    int           // of them, those whose group was split
	each     time.Duration // that a request takes, an estimate; 0 = unknown
}

// call wakes workers if those that will soon take a group are too few for the pending
// requests.
func (w *crew) call(pending int) {
	size := w.group()
	busy := w.stuck
	if size == 1 {
		busy = w.running
	}
	for w.sleeping > w.called && (w.size-w.sleeping+w.called-busy)*size < pending {
		w.called++
		w.work.Signal()
	}
}

// wait waits until a worker is called, or all are woken.
func (w *crew) wait() {
	w.sleeping++
	w.work.Wait()
	w.sleeping--
	w.called = max(0, w.called-1)
}

// group returns how many requests take about groupTime.
func (w *crew) group() int {
	if w.each == 0 {
		return 1
	}
	return int(max(1, min(groupTime/w.each, maxGroup)))
}

// learn updates the estimate.
func (w *crew) learn(each time.Duration) {
	each = max(1, each)
	if w.each == 0 {
		w.each = each
	}
	w.each = (w.each + each) / 2
}

// group is requests that a worker runs one after the other, so that few goroutines are
// woken. If they take long, a timer splits it: see splitTime.
type group struct {
	s     *stream
	timer *time.Timer

	next  atomic.Int64 // index of the next cell to begin
	ran   int          // cells with an answer; only the worker uses it, as took
	took  time.Duration
	cells []*cell // guarded by stream.mu for others than the worker
	ready int     // cells whose answers are ready; guarded by stream.mu
	split bool    // guarded by stream.mu
}

func newGroup(s *stream) *group {
	g := &group{s: s}
	g.timer = time.AfterFunc(splitTime, g.divide)
	g.timer.Stop()
	return g
}

// take takes pending requests. stream.mu is held.
func (g *group) take() {
	s := g.s
	g.cells, g.ran, g.ready, g.split = g.cells[:0], 0, 0, false
	for n := min(s.crew.group(), s.pending.len()); n > 0; n-- {
		g.cells = append(g.cells, s.pending.pop())
	}
	g.next.Store(0)
	s.crew.running++
	s.crew.call(s.pending.len())
}

// run runs the requests. An error ends the stream.
func (g *group) run() error {
	turn, err := g.s.turn()
	if err != nil {
		return err
	}
	defer turn.End()
	g.timer.Reset(splitTime)
	defer g.timer.Stop()
	began := time.Now()
	for i := g.begin(); i >= 0; i = g.begin() {
		if err := g.s.run(turn, g.cells[i]); err != nil {
			return err
		}
		g.ran++
	}
	g.took = time.Since(began)
	return nil
}

// begin returns the index of the next cell; -1 if none is left.
func (g *group) begin() int {
	if i := int(g.next.Add(1)) - 1; i < len(g.cells) {
		return i
	}
	return -1
}

// end makes the remaining answers ready. stream.mu is held.
func (g *group) end() {
	w := &g.s.crew
	w.running--
	if g.split {
		w.stuck--
	}
	if g.ran > 0 {
		w.learn(g.took / time.Duration(g.ran))
	}
	g.s.finish(g.cells[g.ready:g.ran])
	g.next.Store(maxGroup + 1) // if the timer has just ended
}

// divide makes the answers so far ready, and lets other workers have the requests that
// have not begun.
func (g *group) divide() {
	s := g.s
	s.mu.Lock()
	defer s.mu.Unlock()
	begun := int(g.next.Swap(maxGroup))
	if begun > len(g.cells) || g.split { // it has ended
		return
	}
	g.split = true
	done := max(g.ready, begun-1)
	s.finish(g.cells[g.ready:done])
	g.ready = done
	s.pending.pushFront(g.cells[begun:])
	s.crew.stuck++
	s.crew.each = max(s.crew.each, splitTime)
	s.crew.call(s.pending.len())
}

// untaken is a turn of an appender that has none.
type untaken struct{ Appender }

func (untaken) End() {}
