// Package fold makes one result from many outputs: it takes outputs in id order,
// and gives the module's aggregate and the root of the outputs' Merkle tree.
//
// The groups of outputs, and the way groups are merged, depend only on ids and
// outputs (abi/ABI.md), so the result is the same wherever and whenever the calls
// are made. A call of aggregate or merge is a task: [Fold] reports that it is
// ready, and its user makes it with an instance of the module.
package fold

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// The limits of a group of outputs or partial aggregates, if the module can merge.
// A group is closed before the element that would make it exceed one of them; it
// has at least one element, for merge at least two. The groups therefore depend
// only on ids and outputs. The limits are part of the guest ABI (abi/ABI.md): other
// limits can give other results.
const (
	groupCount = 10_000
	groupBytes = 8 << 20
)

// Caller calls functions of the guest, on fresh state each time.
type Caller interface {
	// Call appends the result of the function to dst. A failure of the guest is an
	// *[abi.Failure]; any other error is from ctx.
	Call(ctx context.Context, function string, input, dst []byte) (output []byte, fuel uint64, err error)
}

// Error reports that aggregate or merge failed.
type Error struct {
	Step    string // name of the export
	Failure *abi.Failure
}

func (e *Error) Error() string { return fmt.Sprintf("%s failed: %v", e.Step, e.Failure) }

// Unwrap returns the failure.
func (e *Error) Unwrap() error { return e.Failure }

// Fold prepares the calls of a fold. Add and Result belong to one goroutine at a
// time; Call and Cancel may be called from any.
type Fold struct {
	ctx    context.Context
	cancel context.CancelFunc
	merges bool           // the module exports merge
	ready  func(call int) // gets the call made
	group  group          // the open group
	level  *level         // the level of the open group

	mu      sync.Mutex // guards all fields below
	calls   map[int]*call
	made    int // number of calls so far
	running int // number of calls that are being made
	settled chan struct{}
	err     error  // the first error, by time
	fuel    uint64 // sum over all calls
}

// call is a call of the guest for one group.
type call struct {
	of       *level
	group    int
	function string
	input    []byte
}

// level holds the results of one function over all groups.
type level struct {
	function string
	least    int      // elements that a group must have before its size counts
	partials [][]byte // one partial for each group
}

// group is a sequence of elements, each a CBOR item.
type group struct {
	elements []byte // after room for the array's head
	count    int
	entry    []byte // scratch
}

// headRoom is the size of the longest head of an array.
const headRoom = 9

// New returns a fold for a module; merges reports whether it exports merge. ready
// is called with the number of each call to be made, from the goroutine that adds;
// it must not make the call itself. The end of ctx ends calls.
func New(ctx context.Context, merges bool, ready func(call int)) *Fold {
	f := &Fold{merges: merges, ready: ready, calls: map[int]*call{}, settled: make(chan struct{}, 1)}
	f.ctx, f.cancel = context.WithCancel(ctx)
	f.level = &level{function: abi.ExportAggregate, least: 1}
	return f
}

// Add adds an output, which must be the next in id order, and copies it. After a
// call has failed, Add does nothing.
func (f *Fold) Add(id abi.ID, output []byte) {
	if f.ctx.Err() != nil {
		return
	}
	f.group.entry = abi.AppendEntry(f.group.entry[:0], id, output)
	f.add(f.group.entry)
}

// add puts an element into the open group. If it does not fit, add closes the group
// first.
func (f *Fold) add(element []byte) {
	g := &f.group
	if f.merges && g.count >= f.level.least && full(g.count, len(g.elements)-headRoom, len(element)) {
		f.flush()
	}
	if g.count == 0 {
		g.elements = append(g.elements[:0], make([]byte, headRoom)...)
	}
	g.elements = append(g.elements, element...)
	g.count++
}

// full reports whether a group has no room for an element.
func full(count, bytes, element int) bool { return count >= groupCount || bytes+element > groupBytes }

// Groups finds the groups of one level of a fold from the sizes of its elements, as [Fold]
// does if the module can merge.
type Groups struct {
	least, count, bytes int
}

// NewGroups returns the groups of a level: 0 for outputs, more for partial aggregates.
func NewGroups(level int) *Groups { return &Groups{least: min(level, 1) + 1} }

