package flow

import (
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// maxFolded bounds the data of children that a module folds, in bytes.
const maxFolded = 1 << 30

// add adds the data of a child that ended. Data beyond the limit of a join is not
// held.
func (j *join) add(child *name, data []byte, most int) {
	if j.from.Children.Fold != nil {
		most = maxFolded
	}
	if j.over = j.over || len(j.arena)+len(data) > most; j.over {
		return
	}
	from := uint32(len(j.arena))
	j.arena = append(j.arena, data...)
	j.ended.add(ended{child, from, uint32(len(j.arena))})
}

func (m *machine) childFailed(it *item, class abi.Class, message string) {
	it.of.missing = append(it.of.missing, missing{it.name, class, message})
	m.childDone(it.of)
}

// childDone counts a child that has ended, and resumes the parent after the last
// one.
func (m *machine) childDone(j *join) {
	if j.left--; j.left > 0 {
		return
	}
	m.moving++
	if c := j.from.Children; !c.tolerates(len(j.missing), j.all) {
		m.refuse(j, abi.Failf(ClassChildren, "%d of %d children failed", len(j.missing), j.all))
		return
	}
	if j.over {
		m.refuse(j, abi.Failf(ClassChildren, "the data of %d children is too large", j.all))
		return
	}
	j.ended.sort(func(a, b ended) int { return a.child.compare(b.child) })
	slices.SortFunc(j.missing, func(a, b missing) int { return a.child.compare(b.child) })
	m.folds = append(m.folds, j)
}

// refuse fails the parent in the state that emitted, with the data with which it
// entered that state: its decision there does not count.
func (m *machine) refuse(j *join, f *abi.Failure) {
	m.tallies[j.from.index].left--
	j.it.state, j.it.data = uint16(j.from.index), j.entry
	m.fail(j.it, f)
}

// resume resumes the parent of a join whose children have ended. children is the
// value of "children" in its data; if it is nil, the array of the children.
func (m *machine) resume(j *join, in Input, children []byte) {
	const ids, heads = 24, 64 // for an id with its heads, and for the map
	data := make([]byte, 0, len(j.it.data)+len(children)+len(j.arena)+ids*j.ended.len()+heads)
	data = abi.AppendHead(data, abi.MajorMap, 3)
	data = append(abi.AppendText(data, "item"), j.it.data...)
	data = abi.AppendText(data, "children")
	if children == nil {
		data = j.appendChildren(data, in)
	}
	data = append(data, children...)
	data = j.appendMissing(abi.AppendText(data, "failed"), in)
	j.ended, j.arena, j.missing = blocks[ended]{}, nil, nil
	if len(data) > m.bounds.MaxData {
		m.refuse(j, abi.Failf(ClassChildren, "the data of %d children is too large", j.all))
		return
	}
	if j.it.past != nil && !m.plan.pure() {
		clear(j.it.past.seen) // its children may have made effects
	}
	j.it.data = data
	m.enter(j.it, j.from.join)
}

// pure reports whether the flow makes no effects.
func (p *plan) pure() bool {
	for i := range p.states {
		if s := &p.states[i]; !s.pure && !s.isEnd() {
			return false
		}
	}
	return true
}

func (j *join) appendChildren(dst []byte, in Input) []byte {
	dst = abi.AppendHead(dst, abi.MajorArray, uint64(j.ended.len()))
	for i := range j.ended.len() {
		e := j.ended.at(i)
		dst = abi.AppendEntry(dst, e.child.id(in), j.arena[e.from:e.to])
	}
	return dst
}

func (j *join) appendMissing(dst []byte, in Input) []byte {
	dst = abi.AppendHead(dst, abi.MajorArray, uint64(len(j.missing)))
	for _, f := range j.missing {
		dst = abi.AppendHead(dst, abi.MajorArray, 3)
		dst = f.child.id(in).AppendCBOR(dst)
		dst = abi.AppendText(dst, string(f.class))
		dst = abi.AppendText(dst, f.message)
	}
	return dst
}
