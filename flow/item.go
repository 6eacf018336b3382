package flow

import (
	"crypto/sha256"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// item is an item that moves. It belongs to the goroutine of the [machine], except
// while a lane has it. With its name and its data it has a few hundred bytes.
type item struct {
	*name
	data    []byte // with which it entered the state
	of      *join  // of its parent, which waits for it; nil if no parent waits
	via     abi.Class
	tries   *queue.Tries  // of the step; nil before the first failure
	past    *past         // nil before it is needed
	since   time.Duration // after the start of the run: when it entered the state, or became ready again
	delay   time.Duration // before the step; 0 = none
	due     int64         // when the delay is over, as time.UnixMilli; 0 = not known
	steps   uint32
	kids    uint32 // children so far
	state   uint16
	refused uint16 // states in a row that it could not enter
	routed  bool   // it was routed by class steps: not a second time
	damaged bool   // the record of its effect is damaged
	told    bool   // observers know that it failed
	stale   bool   // the effect was made for other data
}

// past is the part of an item's history that later steps need.
type past struct {
	visits map[int]uint32     // by state
	sent   map[sentFrom]bool  // decisions of persons that it followed
	seen   map[visit]struct{} // since the last effect
}

// sentFrom is a visit from which a person's decision sent an item on.
type sentFrom struct{ state, step int }

// visit stands for a state and the data with which it was entered.
type visit struct {
	state int
	data  [16]byte
}

func (it *item) memory() *past {
	if it.past == nil {
		it.past = &past{visits: map[int]uint32{}, sent: map[sentFrom]bool{}, seen: map[visit]struct{}{}}
	}
	return it.past
}

// loops notes a visit of a pure state, and reports whether it is the second with
// the same data.
func (it *item) loops(state int) bool {
	sum := sha256.Sum256(it.data)
	v := visit{state, [16]byte(sum[:16])}
	p := it.memory()
	_, before := p.seen[v]
	p.seen[v] = struct{}{}
	return before
}

// join is the children of one step, for which an item waits.
type join struct {
	it      *item
	from    *state // that emitted
	entry   []byte // the data with which it entered from
	left    int    // children that have not ended
	all     int
	ended   blocks[ended]
	arena   []byte // the data of ended
	missing []missing
	over    bool // the children's data is too large
}

// ended is a child that came to an end.
type ended struct {
	child    *name
	from, to uint32 // in the arena, which is below MaxData
}

// missing is a child that failed.
type missing struct {
	child   *name
	class   abi.Class
	message string
}

// emission is children that a step made and that do not move yet.
type emission struct {
	parent *name
	first  uint32 // number
	left   int
	rest   []byte // of the move
	data   []byte // of the parent: the data of a child that has none
	of     *join  // nil if the parent does not wait
	state  *state // that emitted
}

// slots is the memory for the roots of a walk's window, which the next window uses again:
// an item, its name and its small data are no allocations of their own. Children have no
// slot. A nil slots has none.
type slots struct {
	first int // root
	all   []slot
}

type slot struct {
	item item
	name name
	data [smallData]byte
	sum  store.Digest // of the data with which the item begins step
	step uint32       // 0 = none
}

// hold makes room for the roots from..to-1.
func (s *slots) hold(from, to int) {
	s.first = from
	s.all = slices.Grow(s.all[:0], to-from)[:to-from]
}

// clear forgets all items, which must not be used any more.
func (s *slots) clear() { clear(s.all) }

// of returns the slot of an item; nil if it has none.
func (s *slots) of(n *name) *slot {
	if s == nil || n.parent != nil {
		return nil
	}
	return &s.all[int(n.number)-s.first]
}

// root returns an item for a root.
func (s *slots) root(number int) *item {
	if s == nil {
		return &item{name: &name{number: uint32(number)}}
	}
	at := &s.all[number-s.first]
	at.name.number, at.item.name = uint32(number), &at.name
	return &at.item
}

// keep returns a copy of data for an item. own says that nobody else has the item's data
// so far, whose memory may be used again.
func (s *slots) keep(it *item, data []byte, own bool) []byte {
	if at := s.of(it.name); at != nil && own && len(data) <= smallData {
		return append(at.data[:0], data...)
	}
	return append([]byte(nil), data...)
}

// note records the digest of the data with which an item begins its next step.
func (s *slots) note(it *item, sum store.Digest) {
	if at := s.of(it.name); at != nil {
		at.sum, at.step = sum, it.steps+1
	}
}

// sumOf returns the digest of the data with which an item began its step, if it is known.
func (s *slots) sumOf(it *item) (sum store.Digest, known bool) {
	at := s.of(it.name)
	if at == nil || at.step == 0 || at.step != it.steps {
		return sum, false
	}
	return at.sum, true
}

func digestOf(data []byte) store.Digest { return sha256.Sum256(data) }
