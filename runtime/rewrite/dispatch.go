package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// Compilers for languages with arbitrary jumps, as Go's, put the code of a
// function into a loop whose head is a table of jumps:
//
//	loop
//	  block ... block
//	    local.get $next
//	    br_table ...
//	  end
//	  ...
//	  i32.const 7
//	  local.set $next
//	  br $loop
//
// Each jump would check the fuel, although most of them lead forward. If the
// block whose end the table has for the constant is still open, the rewritten
// code branches there directly, is charged for the head, and does not check.

// dispatch is such a head.
type dispatch struct {
	local  uint32
	cost   int64   // of the head, in units
	labels []place // the default label last
}

// place is a label, identified by its frame.
type place struct{ depth, number int }

// history has the last instructions, and the loop that may have a dispatch.
type history struct {
	last [3]binary.Instr // the newest last
	loop int             // depth of the frame of the loop whose head is being read, or 0
}

// follow notes the next instruction. The head of a loop has only blocks, one
// local.get and a br_table.
func (h *history) follow(in binary.Instr) {
	before, head := h.last[2].Op, false
	switch in.Op {
	case binary.OpBlock:
		head = in.Block == noType && (before == binary.OpLoop || before == binary.OpBlock)
	case binary.OpLocalGet:
		head = before == binary.OpLoop || before == binary.OpBlock
	case binary.OpBrTable:
		head = before == binary.OpLocalGet
	}
	if !head {
		h.loop = 0
	}
	h.last[0], h.last[1], h.last[2] = h.last[1], h.last[2], in
}

// noType is the type of a block without parameters and results.
const noType = -64

// enterHead notes that the head of the innermost loop begins.
func (e *emitter) enterHead() {
	if e.module.o.Metering && e.top().arity() == 0 {
		e.history.loop = len(e.frames) - 1
	}
}

// leaveHead notes the dispatch that ends with a br_table, if there is one.
func (e *emitter) leaveHead(r *binary.Reader, in binary.Instr) {
	if e.history.loop == 0 {
		return
	}
	d := &dispatch{local: e.history.last[1].Index, cost: e.sites[e.segment].cost}
	for label := range r.Targets(in) {
		depth := len(e.frames) - 1 - int(label)
		d.labels = append(d.labels, place{depth, e.frames[depth].number})
	}
	e.frames[e.history.loop].dispatch = d
}

// shortcut returns the label that a br reaches: that of a dispatch if it leads
// forward, and else the label itself.
func (e *emitter) shortcut(in binary.Instr) uint32 {
	d, number, set := e.target(in.Index).dispatch, e.history.last[0], e.history.last[1]
	if d == nil || number.Op != binary.OpI32Const || set.Op != binary.OpLocalSet || set.Index != d.local {
		return in.Index
	}
	to := d.labels[min(uint32(number.Value), uint32(len(d.labels)-1))]
	if to.number < 0 || to.depth >= len(e.frames) || e.frames[to.depth].number != to.number {
		return in.Index
	}
	if f := &e.frames[to.depth]; f.op == binary.OpLoop || f.arity() > 0 {
		return in.Index
	}
	e.spend(d.cost)
	return uint32(len(e.frames) - 1 - to.depth)
}
