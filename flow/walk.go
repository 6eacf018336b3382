package flow

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"hash"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// End is an item at an end.
type End struct {
	ID    abi.ID
	State string
	Data  []byte // valid until the sink returns
}

// Append appends the map {"id", "state", "data"}.
func (e *End) Append(dst []byte) []byte {
	return e.append(abi.AppendHead(dst, abi.MajorMap, 3))
}

func (e *End) append(dst []byte) []byte {
	dst = e.ID.AppendCBOR(abi.AppendText(dst, "id"))
	dst = abi.AppendText(abi.AppendText(dst, "state"), e.State)
	return append(abi.AppendText(dst, "data"), e.Data...)
}

// Dead is an item that failed: in a state, with the data with which it entered the
// state, or at a failed end.
type Dead struct {
	End
	Class   abi.Class
	Message string
	Steps   int // begun
}

// leftItem is an item whose next step is not known.
type leftItem struct {
	End
	steps  int
	unsure bool // an effect may have been made
}

// Append appends the map {"id", "state", "data", "class", "message"}.
func (d *Dead) Append(dst []byte) []byte {
	dst = d.append(abi.AppendHead(dst, abi.MajorMap, 5))
	dst = abi.AppendText(abi.AppendText(dst, "class"), string(d.Class))
	return abi.AppendText(abi.AppendText(dst, "message"), d.Message)
}

// Sink receives the items that ended or failed, in item order. They are valid until the
// method returns. It may be nil.
type Sink interface {
	Ended(e *End) error
	Dead(d *Dead) error
}

// walk goes through the roots in id order, a window at a time, and finds the ends
// and failures of the roots and their children, in item order. It only looks up,
// and executes nothing. It belongs to one goroutine.
type walk struct {
	*replay
	bounds Bounds
	sink   Sink // may be nil
	final  bool // failures of this generation are final
	open   bool // items whose next step is not known are counted, and not visited again

	next  int    // root
	spare spare  // memory for the next window
	leaf  []byte // scratch
	end   End    // scratch
	totals
	digests
	folding *folding                                     // of the items at the end with a fold; nil = none
	left    func(e *leftItem) error                      // receives items whose next step is not known; may be nil
	made    func(leaf []byte) error                      // receives results of effects, in order; may be nil
	proving *proving                                     // nil if nothing is to be proved
	line    []byte                                       // scratch
	steps   func(id abi.ID, s *state, r *fullStep) error // receives the steps of each window, in order; may be nil
}

// totals are sums over the windows.
type totals struct {
	tallies                        []tally
	total, ended, failed, atFailed int
	steps, pending, uncertain      int
	impure                         bool
}

// digests are the trees of a receipt.
type digests struct {
	states, ends []tree // by state
	effects      merkle.Tree
	outputs      hash.Hash // of the file of ended items
}

// listed is what is known of the items of a window. Its zero value is empty.
type listed struct {
	steps []blocks[stepRecord]  // by state; nil if there are none
	bytes map[stepOf]*stepBytes // of the steps that have some
	ends  blocks[endRecord]
	data  dataList // of the ends
}

// stepOf names a step of an item.
type stepOf struct {
	name *name
	step uint32
}

// stepRecord is a step with an output. A window may have a million: it has 48 bytes.
type stepRecord struct {
	name *name
	step uint32       // of the item
	more bool         // it has stepBytes: it is an effect, or somebody wants to know more of it
	leaf store.Digest // hash of [id, step, H(input), H(output)]
}

// stepBytes are the bytes that only some steps need.
type stepBytes struct {
	input, output store.Digest
	effect        []byte // the output of an effect
	in, out       []byte // if the step is to be proved
	failure       *abi.Failure
}

// fullStep is a step with its bytes.
type fullStep struct {
	*stepRecord
	*stepBytes
}

func newWalk(r *replay, b Bounds, sink Sink) *walk {
	n := len(r.plan.states)
	w := &walk{replay: r, bounds: b, sink: sink}
	w.outputs = sha256.New()
	w.tallies, w.digests.states, w.digests.ends = make([]tally, n), make([]tree, n), make([]tree, n)
	for i := range n {
		w.digests.states[i], w.digests.ends[i] = &merkle.Tree{}, &merkle.Tree{}
	}
	return w
}

const (
	// windowRoots and windowBytes bound the roots that a walk takes at a time.
	windowRoots = 2048
	windowBytes = 16 << 20
	// lookUps is the number of outputs that are looked up at a time.
	lookUps = 4096
)

