package flow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// Builder makes a flow of Go functions and modules. OC is the overall context: it
// is part of the key of outputs, and every module gets it in setup. IC is the data
// of items. Both are stored as CBOR. A Builder is used by one goroutine.
type Builder[OC, IC any] struct {
	flow    Flow
	overall OC
	context []byte // of overall
	err     error
}

// New returns a builder of a flow. Items start in the first state that is added.
func New[OC, IC any](name string, overall OC) *Builder[OC, IC] {
	b := &Builder[OC, IC]{flow: Flow{Name: name, Limits: map[string]Limit{}}, overall: overall}
	b.context, b.err = encoding.Marshal(overall)
	return b
}

// encoding is deterministic: equal values have the same bytes.
var encoding = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

// Step is the argument of a function. AC is the application context, which is never
// stored: clients, handles and other values of the program.
type Step[AC, OC, IC any] struct {
	App     AC
	Overall OC
	Item    IC
	Key     [sha256.Size]byte // of an effect: the same for every attempt
}

// Move is the decision of a function. [To] makes one.
type Move[IC any] struct {
	next  string
	item  IC
	emit  []emitted[IC]
	after time.Duration
}

type emitted[IC any] struct {
	Next string `cbor:"next"`
	Data IC     `cbor:"data"`
}

// To returns a move to a state, with data.
func To[IC any](state string, item IC) Move[IC] { return Move[IC]{next: state, item: item} }

// Emit returns the move with one more child, which starts in the given state.
func (m Move[IC]) Emit(state string, item IC) Move[IC] {
	m.emit = append(m.emit[:len(m.emit):len(m.emit)], emitted[IC]{state, item})
	return m
}

// After returns the move with a delay before the next state.
func (m Move[IC]) After(d time.Duration) Move[IC] {
	m.after = d
	return m
}

// encode returns the output of a state: the item or, if the state returns moves, the
// move.
func (m *Move[IC]) encode(moves bool) ([]byte, error) {
	if !moves {
		return m.encodeItem()
	}
	return encoding.Marshal(struct {
		Next  string        `cbor:"next"`
		Data  IC            `cbor:"data"`
		Emit  []emitted[IC] `cbor:"emit,omitempty"`
		After int64         `cbor:"after,omitempty"`
	}{m.next, m.item, m.emit, m.after.Milliseconds()})
}

// encodeItem returns the item of a move whose state has a fixed next state.
func (m *Move[IC]) encodeItem() ([]byte, error) {
	if len(m.emit) > 0 || m.after > 0 {
		return nil, abi.Failf(abi.ClassABI, "children or a delay in the move of a state that has a fixed next state: want option Moves")
	}
	return encoding.Marshal(m.item)
}

// Option changes a state.
type Option func(*State)

// Moves lists the states that the moves of a state may name.
func Moves(states ...string) Option {
	return func(s *State) { s.Moves, s.To = true, states }
}

// Next names the state that items enter with the output as data. Functions of the
// state return moves whose state is ignored, without children and delays.
func Next(state string) Option { return func(s *State) { s.Next = state } }

// On routes failures of a class to a state.
func On(class abi.Class, state string) Option {
	return func(s *State) {
		if s.On == nil {
			s.On = map[abi.Class]string{}
		}
		s.On[class] = state
	}
}

// Under puts a state under a limit that [Builder.Limit] defined.
func Under(limit string) Option { return func(s *State) { s.Limit = limit } }

// Limited gives a state a limit of its own.
func Limited(l Limit) Option { return func(s *State) { s.Own = l } }

// Retry sets which failures are retried, and when.
func Retry(p queue.Policy) Option { return func(s *State) { s.Retry = p } }

// Join makes items that emit wait for their children.
func Join(c Children) Option { return func(s *State) { s.Children = &c } }

// HoldUncertain holds an effect that may have been made until a person decides.
func HoldUncertain() Option { return func(s *State) { s.Hold = true } }

// Folded makes the flow's result: a module folds the items at this end.
func Folded(m *Module) Option { return func(s *State) { s.Fold = m } }

// Failing makes an end failed: items that reach it have failed.
func Failing() Option { return func(s *State) { s.End, s.Failed = false, true } }

// add adds a state, and reports whether it returns moves.
func (b *Builder[OC, IC]) add(s State, options []Option) (moves bool) {
	s.Retry = queue.DefaultPolicy()
	for _, option := range options {
		option(&s)
	}
	b.flow.States = append(b.flow.States, s)
	return s.Moves
}

// Limit defines a limit that states may share, and returns its name.
func (b *Builder[OC, IC]) Limit(name string, l Limit) string {
	b.flow.Limits[name] = l
	return name
}

