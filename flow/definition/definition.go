// Package definition reads the files that define flows: strict YAML, which includes
// JSON. It reports all problems of a file at once, each with its line and column.
// It is the only package that knows YAML.
package definition

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// Problem is an error in a definition, or a doubt about it.
type Problem struct {
	File   string `json:"file"`
	Line   int    `json:"line"` // 0 = not known
	Column int    `json:"column"`
	State  string `json:"state,omitempty"`
	Reason string `json:"reason"` // one line
	Doubt  bool   `json:"warning,omitempty"`
}

// Error returns FILE:LINE:COLUMN and the reason.
func (p *Problem) Error() string {
	where := p.File
	if p.Line > 0 {
		where = fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
	}
	if p.State != "" {
		where += ": state " + p.State
	}
	return where + ": " + p.Reason
}

// InvalidError has all errors in a definition, at least one.
type InvalidError struct{ Problems []Problem }

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i := range e.Problems {
		lines[i] = e.Problems[i].Error()
	}
	return strings.Join(lines, "\n")
}

// Definition is the content of a file.
type Definition struct {
	File    string
	Name    string
	Start   string // filled in
	Context string // path; "" = none
	Seed    uint64
	Limits  map[string]flow.Limit
	States  []*State

	root *node
}

// State is a state as the file has it, with the defaults filled in.
type State struct {
	Name   string
	Module string // path
	Effect string // http or command
	Go     string // name of a function of the program
	Wait   time.Duration
	End    bool
	Failed bool // end: failed

	Next     string
	Moves    bool
	To       []string
	On       map[string]string
	Children *Children
	Fold     string // path
	Limit    string
	Own      flow.Limit
	Retry    queue.Policy
	Timeout  time.Duration // -1 = not given
	Fuel     uint64
	Memory   uint64

	Args, Env []string
	Stdin     string
	Dirs      []string // HOST:GUEST
	MaxVisits int
	Hold      bool // uncertain: hold

	Allow       []string
	Headers     map[string]string
	RetryStatus []int // nil = the default ones
	Command     []string
	RetryExit   []int

	node *node
}

// Children configures the join of items that emit.
type Children struct {
	Join     string
	Tolerate float64
	Percent  bool
	Fold     string // path
}

// Effectful reports whether the state touches the outside.
func (s *State) Effectful() bool { return s.Effect != "" }

// Parse reads a definition. file is the name in messages. The error is an
// *[InvalidError].
func Parse(file string, source []byte) (*Definition, error) {
	return ParseFor(file, source, queue.DefaultPolicy())
}

// ParseFor is Parse with a policy for the retries that the definition does not
// configure.
func ParseFor(file string, source []byte, retry queue.Policy) (*Definition, error) {
	root, err := read(file, source)
	if p, ok := errors.AsType[*Problem](err); ok {
		return nil, &InvalidError{[]Problem{*p}}
	}
	if err != nil {
		return nil, err
	}
	d := &decoder{file: file, policy: retry}
	def := d.definition(root)
	if len(d.problems) > 0 {
		return nil, &InvalidError{append(d.problems, def.unknown(d.problems)...)}
	}
	return def, nil
}

// unknown returns the states and classes that nothing has, in a definition with other
// problems. More errors in its routes may only follow from those.
func (d *Definition) unknown(problems []Problem) (found []Problem) {
	wrong, _ := d.Check()
	for _, p := range wrong {
		told := func(q Problem) bool { return q.Line == p.Line && q.Column == p.Column }
		_, reason, _ := strings.Cut(p.Reason, ": ")
		unknown := strings.HasPrefix(reason, "unknown state ") || strings.HasPrefix(reason, "unknown class ")
		if unknown && !slices.ContainsFunc(problems, told) {
			found = append(found, p)
		}
	}
	return found
}

// Binder gives the parts of a flow that a definition names.
type Binder interface {
	// Module returns the executor of a state: the module at a path. Its error is
	// about the module.
	Module(s *State, path string) (flow.Executor, error)
	// Fold returns the module at a path that folds for a state.
	Fold(s *State, path string) (flow.Folder, error)
	// Effect returns the executor of a state's effects, or the function that the
	// state names.
	Effect(s *State) (flow.Executor, error)
}