// Add adds an element of a size, and reports whether a group begins with it.
func (g *Groups) Add(size int) (begins bool) {
	if begins = g.count == 0 || g.count >= g.least && full(g.count, g.bytes, size); begins {
		g.count, g.bytes = 0, 0
	}
	g.count++
	g.bytes += size
	return begins
}

// flush makes the call for the open group ready, and begins a new group.
func (f *Fold) flush() {
	g := &f.group
	if g.count == 0 {
		g.elements = make([]byte, headRoom)
	}
	head := abi.AppendHead(nil, abi.MajorArray, uint64(g.count))
	input := g.elements[headRoom-len(head):]
	copy(input, head)
	// The next group is likely to be as large. What is larger pays for its growth.
	g.elements, g.count = make([]byte, 0, min(len(g.elements), 64<<10)), 0

	f.mu.Lock()
	number := f.made
	f.made++
	f.calls[number] = &call{f.level, len(f.level.partials), f.level.function, input}
	f.level.partials = append(f.level.partials, nil)
	f.mu.Unlock()
	f.ready(number)
}

// Call makes a call that is ready. It does nothing if the call was given up.
func (f *Fold) Call(number int, by Caller) {
	f.mu.Lock()
	c := f.calls[number]
	delete(f.calls, number)
	if c == nil {
		f.mu.Unlock()
		return
	}
	f.running++
	f.mu.Unlock()
	output, fuel, err := by.Call(f.ctx, c.function, c.input, nil)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.running--
	c.of.partials[c.group] = output
	f.fuel += fuel
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		err = &Error{c.function, failure}
	}
	f.fail(err)
	select {
	case f.settled <- struct{}{}:
	default:
	}
}

// fail keeps the first error, which ends all calls. mu must be held.
func (f *Fold) fail(err error) {
	if err != nil && f.err == nil {
		f.err = err
		f.cancel()
	}
}

// Cancel ends all calls, with the error of a canceled context.
func (f *Fold) Cancel() { f.cancel() }

// Wait returns when at most most calls are ready or being made, or the fold has
// ended. It limits the memory of a caller that adds faster than calls are made.
func (f *Fold) Wait(most int) {
	for f.Busy(most) {
		select {
		case <-f.settled:
		case <-f.ctx.Done():
		}
	}
}

// Busy reports whether Wait would wait.
func (f *Fold) Busy(most int) bool { return f.ctx.Err() == nil && f.open() > most }

func (f *Fold) open() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.calls) + f.running
}

// Result waits for the calls, merges their results, and returns the aggregate.
// After it has returned, no call is being made. The error is an *[Error], or from
// ctx.
func (f *Fold) Result() ([]byte, error) {
	f.close()
	for {
		if err := f.End(nil); err != nil {
			return nil, err
		}
		partials := f.level.partials
		if len(partials) == 1 {
			return partials[0], nil
		}
		f.level = &level{function: abi.ExportMerge, least: 2}
		for _, p := range partials {
			f.add(p)
		}
		f.close()
	}
}

// close closes the last group. If it is a group of merge with one partial
// aggregate, that is passed on as it is.
func (f *Fold) close() {
	switch {
	case f.group.count == 1 && f.level.function == abi.ExportMerge:
		f.mu.Lock()
		f.level.partials = append(f.level.partials, append([]byte{}, f.group.elements[headRoom:]...))
		f.mu.Unlock()
		f.group.elements, f.group.count = nil, 0
	case f.group.count > 0 || len(f.level.partials) == 0:
		f.flush()
	}
}

// End waits for the calls that are ready, or gives them up if err is not nil, and
// returns the first error. After it has returned, no call is being made.
func (f *Fold) End(err error) error {
	f.mu.Lock()
	f.fail(err)
	f.mu.Unlock()
	f.Wait(0)
	if f.ctx.Err() != nil {
		f.giveUp()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.err = f.ctx.Err()
	}
	return f.err
}

// giveUp drops the calls that nobody has begun, and waits for the others.
func (f *Fold) giveUp() {
	f.mu.Lock()
	clear(f.calls)
	f.mu.Unlock()
	for f.open() > 0 {
		<-f.settled
	}
}

// Fuel returns the fuel of all calls. It is final when the calls have ended.
func (f *Fold) Fuel() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fuel
}