// run continues to the end, or to the first window in which a step is not
// known.
func (w *walk) run(ctx context.Context) (done bool, err error) {
	for w.next < w.roots.Len() {
		win := w.newWindow()
		to, err := win.fill(ctx)
		if err != nil {
			return false, err
		}
		if err := win.settle(ctx); err != nil {
			return false, err
		}
		if win.pending > 0 && !w.open {
			return false, nil
		}
		if err := w.commit(&win.listed); err != nil {
			return false, err
		}
		w.totals.add(win.machine, win.pending)
		w.reuse(win)
		w.next = to
	}
	return true, nil
}

// spare is the memory of a window that was committed.
type spare struct {
	listed
	slots *slots
	fresh [][]*item
	taken []*item
}

// newWindow returns a window with the memory of the last one.
func (w *walk) newWindow() *window {
	win := &window{walk: w, listed: w.spare.listed}
	win.machine = newMachine(w.replay, w.bounds, win)
	if win.machine.slots = w.spare.slots; w.spare.slots == nil {
		win.machine.slots = &slots{}
	} else {
		win.machine.fresh, win.machine.taken = w.spare.fresh, w.spare.taken
	}
	w.spare = spare{} // until it is empty again: the window may not be committed
	return win
}

// reuse takes the memory of a window that was committed.
func (w *walk) reuse(win *window) {
	m := win.machine
	win.listed.clear()
	m.slots.clear()
	w.spare = spare{win.listed, m.slots, m.fresh, m.taken}
}

// window is a span of roots of a walk, with all their descendants.
type window struct {
	*walk
	*machine
	listed
	pending int // items with a step that is not known
}

// endRecord is an item that does not move on. A window may have a million: it has 24
// bytes.
type endRecord struct {
	name *name
	*halt
	data  uint32 // its place in the list, and its size there
	size  uint16
	state uint16
}

// halt says why an item does not move on. It is nil for an item at an end that is not
// failed.
type halt struct {
	dead   *abi.Failure // nil if its next step is not known
	steps  int
	unsure bool // an effect may have been made
}

func (l *listed) clear() {
	for i := range l.steps {
		l.steps[i].clear()
	}
	l.bytes = nil
	l.ends.clear()
	l.data.clear()
}

// addEnd adds an item in its state.
func (l *listed) addEnd(it *item, h *halt) {
	r := endRecord{name: it.name, halt: h, state: it.state}
	r.data, r.size = l.data.add(it.data)
	l.ends.add(r)
}

// addStep adds a step of an item in one of n states. b may be nil.
func (l *listed) addStep(it *item, s *state, n int, leaf store.Digest, b *stepBytes) {
	if l.steps == nil {
		l.steps = make([]blocks[stepRecord], n)
	}
	l.steps[s.index].add(stepRecord{it.name, it.steps, b != nil, leaf})
	if b == nil {
		return
	}
	if l.bytes == nil {
		l.bytes = map[stepOf]*stepBytes{}
	}
	l.bytes[stepOf{it.name, it.steps}] = b
}

// errFull ends the reading of a window.
var errFull = errors.New("the window is full")

// fill reads roots.
func (w *window) fill(ctx context.Context) (to int, err error) {
	size := 0
	to = w.next
	most := min(to+windowRoots, w.roots.Len())
	w.machine.slots.hold(to, most)
	err = w.roots.Read(ctx, to, most, func(i int, chunk []byte) error {
		w.addRoot(i, chunk)
		to = i + 1
		if size += len(chunk); size > windowBytes {
			return errFull
		}
		return nil
	})
	if errors.Is(err, errFull) {
		err = nil
	}
	return to, err
}

// settle moves the items as far as their steps are known.
func (w *window) settle(ctx context.Context) error {
	for {
		waiting, err := w.resumeKnown(ctx, w.machine)
		if err != nil {
			return err
		}
		w.pending += len(waiting)
		w.machine.release(lookUps)
		s, items := w.take(lookUps)
		if s == nil {
			if len(w.folds) == 0 && len(w.emissions) == 0 {
				return nil
			}
			continue
		}
		if err := w.lookAt(ctx, s, items); err != nil {
			return err
		}
		if w.pending > 0 && !w.open {
			return nil
		}
	}
}

func (w *window) lookAt(ctx context.Context, s *state, items []*item) error {
	if items = w.replay.redirect(w.machine, s, items); len(items) == 0 {
		return nil
	}
	ready, waiting, err := w.passed(ctx, w.machine, s, items)
	if err != nil {
		return err
	}
	if w.unknown(waiting); len(ready) == 0 {
		return nil
	}
	rest, err := w.look(ctx, w.machine, s, ready)
	if err == nil && len(rest) > 0 {
		if w.final {
			rest, err = w.lookFailures(ctx, w.machine, s, rest)
		} else if len(s.on) > 0 && !(w.rerun && s.pure) {
			rest, err = w.lookFailed(ctx, w.machine, s, rest, kindRoute, 0)
		}
	}
	if err == nil && len(rest) > 0 {
		var uncertain []*item
		rest, uncertain, err = w.lookUncertain(ctx, s, rest)
		w.unsure(uncertain)
	}
	w.unknown(rest)
	return err
}