// Wasm adds a state of a module. If the module exports setup and its settings have
// no context, it gets the overall context.
func (b *Builder[OC, IC]) Wasm(name string, m *Module, options ...Option) {
	own := *m
	if own.Settings.Context == nil && m.Exports(abi.ExportSetup) {
		own.Settings.Context = b.context
	}
	b.add(State{Name: name, Exec: &own}, options)
}

// Wait adds a state in which items wait.
func (b *Builder[OC, IC]) Wait(name string, d time.Duration, next string) {
	b.add(State{Name: name, Wait: d, Next: next}, nil)
}

// End adds an end.
func (b *Builder[OC, IC]) End(name string, options ...Option) {
	b.add(State{Name: name, End: true}, options)
}

// Effectful adds a state whose function touches the outside: it is called at least
// once for each step, and its result is kept in the run's journal. Errors are
// retried, except *[SlowDown], *[RouteError] and errors made by [Permanent].
func Effectful[AC, OC, IC any](b *Builder[OC, IC], name string, app AC, f func(context.Context, Step[AC, OC, IC]) (Move[IC], error), options ...Option) {
	own := &Func{Name: name}
	own.Call = function(b, app, b.add(State{Name: name, Exec: own}, options), f)
}

// Pure adds a state whose function depends only on the overall context and the
// item. Change version when the function computes other results.
func Pure[OC, IC any](b *Builder[OC, IC], name, version string, f func(context.Context, OC, IC) (Move[IC], error), options ...Option) {
	sum := sha256.Sum256(b.context)
	own := &Func{Name: name, Version: fmt.Sprintf("%q %x", version, sum)}
	call := func(ctx context.Context, s Step[struct{}, OC, IC]) (Move[IC], error) {
		return f(ctx, s.Overall, s.Item)
	}
	own.Call = function(b, struct{}{}, b.add(State{Name: name, Exec: own}, options), call)
}

// function returns the Call of a Func.
func function[AC, OC, IC any](b *Builder[OC, IC], app AC, moves bool, f func(context.Context, Step[AC, OC, IC]) (Move[IC], error)) func(context.Context, [sha256.Size]byte, []byte) ([]byte, error) {
	overall := b.overall
	return func(ctx context.Context, key [sha256.Size]byte, data []byte) ([]byte, error) {
		s := Step[AC, OC, IC]{App: app, Overall: overall, Key: key}
		if err := cbor.Unmarshal(data, &s.Item); err != nil {
			return nil, abi.Failf(abi.ClassABI, "invalid data: want the type that the function takes: %v", err)
		}
		m, err := f(ctx, s)
		if route, ok := errors.AsType[*RouteError](err); ok {
			return route.encode(moves)
		}
		if err != nil {
			return nil, err
		}
		return m.encode(moves)
	}
}

// RouteError is an error of a function that sends its item to a state, with
// unchanged data. The state must be one that moves may name.
type RouteError struct {
	State string
	Err   error
}

// encode returns a move to the state, without data.
func (e *RouteError) encode(moves bool) ([]byte, error) {
	if !moves {
		return nil, abi.Failf(ClassRoute, "%s: the state has a fixed next state: want option Moves", e.Error())
	}
	return encoding.Marshal(map[string]string{"next": e.State})
}

func (e *RouteError) Error() string { return "to state " + e.State + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *RouteError) Unwrap() error { return e.Err }

// Permanent returns an error that is not retried: class guest.
func Permanent(err error) error { return abi.Failf(abi.ClassGuest, "%v", err) }

// Flow returns the flow. The error lists all that is wrong with it.
func (b *Builder[OC, IC]) Flow() (*Flow, error) {
	errs := []error{b.err}
	for _, p := range b.flow.Problems() {
		if !p.Doubt {
			errs = append(errs, &p)
		}
	}
	f := b.flow
	f.Digest = sha256.Sum256(append([]byte("wasm-jobs flow of Go 1\n"+f.describe()), b.context...))
	return &f, errors.Join(errs...)
}

// describe writes the fields that can change a result.
func (f *Flow) describe() string {
	out := fmt.Sprintf("%q %q\n", f.Name, f.start())
	for i := range f.States {
		s := &f.States[i]
		var key any
		if s.Exec != nil {
			key, _ = s.Exec.Action()
		}
		out += fmt.Sprintf("%q %x %v %t %t %q %t %q %v %d\n", s.Name, key, s.Wait, s.End, s.Failed, s.Next, s.Moves, s.To, s.On, s.MaxVisits)
		for _, fold := range []Folder{s.Fold, foldOf(s.Children)} {
			if fold != nil {
				key, _ := fold.Action()
				out += fmt.Sprintf("fold %x\n", key)
			}
		}
		if c := s.Children; c != nil {
			out += fmt.Sprintf("children %q %v %t\n", c.Join, c.Tolerate, c.Percent)
		}
	}
	return out
}

func foldOf(c *Children) Folder {
	if c == nil {
		return nil
	}
	return c.Fold
}