// Flow makes the flow. One *[InvalidError] has all errors; doubts are returned in
// the slice.
func (d *Definition) Flow(b Binder) (*flow.Flow, []Problem, error) {
	f := &flow.Flow{Name: d.Name, Start: d.Start, Limits: d.Limits}
	var found []Problem
	bind := func(s *State, field string, err error) {
		if err != nil {
			found = append(found, d.problem(s.Name, field, "", oneLine(err.Error()), false))
		}
	}
	for _, s := range d.States {
		state := s.state()
		var err error
		switch {
		case s.Module != "":
			state.Exec, err = b.Module(s, s.Module)
			bind(s, "module", err)
		case s.Effect != "" || s.Go != "":
			state.Exec, err = b.Effect(s)
			bind(s, "effect", err)
		}
		if s.Fold != "" {
			state.Fold, err = b.Fold(s, s.Fold)
			bind(s, "fold", err)
		}
		if c := s.Children; c != nil {
			state.Children = &flow.Children{Join: c.Join, Tolerate: c.Tolerate, Percent: c.Percent}
			if c.Fold != "" {
				state.Children.Fold, err = b.Fold(s, c.Fold)
				bind(s, "children", err)
			}
		}
		f.States = append(f.States, state)
	}
	wrong, doubts := d.split(f.Problems())
	if found = append(found, wrong...); len(found) > 0 {
		return nil, doubts, &InvalidError{found}
	}
	return f, doubts, nil
}

// Check returns the errors in the routes between states, and the doubts. It needs no
// modules.
func (d *Definition) Check() (wrong, doubts []Problem) {
	f := &flow.Flow{Name: d.Name, Start: d.Start, Limits: d.Limits}
	for _, s := range d.States {
		state := s.state()
		if !state.End && !state.Failed && state.Wait == 0 {
			state.Exec = &flow.Func{Name: s.Name}
		}
		if c := s.Children; c != nil {
			state.Children = &flow.Children{Join: c.Join}
		}
		if s.Fold != "" {
			state.Fold = &flow.Recorded{}
		}
		f.States = append(f.States, state)
	}
	return d.split(f.Problems())
}

func (d *Definition) split(problems []flow.Problem) (wrong, doubts []Problem) {
	for i := range problems {
		p := &problems[i]
		at := d.problem(p.State, p.Field, p.Entry, p.Reason, p.Doubt)
		if p.Doubt {
			doubts = append(doubts, at)
		} else {
			wrong = append(wrong, at)
		}
	}
	return wrong, doubts
}

// problem returns a problem with the place of its field.
func (d *Definition) problem(state, field, entry, reason string, doubt bool) Problem {
	p := Problem{File: d.File, State: state, Reason: reason, Doubt: doubt}
	n := d.root
	if state != "" {
		states := d.root.get("states")
		for i, key := range states.keys {
			if key.text == state {
				p.Line, p.Column = key.line, key.column
				n = states.items[i]
			}
		}
	}
	for _, key := range []string{field, entry} {
		if key == "" || n == nil || n.kind != mapping && n.kind != list {
			break
		}
		n = n.child(key)
		if n != nil {
			p.Line, p.Column = n.line, n.column
		}
	}
	if field != "" {
		p.Reason = field + ": " + reason
	}
	return p
}

// child returns the value of a key, or the element with a number.
func (n *node) child(key string) *node {
	if n.kind == mapping {
		return n.get(key)
	}
	for i := range n.items {
		if fmt.Sprint(i) == key {
			return n.items[i]
		}
	}
	return nil
}

// state makes the state, without the parts from a binder.
func (s *State) state() flow.State {
	state := flow.State{
		Name: s.Name, Wait: s.Wait, End: s.End && !s.Failed, Failed: s.Failed, Next: s.Next, Moves: s.Moves, To: s.To,
		Retry: s.Retry, MaxVisits: s.MaxVisits, Limit: s.Limit, Own: s.Own, Hold: s.Hold,
	}
	if len(s.On) > 0 {
		state.On = classes(s.On)
	}
	return state
}