// unsure adds items whose effect may have been made.
func (w *window) unsure(items []*item) {
	w.uncertain += len(items)
	from := w.ends.len()
	w.unknown(items)
	for i := from; i < w.ends.len(); i++ {
		w.ends.at(i).halt.unsure = true
	}
}

// unknown adds items whose next step is not known.
func (w *window) unknown(items []*item) {
	w.pending += len(items)
	w.moving -= len(items) // no others wait for them
	if w.walk.left == nil {
		return
	}
	for _, it := range items {
		w.addEnd(it, &halt{steps: int(it.steps)})
	}
}

// stepped implements [witness].
func (w *window) stepped(it *item, s *state, data, output []byte, _ uint64) {
	d := stepBytes{input: w.sum, output: w.hasher.Sum256(output)}
	if !w.summed {
		d.input = w.hasher.Sum256(data)
	}
	w.outputSum, w.outputSummed = d.output, true
	wanted := w.walk.steps != nil
	if !s.pure && s.Exec != nil {
		wanted, d.effect = true, append([]byte(nil), output...)
	}
	if w.proving != nil {
		if ancestor, _ := w.proving.isOf(it.name, w.roots); ancestor {
			wanted, d.in, d.out = true, append([]byte(nil), data...), append([]byte(nil), output...)
		}
	}
	var b *stepBytes
	if wanted {
		b = &stepBytes{d.input, d.output, d.effect, d.in, d.out, nil}
	}
	w.addStep(it, s, len(w.plan.states), w.leafOf(it, &d), b)
}

// leafOf returns the leaf of a step of an item in the tree of its state.
func (w *walk) leafOf(it *item, d *stepBytes) store.Digest {
	w.leaf = appendStepLeaf(append(w.leaf[:0], leafPrefix), it.id(w.roots), it.steps, d)
	return w.hasher.Sum256(w.leaf)
}

// gaveUp implements [witness]. Failures of effects go to the receiver of their
// results.
func (w *window) gaveUp(it *item, s *state, f *abi.Failure) {
	if w.made != nil && !s.pure {
		w.addStep(it, s, len(w.plan.states), store.Digest{}, &stepBytes{input: digestOf(it.data), failure: f})
	}
}

// emitted implements [witness].
func (*window) emitted(*item, int) {}

// ended implements [witness].
func (w *window) ended(it *item, s *state) { w.addEnd(it, endOf(it, s)) }

// endOf says why an item at an end does not move on.
func endOf(it *item, s *state) *halt {
	if s.Failed {
		return &halt{dead: &abi.Failure{Class: it.via}, steps: int(it.steps)}
	}
	return nil
}

// failed implements [witness].
func (w *window) failed(it *item, _ *state, f *abi.Failure) {
	w.addEnd(it, &halt{dead: f, steps: int(it.steps)})
}

// commit adds a window to the trees, and gives its items to the sink.
func (w *walk) commit(l *listed) error {
	for i := range l.steps {
		l.steps[i].sort(compareSteps)
	}
	if err := w.commitSteps(l); err != nil {
		return err
	}
	l.ends.sort(func(a, b endRecord) int { return a.name.compare(b.name) })
	for i := range l.ends.len() {
		if err := w.commitEnd(l, l.ends.at(i)); err != nil {
			return err
		}
	}
	return nil
}

func compareSteps(a, b stepRecord) int {
	return cmp.Or(a.name.compare(b.name), cmp.Compare(a.step, b.step))
}

// commitSteps adds the leaves of steps: [id, step, H(input), H(output)]. Each state has
// a tree of its own; only what others see of the steps is in the order of all.
func (w *walk) commitSteps(l *listed) error {
	if l.bytes != nil {
		return w.commitInOrder(l)
	}
	for i := range l.steps {
		for k := range l.steps[i].len() {
			w.digests.states[i].AddHash(l.steps[i].at(k).leaf)
		}
	}
	return nil
}

// commitInOrder is commitSteps, in the order of items and their steps.
func (w *walk) commitInOrder(l *listed) error {
	type step struct {
		*stepRecord
		state int
	}
	var all []step
	for i := range l.steps {
		for k := range l.steps[i].len() {
			all = append(all, step{l.steps[i].at(k), i})
		}
	}
	slices.SortFunc(all, func(a, b step) int { return compareSteps(*a.stepRecord, *b.stepRecord) })
	for _, s := range all {
		if err := w.commitStep(l, s.stepRecord, s.state); err != nil {
			return err
		}
	}
	return nil
}

