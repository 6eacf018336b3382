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
	// A guest gets minSlice to maxSlice units of fuel at a time. Between two
	// slices, it checks the clock and Go's garbage collector can run. A slice
	// is about 15 us of computing, compared to which the 0.1 us of yield are
	// small. But a unit can take much longer: when the guest touches new
	// memory, 0.2 to 28 us were seen for a page, and 0.1 us when it calls the
	// host with no effect. After a slice that took longer than slowSlice, the
	// next is the shortest possible, and each one after it is twice as long.
	// Slices have no effect on results and fuel.
	minSlice  = 4 << 10
	maxSlice  = 64 << 10
	slowSlice = time.Millisecond

	// turn is how long a guest runs before other goroutines may run. Go's own
	// time slices of 10 ms are too long: if guests keep all cores busy, a
	// collection waits for several of them, one after the other (67 ms in the
	// median, compared to 2).
	turn = time.Millisecond
	// noBudget is a budget that no guest can exceed.
	noBudget = 1<<62 - 1
	// hostSlice is the number of units that host functions charge between two
	// checks of the clock.
	hostSlice = 1 << 20
	// hostCall is the charge of a host function for itself: it takes as long as
	// a few hundred instructions.
	hostCall = 100
)

// stopError is the panic of host functions that end a call. It has the failure,
// or nil if the caller's context has ended.
type stopError struct{ failure *abi.Failure }

func (e *stopError) Error() string {
	if e.failure == nil {
		return "cancelled"
	}
	return e.failure.Message
}

// meter bounds one step of an instance by fuel and by time (see METERING.md in
// package rewrite). It is used by the goroutine that runs the guest.
type meter struct {
	fuel  api.MutableGlobal // nil if the module is not metered
	stack api.MutableGlobal
	depth uint64 // initial value of stack for each call

	ctx      context.Context // the caller's
	budget   int64
	granted  int64 // fuel given since the start of the step
	work     uint64
	timeout  time.Duration
	deadline time.Duration // on the clock of now; noDeadline without a timeout
	last     time.Duration // limit for the deadline when heartbeats move it
	slice    int64         // fuel in the last slice
	since    time.Duration // start of the last slice; notYet before the clock was read
	turned   time.Duration // when other goroutines last had a turn
}

const (
	noDeadline = math.MaxInt64
	notYet     = -1
)

var epoch = time.Now()

// now reads only the monotonic clock, at half the cost of time.Now, which would
// be noticeable in tiny calls.
func now() time.Duration { return time.Since(epoch) }

// attach attaches m to an instance. A start function may run while the instance
// is being created.
func (m *meter) attach(module api.Module, depth int64) {
	fuel, metered := module.ExportedGlobal(rewrite.FuelExport).(api.MutableGlobal)
	if !metered {
		return
	}
	m.fuel, m.depth = fuel, uint64(depth)
	m.stack = module.ExportedGlobal(rewrite.StackExport).(api.MutableGlobal)
}

// begin starts a step with a first slice of fuel. Most steps need no other.
func (m *meter) begin(ctx context.Context, budget uint64, timeout time.Duration) {
	m.ctx, m.budget, m.granted, m.work = ctx, noBudget, 0, 0
	if budget > 0 && budget < noBudget {
		m.budget = int64(budget)
	}
	m.timeout, m.deadline = timeout, noDeadline
	m.slice, m.since = minSlice, notYet
	if m.fuel == nil { // without metering, or while a start function runs
		m.now()
		return
	}
	m.granted = min(minSlice, m.budget)
	m.fuel.Set(uint64(m.granted))
}

// now reads the clock. The first time, the time limit begins: with metering, that is at
// the end of the first slice, so that a tiny call does not pay for the clock, which would
// be 1 % of a call that does nothing.
func (m *meter) now() time.Duration {
	at := now()
	if m.since == notYet {
		m.since, m.turned = at, at
		if m.timeout > 0 {
			m.deadline = later(at, m.timeout)
			m.last = at + time.Duration(min(float64(leaseFactor)*float64(m.timeout), math.MaxInt64/2))
		}
	}
	return at
}

// later returns the time d after t, or noDeadline if that is too far.
func later(t, d time.Duration) time.Duration { return t + min(d, noDeadline-t) }

// enter prepares one call of the host within a step.
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

// spent reports whether the step has used more than its budget. It has then
// failed, whatever else happened in it.
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
	at := m.now()
	m.checkAt(at)
	left := min(m.nextSlice(at), m.budget-used)
	m.granted += left - fuel
	return left
}

// settle sets the global to the guest's remaining fuel when no more code runs
// that would do it, so that the failure has the fuel that was used.
func (m *meter) settle(fuel int64) {
	if m.fuel != nil { // nil while a start function runs
		m.fuel.Set(uint64(fuel))
	}
}

// nextSlice returns the guest's next slice of fuel, depending on the duration
// of the last one.
func (m *meter) nextSlice(at time.Duration) int64 {
	switch took := at - m.since; {
	case took > slowSlice:
		m.slice = minSlice
	case took > 0: // the time of the first slice is not known
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

// check ends the step if its time is over.
func (m *meter) check() { m.checkAt(m.now()) }

func (m *meter) checkAt(now time.Duration) {
	if m.ctx.Err() != nil {
		panic(&stopError{})
	}
	if m.lateAt(now) {
		panic(&stopError{m.timedOut()})
	}
}

func (m *meter) late() bool { return m.lateAt(m.now()) }

func (m *meter) lateAt(now time.Duration) bool { return now > m.deadline }

func (m *meter) timedOut() *abi.Failure {
	return abi.Failf(abi.ClassTimeout, "ran longer than %s", m.timeout)
}

func outOfFuel(budget int64) *abi.Failure {
	return abi.Failf(abi.ClassFuel, "used more than %d units of fuel", budget)
}

// charge charges units for work that a host function is about to do.
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

// renew moves the deadline to the full timeout from now, but not beyond ten
// timeouts in total. It reports whether there is time left.
func (m *meter) renew() bool {
	if m.ctx.Err() != nil || m.late() {
		return false
	}
	if m.deadline != noDeadline {
		m.deadline = min(later(m.now(), m.timeout), m.last)
	}
	return true
}
