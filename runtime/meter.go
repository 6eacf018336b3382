package runtime

import (
	"context"
	"math"
	goruntime "runtime"
	"time"

	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

const (
	// A guest gets minSlice to maxSlice of fuel at a time, between two looks at
	// the clock and two chances for Go's garbage collector: some 15 us of
	// computing, beside which the 0.1 us of yield are small. But a unit can take
	// much longer: where the guest touches new memory, 0.2 to 28 us were seen for a
	// page, and 0.1 us where it calls the host for nothing. After a slice that took
	// longer than slowSlice, the next is as short as can be, and each after it
	// twice as long. What results and what it costs does not depend on slices.
	minSlice  = 4 << 10
	maxSlice  = 64 << 10
	slowSlice = time.Millisecond

	// turn is how long a guest runs before other goroutines may. Go's own turns
	// of 10 ms are too long: a collection waits for several of them, one after the
	// other, where guests keep all cores busy (67 ms in the median against 2).
	turn = time.Millisecond
	// noBudget is a budget that no guest can use up.
	noBudget = 1<<62 - 1
	// hostSlice is how many units host functions charge between two looks at
	// the clock.
	hostSlice = 1 << 20
	// hostCall is what a host function charges for itself: it takes as long as
	// some hundred instructions.
	hostCall = 100
)

// stopError is what host functions panic to end a call: with the failure, or
// nil where the caller's context has ended.
type stopError struct{ failure *abi.Failure }

func (e *stopError) Error() string {
	if e.failure == nil {
		return "cancelled"
	}
	return e.failure.Message
}

// meter bounds one step on an instance by fuel and by time (see METERING.md in
// package rewrite). It is used by the goroutine that runs the guest.
type meter struct {
	fuel  api.MutableGlobal // nil in a module that is not metered
	stack api.MutableGlobal
	depth uint64 // value of stack with which each call begins

	ctx      context.Context // of the caller
	budget   int64
	granted  int64 // fuel given since the step began
	work     uint64
	timeout  time.Duration
	deadline time.Duration // on the clock of now; noDeadline without a timeout
	last     time.Duration // beyond which no heartbeat moves the deadline
	slice    int64         // of fuel, that the guest got last
	since    time.Duration // when it did
	turned   time.Duration // when other goroutines had their turn
}

const noDeadline = math.MaxInt64

var epoch = time.Now()

// now reads the monotonic clock alone: half the price of time.Now, which a
// tiny call would notice.
func now() time.Duration { return time.Since(epoch) }

// attach makes m that of an instance, which a start function may run in while
// it is made.
func (m *meter) attach(module api.Module, depth int64) {
	fuel, metered := module.ExportedGlobal(rewrite.FuelExport).(api.MutableGlobal)
	if !metered {
		return
	}
	m.fuel, m.depth = fuel, uint64(depth)
	m.stack = module.ExportedGlobal(rewrite.StackExport).(api.MutableGlobal)
}

// begin starts a step, with a first slice of fuel: most steps need no other.
func (m *meter) begin(ctx context.Context, budget uint64, timeout time.Duration) {
	m.ctx, m.budget, m.granted, m.work = ctx, noBudget, 0, 0
	if budget > 0 && budget < noBudget {
		m.budget = int64(budget)
	}
	start := now()
	m.timeout, m.deadline = timeout, noDeadline
	m.slice, m.since, m.turned = minSlice, start, start
	if timeout > 0 {
		m.deadline = later(start, timeout)
		m.last = start + time.Duration(min(float64(leaseFactor)*float64(timeout), math.MaxInt64/2))
	}
	if m.fuel != nil { // not yet while a start function runs
		m.granted = min(minSlice, m.budget)
		m.fuel.Set(uint64(m.granted))
	}
}

// later returns the time d after t, or noDeadline where that is too far.
func later(t, d time.Duration) time.Duration { return t + min(d, noDeadline-t) }

// enter prepares for one call of the host within a step.
func (m *meter) enter() {
	if m.stack != nil {
		m.stack.Set(m.depth)
	}
}

// used returns the fuel of the step so far.
func (m *meter) used() int64 {
	if m.fuel == nil {
		return 0
	}
	return m.granted - int64(m.fuel.Get())
}

// spent reports whether the step has used more than its budget. It then failed
// whatever else happened in it.
func (m *meter) spent() bool { return m.used() > m.budget }

// yield gives the guest its next slice of fuel, or ends the step.
func (m *meter) yield(fuel, stack int64) int64 {
	used := m.granted - fuel
	switch {
	case used > m.budget:
		m.settle(fuel)
		panic(&stopError{outOfFuel(m.budget)})
	case stack < 0:
		m.settle(fuel)
		panic(&stopError{abi.Failf(abi.ClassTrap, stackOverflow)})
	}
	at := now()
	m.checkAt(at)
	left := min(m.nextSlice(at), m.budget-used)
	m.granted += left - fuel
	return left
}

// settle makes the global what the guest has left: no code runs any more that
// would, and the failure says what was used.
func (m *meter) settle(fuel int64) {
	if m.fuel != nil { // not yet while a start function runs
		m.fuel.Set(uint64(fuel))
	}
}

// nextSlice returns how much fuel the guest gets next, by how long the last
// took.
func (m *meter) nextSlice(at time.Duration) int64 {
	if at-m.since > slowSlice {
		m.slice = minSlice
	} else {
		m.slice = min(2*m.slice, maxSlice)
	}
	if at-m.turned > turn {
		goruntime.Gosched()
		at = now()
		m.turned = at
	}
	m.since = at
	return m.slice
}

// check ends the step where its time is over.
func (m *meter) check() { m.checkAt(now()) }

func (m *meter) checkAt(now time.Duration) {
	if m.ctx.Err() != nil {
		panic(&stopError{})
	}
	if m.lateAt(now) {
		panic(&stopError{m.timedOut()})
	}
}

func (m *meter) late() bool { return m.lateAt(now()) }

func (m *meter) lateAt(now time.Duration) bool { return now > m.deadline }

func (m *meter) timedOut() *abi.Failure {
	return abi.Failf(abi.ClassTimeout, "ran longer than %s", m.timeout)
}

func outOfFuel(budget int64) *abi.Failure {
	return abi.Failf(abi.ClassFuel, "used more than %d units of fuel", budget)
}

// charge takes units for work that a host function is about to do.
func (m *meter) charge(units uint64) {
	if m.fuel != nil {
		m.fuel.Set(uint64(int64(m.fuel.Get()) - int64(units)))
		if m.spent() {
			panic(&stopError{outOfFuel(m.budget)})
		}
	}
	if m.work += units; m.work >= hostSlice {
		m.work = 0
		m.check()
	}
}

// renew moves the deadline to its full length from now, but not beyond ten
// times that length in all. It reports whether there is time left.
func (m *meter) renew() bool {
	if m.ctx.Err() != nil || m.late() {
		return false
	}
	if m.deadline != noDeadline {
		m.deadline = min(later(now(), m.timeout), m.last)
	}
	return true
}
