package flow

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/action"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Input has the chunks that are the roots of a run. They are numbered from 0 in id
// order. It is safe for concurrent use.
type Input interface {
	Len() int
	ID(i int) abi.ID
	// Read calls each with the chunks from..to-1, in order. A chunk is valid
	// until each returns. If each returns an error, Read stops and returns it.
	Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error
	// Digest is the Merkle root over [id, chunk] in id order.
	Digest() [sha256.Size]byte
	Unchanged() error
}

// Flow is a definition: states, and the routes between them. Running a flow does
// not change it.
type Flow struct {
	Name   string
	Start  string // "" = the first state
	States []State
	Limits map[string]Limit
	// Digest names the definition without the fields that cannot change a result;
	// if it is zero, it is computed from the fields.
	Digest [sha256.Size]byte
}

// State is one state of a flow. It has an Exec, a Wait, or is an End.
type State struct {
	Name string
	Exec Executor      // of a module, an effect or a function
	Wait time.Duration // items go on after it
	End  bool
	// Failed means that items that reach this end have failed.
	Failed bool

	Next  string               // unless it is an end, or Moves
	Moves bool                 // outputs are moves
	To    []string             // the states that moves may name
	On    map[abi.Class]string // next state by class of failure; "*" is any class without a route of its own

	Children *Children // of moves that emit; nil = the item does not wait for them
	Fold     Folder    // of an end: makes the flow's result

	Retry     queue.Policy
	MaxVisits int // of one item; 0 = no limit

	Limit string // its name; "" = only the state's own
	Own   Limit  // of this state only
	Hold  bool   // an effect that may have been made is held until a person decides
}

// AnyClass is the key of [State.On] for classes without a route of their own.
const AnyClass abi.Class = "*"

// Children makes an item whose move emits wait: when the children of the step have
// ended, it enters Join.
type Children struct {
	Join string
	// Tolerate is the number of children that may fail; with Percent, the share.
	Tolerate float64
	Percent  bool
	Fold     Folder // makes the value of "children"; nil = their array
}

// tolerates reports whether some failed children of a step are tolerated.
func (c *Children) tolerates(failed, all int) bool {
	if c.Percent {
		return float64(failed)*100 <= c.Tolerate*float64(all)
	}
	return float64(failed) <= c.Tolerate
}

// Pool lends the instances that execute a state's steps. It is safe for concurrent
// use.
type Pool interface {
	worker.Pool
	Stats() runtime.Stats
	// Close is called after every instance is released.
	Close() error
}

// Executor executes the steps of a state.
type Executor interface {
	// Kind is module, http, command or go.
	Kind() string
	// Action is the key under which outputs are kept, by the digest of the data,
	// if they are a function of it. pure is false for effects.
	Action() (action store.Action, pure bool)
	// Open is called before the first step is executed, if any is.
	Open(ctx context.Context) (Pool, error)
}

// Folder makes one item of many, as a module's aggregate and merge do: a *[Module],
// or, if nothing is to be executed, a *[Recorded].
type Folder interface {
	Action() (action store.Action, pure bool)
}

// Recorded stands for an executor of a run that is only inspected.
type Recorded struct {
	Of   string // kind
	Key  store.Action
	Pure bool
}

// Kind implements [Executor].
func (r *Recorded) Kind() string { return r.Of }

// Action implements [Executor].
func (r *Recorded) Action() (store.Action, bool) { return r.Key, r.Pure }

// Open implements [Executor]. It fails: nothing is executed.
func (r *Recorded) Open(context.Context) (Pool, error) { return nil, errRecorded }

var errRecorded = errors.New("a run that is inspected executes nothing")

// Module is an executor: a module with the settings of its calls.
type Module struct {
	*runtime.Module
	Settings runtime.Settings
}

// module returns m, also for executors that embed a Module.
func (m *Module) module() *Module { return m }

// Kind implements [Executor].
func (m *Module) Kind() string { return "module" }

// Action implements [Executor]. Jobs over the module have the same key.
func (m *Module) Action() (store.Action, bool) {
	fixes := 0
	if d := m.Description(); d != nil {
		fixes = d.EngineFixes
	}
	return action.Of(m.Digest(), fixes, runtime.Options{}, &m.Settings), true
}

// Open implements [Executor].
func (m *Module) Open(ctx context.Context) (Pool, error) {
	p, err := m.Prepare(ctx, m.Settings)
	if err != nil {
		return nil, err
	}
	return modulePool{p}, nil
}

type modulePool struct{ *runtime.Pool }

