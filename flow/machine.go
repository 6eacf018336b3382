package flow

import (
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Limits of items.
type Bounds struct {
	MaxItems int // of a run; 0 = 10,000,000
	MaxSteps int // of one item; 0 = 1,000
	MaxDepth int // of children of children; 0 = 32
	MaxData  int // bytes of the data that a join makes; 0 = 64 MiB
}

func (b Bounds) withDefaults() Bounds {
	set := func(n *int, value int) {
		if *n == 0 {
			*n = value
		}
	}
	set(&b.MaxItems, 10_000_000)
	set(&b.MaxSteps, 1_000)
	set(&b.MaxDepth, 32)
	set(&b.MaxData, 64<<20)
	return b
}

// witness observes a machine. Slices are valid until a method returns; names stay
// valid.
type witness interface {
	// stepped is called for a step with an output.
	stepped(it *item, s *state, data, output []byte, fuel uint64)
	// gaveUp is called for a step whose executor failed for good.
	gaveUp(it *item, s *state, f *abi.Failure)
	// emitted is called before the children of a step enter their states.
	emitted(it *item, children int)
	// ended is called for an item at an end.
	ended(it *item, s *state)
	// failed is called for an item that failed in a state and was not routed.
	failed(it *item, s *state, f *abi.Failure)
}

// tally counts the items that entered one state. At every moment,
// entered = left + failed + the items that are in the state.
type tally struct {
	entered, left, failed int
	reused                int
	fuel                  uint64
}

// machine implements the rules by which items move, without a clock, a store or
// goroutines. It belongs to one goroutine.
type machine struct {
	plan    *plan
	bounds  Bounds
	witness witness // may be nil
	// decided returns the state to which a person sent a failed item, if one did.
	decided func(it *item, s *state) (to sent, ok bool)
	tallies []tally // by state
	// sum is the digest of the data of the item that advances, if summed says so.
	sum    store.Digest
	summed bool
	// outputSum is the digest of its output, if the witness computed it and set outputSummed.
	outputSum    store.Digest
	outputSummed bool
	slots        *slots // of the roots; nil = none

	fresh     [][]*item // by state: entered, and not taken yet
	taken     []*item   // the last ones that were taken
	nFresh    int
	emissions []*emission // the deepest last
	folds     []*join     // whose children have ended

	total, ended, failed int // items; failed includes items that reached no end
	atFailed             int // items at an end that is failed
	steps                int
	moving               int // items that are in a state
	impure               bool
	overflow             bool // more items than MaxItems
}

func newMachine(r *replay, b Bounds, w witness) *machine {
	p := r.plan
	return &machine{decided: func(it *item, s *state) (sent, bool) { return r.redrives.find(it, s, r.roots) }, plan: p, bounds: b.withDefaults(), witness: w, tallies: make([]tally, len(p.states)), fresh: make([][]*item, len(p.states))}
}

// addRoot adds a root. The machine copies data.
func (m *machine) addRoot(number int, data []byte) {
	m.count(1)
	m.moving++
	it := m.slots.root(number)
	it.data = m.slots.keep(it, data, true)
	m.enter(it, m.plan.start)
}

func (m *machine) count(n int) {
	m.total += n
	m.overflow = m.overflow || m.total > m.bounds.MaxItems
}

// enter moves an item into a state, with its data. A refused item may be routed to
// another state, which may refuse it too; after as many refusals as there are states
// it is not routed any more.
func (m *machine) enter(it *item, to int) {
	s := &m.plan.states[to]
	t := &m.tallies[to]
	t.entered++
	it.state = uint16(to) // a flow has at most MaxStates
	if s.isEnd() {
		m.end(it, s)
		return
	}
	if f := m.admit(it, s); f != nil {
		it.refused++
		m.fail(it, f)
		return
	}
	it.refused = 0
	it.delay += s.Wait
	it.steps++
	m.steps++
	m.fresh[to] = append(m.fresh[to], it)
	m.nFresh++
}

// admit returns the failure of an item that may not enter a state; nil if it may.
func (m *machine) admit(it *item, s *state) *abi.Failure {
	if int(it.steps) >= m.bounds.MaxSteps {
		return abi.Failf(ClassSteps, "more than %d steps", m.bounds.MaxSteps)
	}
	if s.MaxVisits > 0 || s.Exec != nil && !s.pure {
		p := it.memory()
		if p.visits[s.index]++; s.MaxVisits > 0 && int(p.visits[s.index]) > s.MaxVisits {
			return abi.Failf(ClassSteps, "more than %d visits of state %s", s.MaxVisits, s.Name)
		}
	}
	switch {
	case !s.pure && it.past != nil:
		clear(it.past.seen)
	case s.pure && m.plan.cyclic && it.loops(s.index):
		return abi.Failf(ClassLoop, "it came back to state %s with the same data", s.Name)
	}
	return nil
}

// end handles an item that has come to an end.
func (m *machine) end(it *item, s *state) {
	if s.Failed {
		if to, ok := m.sentOn(it, s); ok {
			m.redirect(it, s, to)
			return
		}
	}
	m.moving--
	t := &m.tallies[s.index]
	if s.Failed {
		t.failed++
		m.failed++
		m.atFailed++
	} else {
		t.left++
		m.ended++
	}
	if m.witness != nil {
		m.witness.ended(it, s)
	}
	switch {
	case it.of == nil:
	case s.Failed:
		m.childFailed(it, it.via, "")
	default:
		it.of.add(it.name, it.data, min(m.bounds.MaxData, maxFolded))
		m.childDone(it.of)
	}
}

// giveUp handles an item whose executor failed for good.
func (m *machine) giveUp(it *item, f *abi.Failure) {
	if m.witness != nil {
		m.witness.gaveUp(it, &m.plan.states[it.state], f)
	}
	m.fail(it, f)
}

// fail handles an item whose step failed for good: it takes the route of its state
// for the class, with the data with which it entered the state.
func (m *machine) fail(it *item, f *abi.Failure) {
	s := &m.plan.states[it.state]
	if to, ok := s.routeOf(f.Class); ok && !(f.Class == ClassSteps && it.routed) && int(it.refused) <= len(m.plan.states) {
		m.tallies[it.state].left++
		it.via, it.routed = f.Class, it.routed || f.Class == ClassSteps
		m.impure = m.impure || slices.Contains(ofMachine, f.Class)
		m.enter(it, to)
		return
	}
	if to, ok := m.sentOn(it, s); ok {
		m.redirect(it, s, to)
		return
	}
	m.tallies[it.state].failed++
	m.failed++
	m.moving--
	if m.witness != nil {
		m.witness.failed(it, s, f)
	}
	if it.of != nil {
		m.childFailed(it, f.Class, f.Message)
	}
}

// sentOn returns the state to which a person sent an item from a visit. Each
// decision counts once for an item, which could otherwise go round for ever.
func (m *machine) sentOn(it *item, s *state) (to sent, ok bool) {
	if to, ok = m.decided(it, s); !ok {
		return to, false
	}
	from := sentFrom{s.index, int(it.steps)}
	if it.memory().sent[from] {
		return to, false
	}
	it.past.sent[from] = true
	return to, true
}

// advance handles the output of an item's step. It does not keep output.
func (m *machine) advance(it *item, output []byte, fuel uint64, reused bool) {
	s := &m.plan.states[it.state]
	mv, to, f := m.decide(it, s, output)
	if f != nil {
		m.fail(it, f)
		return
	}
	t := &m.tallies[it.state]
	t.fuel += fuel
	if reused {
		t.reused++
	}
	m.outputSummed = false
	if m.witness != nil {
		m.witness.stepped(it, s, it.data, output, fuel)
	}
	t.left++
	it.tries, it.delay, it.due, it.stale, it.damaged = nil, mv.after, 0, false, false
	entry := it.data
	if mv.data != nil {
		it.data = m.slots.keep(it, mv.data, mv.count == 0 && it.kids == 0) // children may have its data
	}
	if mv.count > 0 && m.emit(it, s, mv, entry) {
		return
	}
	if m.outputSummed && !s.Moves {
		m.slots.note(it, m.outputSum)
	}
	m.enter(it, to)
}

// decide reads the decision of a step.
func (m *machine) decide(it *item, s *state, output []byte) (mv move, to int, failure *abi.Failure) {
	if !s.Moves {
		return move{data: output}, s.next, nil
	}
	mv, err := parseMove(output)
	if err == nil {
		to, err = s.route(m.plan, mv.next)
	}
	if err == nil {
		err = m.checkChildren(it, s, mv)
	}
	if err != nil {
		return mv, 0, err.(*abi.Failure)
	}
	return mv, to, nil
}

// checkChildren checks all children of a move before the first is made.
func (m *machine) checkChildren(it *item, s *state, mv move) error {
	switch {
	case mv.count == 0:
		return nil
	case int(it.depth) >= m.bounds.MaxDepth:
		return abi.Failf(ClassDepth, "its children would be at depth %d, and %d is the deepest", it.depth+1, m.bounds.MaxDepth)
	case mv.count >= m.bounds.MaxItems || uint64(it.kids)+uint64(mv.count) > 1<<32-1:
		return abi.Failf(ClassChildren, "the move has %d children, and a run has at most %d items", mv.count, m.bounds.MaxItems)
	}
	rest := mv.emit
	for i := range mv.count {
		var c child
		var err error
		if c, rest, err = nextChild(rest); err == nil {
			_, err = s.route(m.plan, c.next)
		}
		if f, ok := err.(*abi.Failure); ok {
			return abi.Failf(f.Class, "child %d: %s", i, f.Message)
		}
	}
	return nil
}

// emit makes the children of a step, and reports whether the item waits for them, or
// was sent elsewhere.
func (m *machine) emit(it *item, s *state, mv move, entry []byte) (waits bool) {
	e := &emission{parent: it.name, first: it.kids, left: mv.count, rest: append([]byte(nil), mv.emit...), data: it.data, state: s}
	it.kids += uint32(mv.count)
	m.count(mv.count)
	if m.witness != nil {
		m.witness.emitted(it, mv.count)
	}
	m.emissions = append(m.emissions, e)
	if s.Children == nil {
		return false
	}
	if to, ok := m.sentOn(it, s); ok {
		if !to.last {
			it.data = entry
		}
		m.enter(it, to.state)
		return true
	}
	e.of = &join{it: it, from: s, entry: entry, left: mv.count, all: mv.count}
	m.moving--
	return true
}

// release lets emitted children enter their states until most items move.
func (m *machine) release(most int) {
	for m.moving < most && len(m.emissions) > 0 {
		e := m.emissions[len(m.emissions)-1]
		c, rest, err := nextChild(e.rest)
		if err != nil {
			panic(err) // it was read before
		}
		to, err := e.state.route(m.plan, c.next)
		if err != nil {
			panic(err)
		}
		it := &item{name: e.parent.child(e.first), data: e.data, of: e.of}
		if c.data != nil {
			it.data = append([]byte(nil), c.data...)
		}
		e.rest, e.first, e.left = rest, e.first+1, e.left-1
		if e.left == 0 {
			m.emissions[len(m.emissions)-1] = nil // it has the bytes of all children
			m.emissions = m.emissions[:len(m.emissions)-1]
		}
		m.moving++
		m.enter(it, to)
	}
}

// take returns the fresh items of one state, the nearest to an end that has any. They are
// valid until the next call.
func (m *machine) take(most int) (s *state, items []*item) {
	for i := range m.fresh {
		if len(m.fresh[i]) > 0 && (s == nil || m.plan.states[i].distance < s.distance) {
			s = &m.plan.states[i]
		}
	}
	clear(m.taken) // they may be at an end
	if s == nil {
		return nil, nil
	}
	all := m.fresh[s.index]
	n := min(len(all), most)
	m.taken = append(m.taken[:0], all[:n]...)
	m.fresh[s.index] = slices.Delete(all, 0, n)
	m.nFresh -= n
	return s, m.taken
}
