package flow

import "github.com/wasm-jobs/wasm-jobs/abi"

// followBytes bounds the notes of a follower about roots that it cannot commit yet. It is
// a quarter of a million steps.
const followBytes = 16 << 20

// follower does the work of the last walk while steps are executed: it notes steps and ends
// as a walk would find them, and commits a window of roots as soon as no item of it moves any more. The
// last walk then looks up only the rest. The commits are the same: a walk finds the
// outputs that the follower has seen. The follower serves flows
// without effects, whose steps are functions of their data; it belongs to the goroutine
// of run.
type follower struct {
	*walk
	moves   *machine  // whose witness it is
	also    witness   // may be nil
	first   int       // root, the first of windows[0]
	windows []*follow // of windowRoots roots each, the last maybe of fewer
	spare   *follow   // memory for the next window; may be nil
	until   int       // the roots from here on are left to the last walk
	held    int       // bytes
	err     error     // of the sink
}

// follow has the notes of a follower about one window.
type follow struct {
	listed
	live int // items that have not ended
	held int // bytes
}

func newFollower(w *walk, m *machine) *follower {
	return &follower{walk: w, moves: m, also: m.witness, first: w.next, until: w.roots.Len()}
}

// begin is called before a root moves, in order.
func (f *follower) begin(root int) {
	if f == nil || root >= f.until {
		return
	}
	if i := (root - f.first) / windowRoots; i == len(f.windows) {
		w := f.spare
		if f.spare = nil; w == nil {
			w = &follow{}
		}
		f.windows = append(f.windows, w)
	}
	f.of(root).live++
}

// of returns the window of a root; nil if the root is left to the last walk.
func (f *follower) of(root int) *follow {
	if root >= f.until {
		return nil
	}
	return f.windows[(root-f.first)/windowRoots]
}

// hold counts memory. If it is too much, the last windows are left to the last walk.
func (f *follower) hold(w *follow, bytes int) {
	w.held += bytes
	for f.held += bytes; f.held > followBytes; {
		last := len(f.windows) - 1
		f.until = f.first + last*windowRoots
		f.held -= f.windows[last].held
		f.windows[last] = nil
		f.windows = f.windows[:last]
	}
}

// Sizes of the notes about a step and an end, with the names of the items.
const (
	heldStep = 48 + 24
	heldEnd  = 24 + 24 + 24
)

// stepped implements [witness].
func (f *follower) stepped(it *item, s *state, data, output []byte, fuel uint64) {
	if f.also != nil {
		f.also.stepped(it, s, data, output, fuel)
	}
	w := f.of(it.root())
	if w == nil {
		return
	}
	d := stepBytes{input: f.moves.sum, output: f.hasher.Sum256(output)}
	if !f.moves.summed {
		d.input = f.hasher.Sum256(data)
	}
	w.addStep(it, s, len(f.plan.states), f.leafOf(it, &d), nil)
	f.hold(w, heldStep)
}

// gaveUp implements [witness].
func (f *follower) gaveUp(it *item, s *state, failed *abi.Failure) {
	if f.also != nil {
		f.also.gaveUp(it, s, failed)
	}
}

// emitted implements [witness].
func (f *follower) emitted(it *item, children int) {
	if f.also != nil {
		f.also.emitted(it, children)
	}
	if w := f.of(it.root()); w != nil {
		w.live += children
	}
}

// ended implements [witness].
func (f *follower) ended(it *item, s *state) {
	if f.also != nil {
		f.also.ended(it, s)
	}
	f.over(it, endOf(it, s))
}

// failed implements [witness].
func (f *follower) failed(it *item, s *state, failed *abi.Failure) {
	if f.also != nil {
		f.also.failed(it, s, failed)
	}
	f.over(it, &halt{dead: failed, steps: int(it.steps)})
}

// over notes an item that does not move any more.
func (f *follower) over(it *item, h *halt) {
	w := f.of(it.root())
	if w == nil {
		return
	}
	w.live--
	w.addEnd(it, h)
	f.hold(w, heldEnd+len(it.data))
}

// broken reports whether the sink failed: it wants nothing more.
func (f *follower) broken() bool { return f != nil && f.err != nil }

// commit commits the windows that are complete, the last one only after the execution,
// when the memory for it is free. begun is the number of roots that have begun.
func (f *follower) commit(begun int) error {
	if f == nil {
		return nil
	}
	for len(f.windows) > 0 && (f.final || !f.folding.busy()) {
		w, to := f.windows[0], min(f.first+windowRoots, f.roots.Len())
		if w.live > 0 || begun < to || to == f.roots.Len() && !f.final {
			return nil
		}
		if f.err = f.walk.commit(&w.listed); f.err != nil {
			return f.err
		}
		f.windows[0] = nil
		f.windows = f.windows[1:]
		f.first, f.next = to, to
		f.held -= w.held
		w.clear()
		f.spare, w.held = w, 0
	}
	return nil
}