func (t *totals) add(m *machine, pending int) {
	for i := range t.tallies {
		a, b := &t.tallies[i], &m.tallies[i]
		a.entered, a.left, a.failed = a.entered+b.entered, a.left+b.left, a.failed+b.failed
		a.reused, a.fuel = a.reused+b.reused, a.fuel+b.fuel
	}
	t.total, t.ended, t.failed, t.atFailed = t.total+m.total, t.ended+m.ended, t.failed+m.failed, t.atFailed+m.atFailed
	t.steps, t.pending, t.impure = t.steps+m.steps, t.pending+pending, t.impure || m.impure
}

// commitStep adds the leaf of a step, and tells others of it.
func (w *walk) commitStep(l *listed, r *stepRecord, at int) error {
	if !r.more {
		w.digests.states[at].AddHash(r.leaf)
		return nil
	}
	state := &w.plan.states[at]
	id, full := r.name.id(w.roots), &fullStep{r, l.bytes[stepOf{r.name, r.step}]}
	if full.failure != nil {
		return w.made(appendFailureLeaf(nil, id, state, full))
	}
	w.proving.step(id, state, full, w.roots)
	w.digests.states[at].AddHash(r.leaf)
	if err := w.commitEffect(id, state, full); err != nil || w.steps == nil {
		return err
	}
	return w.steps(id, state, full)
}

// commitEffect adds the leaf of an effect.
func (w *walk) commitEffect(id abi.ID, state *state, r *fullStep) error {
	if r.effect == nil {
		return nil
	}
	leaf := appendEffectLeaf(nil, id, state, r)
	w.effects.Add(leaf)
	if w.made == nil {
		return nil
	}
	return w.made(leaf)
}

func appendStepLeaf(b []byte, id abi.ID, step uint32, d *stepBytes) []byte {
	b = id.AppendCBOR(abi.AppendHead(b, abi.MajorArray, 4))
	b = abi.AppendHead(b, abi.MajorUint, uint64(step))
	b = append(abi.AppendHead(b, abi.MajorBytes, 32), d.input[:]...)
	return append(abi.AppendHead(b, abi.MajorBytes, 32), d.output[:]...)
}

// appendEffectLeaf appends [id, step, state, H(input), output].
func appendEffectLeaf(b []byte, id abi.ID, state *state, r *fullStep) []byte {
	b = id.AppendCBOR(abi.AppendHead(b, abi.MajorArray, 5))
	b = abi.AppendHead(b, abi.MajorUint, uint64(r.step))
	b = abi.AppendText(b, state.Name)
	b = append(abi.AppendHead(b, abi.MajorBytes, 32), r.input[:]...)
	return append(b, r.effect...)
}

// appendFailureLeaf appends [id, step, state, H(input), class, message], which is
// not part of a tree.
func appendFailureLeaf(b []byte, id abi.ID, state *state, r *fullStep) []byte {
	b = id.AppendCBOR(abi.AppendHead(b, abi.MajorArray, 6))
	b = abi.AppendHead(b, abi.MajorUint, uint64(r.step))
	b = abi.AppendText(b, state.Name)
	b = append(abi.AppendHead(b, abi.MajorBytes, 32), r.input[:]...)
	return abi.AppendText(abi.AppendText(b, string(r.failure.Class)), strings.ToValidUTF8(r.failure.Message, "?"))
}

func (w *walk) commitEnd(l *listed, r *endRecord) error {
	state := &w.plan.states[r.state]
	e := &w.end
	*e = End{r.name.id(w.roots), state.Name, l.data.get(r.data, r.size)}
	if r.halt != nil && r.dead == nil {
		return w.left(&leftItem{*e, r.steps, r.unsure})
	}
	if state.isEnd() {
		w.proving.ending(e, state, r, w.roots)
		w.digests.ends[r.state].AddEntry(e.ID, e.Data)
	}
	switch {
	case r.halt != nil && w.sink != nil:
		return w.sink.Dead(&Dead{*e, r.dead.Class, r.dead.Message, r.steps})
	case r.halt != nil:
		return nil
	}
	w.line = e.Append(w.line[:0])
	w.outputs.Write(w.line)
	if w.folding != nil && int(r.state) == w.plan.result {
		w.folding.add(e.ID, e.Data)
	}
	if w.sink != nil {
		return w.sink.Ended(e)
	}
	return nil
}
