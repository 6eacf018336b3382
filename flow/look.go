package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Look inspects a run, from any process, even while the run goes on: nothing is
// executed and nothing is written.
type Look struct {
	Name       string
	Flow       *Flow // whose executors may be *[Recorded]
	Input      Input
	Bounds     Bounds
	Store      store.Store
	Generation int // start of the run whose failures count, from 1; 0 = the first
}

// ItemState is the state of an item, with its failure.
type ItemState struct {
	ID      abi.ID    `json:"id"`
	State   string    `json:"state"`
	Class   abi.Class `json:"class"`   // of the failure; "" = it did not fail
	Message string    `json:"message"` // of the failure
	Data    []byte    `json:"-"`
	Ended   bool      `json:"-"` // it does not move any more
	Failed  bool      `json:"-"` // it failed, or is at an end that is failed
	At      string    `json:"-"` // its state in the flow, even if State is uncertain
	Steps   int       `json:"-"` // begun so far
}

// StepState is a step of an item with its output.
type StepState struct {
	Step   int          `json:"step"`
	State  string       `json:"state"`
	Input  store.Digest `json:"-"`
	Output store.Digest `json:"-"`
	Hex    [2]string    `json:"digests"` // of input and output
	Effect bool         `json:"effect,omitempty"`
}

func (l *Look) walk() (*walk, error) {
	p, err := l.Flow.compile()
	if err != nil {
		return nil, err
	}
	j := &journal{store: l.Store, run: IDOf(l.Name), generation: uint64(max(l.Generation, 1)), roots: l.Input}
	w := newWalk(&replay{journal: j, plan: p, changed: Rerun, holds: newHolds(j)}, l.Bounds.withDefaults(), nil)
	w.final, w.open = true, true
	return w, nil
}

// Items calls each for every item, in item order, that no known step moves on, and
// returns the report of the run. each may be nil.
func (l *Look) Items(ctx context.Context, each func(*ItemState) error) (*Report, error) {
	w, err := l.walk()
	if err != nil {
		return nil, err
	}
	if each != nil {
		w.sink = lookSink{each}
		w.left = func(e *leftItem) error { return each(e.state()) }
	}
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	if _, err := w.run(ctx); err != nil {
		return nil, err
	}
	x := &execution{Run: Run{Name: l.Name, Flow: l.Flow, Input: l.Input}, plan: w.plan, walk: w, replay: w.replay}
	r := x.report()
	r.State = Crashed
	return &r, nil
}

type lookSink struct{ each func(*ItemState) error }

func (s lookSink) Ended(e *End) error {
	return s.each(&ItemState{ID: e.ID, State: e.State, At: e.State, Data: e.Data, Ended: true})
}

func (s lookSink) Dead(d *Dead) error {
	return s.each(&ItemState{
		ID: d.ID, State: d.State, At: d.State, Class: d.Class, Message: d.Message, Data: d.Data, Ended: true, Failed: true, Steps: d.Steps,
	})
}

// uncertain is the state of items whose effect may have been made.
const uncertain = "uncertain"

func (e *leftItem) state() *ItemState {
	s := &ItemState{ID: e.ID, State: e.State, At: e.State, Data: e.Data, Steps: e.steps}
	if e.unsure {
		s.State = uncertain
	}
	return s
}

// ErrNoItem reports that a run has no item with an id.
var ErrNoItem = errors.New("no such item")

// Item returns the state of an item, and calls each for its steps, in order. The
// error is [ErrNoItem] if the run has no such item.
func (l *Look) Item(ctx context.Context, id string, each func(*StepState) error) (*ItemState, error) {
	ref, ok := parseItem(id)
	if !ok {
		return nil, ErrNoItem
	}
	root, ok := findRoot(l.Input, ref.root)
	if !ok {
		return nil, ErrNoItem
	}
	one := *l
	one.Input = oneRoot{l.Input, root}
	w, err := one.walk()
	if err != nil {
		return nil, err
	}
	w.next = root
	w.steps = func(of abi.ID, s *state, r *fullStep) error {
		if idText(of) != id {
			return nil
		}
		return each(&StepState{
			Step: int(r.step), State: s.Name, Input: r.input, Output: r.output,
			Hex: [2]string{hexDigest(r.input), hexDigest(r.output)}, Effect: !s.pure,
		})
	}
	var found *ItemState
	take := func(s *ItemState) error {
		if idText(s.ID) == id {
			c := *s
			c.Data = slices.Clone(s.Data) // the walk uses its memory again
			found = &c
		}
		return nil
	}
	w.sink = lookSink{take}
	w.left = func(e *leftItem) error { return take(e.state()) }
	if err := w.load(ctx); err != nil {
		return nil, err
	}
	if _, err := w.run(ctx); err != nil {
		return nil, err
	}
	if found == nil {
		return nil, fmt.Errorf("%w, or it waits for its children", ErrNoItem)
	}
	return found, nil
}

// oneRoot is an input that ends after one root.
type oneRoot struct {
	Input
	root int
}

func (o oneRoot) Len() int { return o.root + 1 }

// findRoot finds the root with an id: integers first, then texts, each in order.
func findRoot(in Input, id string) (int, bool) {
	for _, want := range []abi.ID{rootOf(id), abi.TextID(id)} {
		lo, hi := 0, in.Len()
		for lo < hi {
			mid := (lo + hi) / 2
			if in.ID(mid).Compare(want) < 0 {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		if lo < in.Len() && in.ID(lo) == want {
			return lo, true
		}
	}
	return 0, false
}

// rootOf reads a root's id as items write it.
func rootOf(id string) abi.ID {
	if len(id) >= 2 && id[0] == '"' {
		inner := id[1 : len(id)-1]
		out := make([]byte, 0, len(inner))
		for i := 0; i < len(inner); i++ {
			out = append(out, inner[i])
			if inner[i] == '"' {
				i++
			}
		}
		return abi.TextID(string(out))
	}
	parsed, err := abi.ParseID(id)
	if err != nil {
		return abi.TextID(id)
	}
	return parsed
}

// ReportOf reads the report in the record of a run: from its end, or its last sign
// of life. It is nil if the record has none.
func ReportOf(run *store.Run) *Report {
	for _, b := range [][]byte{run.Report, run.Active} {
		r := &Report{}
		if len(b) > 0 && json.Unmarshal(b, r) == nil && r.Kind == "flow" {
			return r
		}
	}
	return nil
}