func (p modulePool) Borrow(log runtime.Log) worker.Instance { return p.Pool.Borrow(log) }

// plan is a flow whose names are resolved.
type plan struct {
	*Flow
	states []state // as declared
	start  int
	result int // the end with a fold; -1 = none
	cyclic bool
}

type state struct {
	*State
	index    int
	next     int // -1 = none
	to       []int
	on       map[abi.Class]int
	join     int
	action   store.Action
	pure     bool
	distance int // steps to the nearest end
}

// compile resolves the names. The error is the first problem of [Flow.Problems]
// that is not a doubt.
func (f *Flow) compile() (*plan, error) {
	for _, p := range f.Problems() {
		if !p.Doubt {
			return nil, fmt.Errorf("flow %s: %w", f.Name, &p)
		}
	}
	p := &plan{Flow: f, states: make([]state, len(f.States)), result: -1}
	index := f.index()
	p.start = index[f.start()]
	for i := range f.States {
		s := &p.states[i]
		*s = state{State: &f.States[i], index: i, next: -1, join: -1, on: map[abi.Class]int{}}
		if to, ok := index[s.Next]; ok {
			s.next = to
		}
		for _, to := range s.To {
			s.to = append(s.to, index[to])
		}
		for class, to := range s.On {
			s.on[class] = index[to]
		}
		if s.Children != nil {
			s.join = index[s.Children.Join]
		}
		if s.Exec != nil {
			s.action, s.pure = s.Exec.Action()
		}
		if s.Fold != nil {
			p.result = i
		}
	}
	p.measure()
	return p, nil
}

func (f *Flow) index() map[string]int {
	index := map[string]int{}
	for i := range f.States {
		index[f.States[i].Name] = i
	}
	return index
}

func (f *Flow) start() string {
	if f.Start == "" && len(f.States) > 0 {
		return f.States[0].Name
	}
	return f.Start
}

// route returns the state for failures of a class; ok is false if there is none.
func (s *state) routeOf(class abi.Class) (to int, ok bool) {
	if to, ok = s.on[class]; !ok {
		to, ok = s.on[AnyClass]
	}
	return to, ok
}

// isEnd reports whether items end in the state.
func (s *State) isEnd() bool { return s.End || s.Failed }

// measure computes the distance of each state to an end, and whether items can
// come back to it.
func (p *plan) measure() {
	const far = 1 << 30
	for i := range p.states {
		p.states[i].distance = far
		if p.states[i].isEnd() {
			p.states[i].distance = 0
		}
	}
	p.approach()
	p.cyclic = p.Flow.cyclic()
}

// approach computes the distances, from the ends backwards.
func (p *plan) approach() {
	before := make([][]int, len(p.states))
	var todo []int
	index := p.Flow.index()
	for i := range p.states {
		if p.states[i].distance == 0 {
			todo = append(todo, i)
		}
		for _, name := range p.states[i].successors() {
			before[index[name]] = append(before[index[name]], i)
		}
	}
	for ; len(todo) > 0; todo = todo[1:] {
		next := p.states[todo[0]].distance + 1
		for _, i := range before[todo[0]] {
			if s := &p.states[i]; next < s.distance {
				s.distance = next
				todo = append(todo, i)
			}
		}
	}
}

// cyclic reports whether an item can come back to a state.
func (f *Flow) cyclic() bool {
	index, done := f.index(), make([]int, len(f.States)) // 1 = on the way, 2 = done
	var visit func(i int) bool
	visit = func(i int) bool {
		if done[i] != 0 {
			return done[i] == 1
		}
		done[i] = 1
		for _, name := range f.States[i].successors() {
			if visit(index[name]) {
				return true
			}
		}
		done[i] = 2
		return false
	}
	for i := range f.States {
		if visit(i) {
			return true
		}
	}
	return false
}

// successors returns the states that can follow a state: for its items, and for
// the children that they emit.
func (s *State) successors() (names []string) {
	if s.Next != "" {
		names = append(names, s.Next)
	}
	names = append(names, s.To...)
	for _, class := range sortedClasses(s.On) {
		names = append(names, s.On[class])
	}
	if s.Children != nil {
		names = append(names, s.Children.Join)
	}
	return names
}

func hexDigest(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

// digest names the definition.
// digest returns the digest of the definition.
func (f *Flow) digest() [sha256.Size]byte {
	if f.Digest != [sha256.Size]byte{} {
		return f.Digest
	}
	return sha256.Sum256([]byte("wasm-jobs flow of Go 1\n" + f.describe()))
}
