package flow

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Problem is an error in a state, or a doubt about it.
type Problem struct {
	State  string // "" = of the flow
	Field  string // as definitions name it; "" = the state as a whole
	Entry  string // of the field, such as a class of "on"; may be ""
	Reason string // one line that follows both
	Doubt  bool   // the flow runs nevertheless
}

func (p *Problem) Error() string {
	where := p.Field
	if p.State != "" {
		where = "state " + p.State
		if p.Field != "" {
			where += ": " + p.Field
		}
	}
	return where + ": " + p.Reason
}

func sortedClasses(on map[abi.Class]string) []abi.Class { return slices.Sorted(maps.Keys(on)) }

// Reserved are names of states that items can be in, and that no flow defines.
var Reserved = []string{"failed", "uncertain"}

// MaxStates bounds the number of states of a flow.
const MaxStates = 1000

// Problems returns all errors in a flow, followed by the doubts.
func (f *Flow) Problems() []Problem {
	c := checker{f: f, index: map[string]int{}}
	if len(f.States) == 0 || len(f.States) > MaxStates {
		return append(c.found, Problem{Field: "states", Reason: fmt.Sprintf("%d states: want 1 to %d", len(f.States), MaxStates)})
	}
	for i := range f.States {
		name := f.States[i].Name
		if _, twice := c.index[name]; twice {
			c.wrong(name, "", "", "duplicate state")
		}
		if slices.Contains(Reserved, name) {
			c.wrong(name, "", "", "the name is reserved")
		}
		c.index[name] = i
	}
	c.names()
	if len(c.found) == 0 {
		c.ways()
		c.doubts()
	}
	return c.found
}

type checker struct {
	f     *Flow
	index map[string]int
	found []Problem
}

func (c *checker) wrong(state, field, entry, format string, args ...any) {
	c.found = append(c.found, Problem{State: state, Field: field, Entry: entry, Reason: fmt.Sprintf(format, args...)})
}

// names checks the names that states refer to.
func (c *checker) names() {
	if _, known := c.index[c.f.start()]; !known {
		c.wrong("", "start", "", "unknown state %q", c.f.Start)
	}
	results := 0
	for i := range c.f.States {
		s := &c.f.States[i]
		c.refers(s)
		c.fits(s)
		if s.Limit != "" {
			if _, known := c.f.Limits[s.Limit]; !known {
				c.wrong(s.Name, "limit", "", "unknown limit %q: limits has none of that name", s.Limit)
			}
		}
		if s.Fold != nil {
			if results++; results > 1 {
				c.wrong(s.Name, "fold", "", "another end has a fold already, and a flow has one result")
			}
		}
	}
}

func (c *checker) refers(s *State) {
	known := func(field, entry, name string) {
		if _, ok := c.index[name]; !ok {
			c.wrong(s.Name, field, entry, "unknown state %q", name)
		}
	}
	if s.Next != "" {
		known("next", "", s.Next)
	}
	for i, to := range s.To {
		known("to", strconv.Itoa(i), to)
		if slices.Index(s.To, to) < i {
			c.wrong(s.Name, "to", strconv.Itoa(i), "duplicate state %q", to)
		}
	}
	for _, class := range sortedClasses(s.On) {
		known("on", string(class), s.On[class])
		if class != AnyClass && !slices.Contains(Classes(), class) {
			c.wrong(s.Name, "on", string(class), "unknown class %q", class)
		}
	}
	if s.Children != nil {
		known("children", "join", s.Children.Join)
	}
}

// fits checks that the fields of a state fit each other.
func (c *checker) fits(s *State) {
	switch {
	case s.isEnd():
		if s.Next != "" || s.Moves || len(s.To) > 0 || len(s.On) > 0 || s.Children != nil {
			c.wrong(s.Name, "", "", "an end has neither next, returns, to, on nor children")
		}
		return
	case s.Moves && s.Exec == nil:
		c.wrong(s.Name, "returns", "", "unexpected: a wait has no output")
	case s.Moves && s.Next != "":
		c.wrong(s.Name, "next", "", "the state returns moves: to lists the states that they may name")
	case s.Moves && len(s.To) == 0:
		c.wrong(s.Name, "to", "", "missing: want the states that moves may name")
	case !s.Moves && s.Next == "":
		c.wrong(s.Name, "next", "", "missing: want the state that items go to")
	case !s.Moves && len(s.To) > 0:
		c.wrong(s.Name, "to", "", "unexpected: want it only in a state that returns moves")
	case !s.Moves && s.Children != nil:
		c.wrong(s.Name, "children", "", "unexpected: want it only in a state that returns moves")
	}
	if s.Fold != nil {
		c.wrong(s.Name, "fold", "", "unexpected: want it only in an end")
	}
}

// ways checks that each state can be reached and can reach an end.
func (c *checker) ways() {
	reached := c.reach(c.index[c.f.start()])
	ends := c.leading()
	fed := c.fedJoins(reached)
	for i := range c.f.States {
		s := &c.f.States[i]
		switch {
		case !reached[i]:
			c.wrong(s.Name, "", "", "no item can reach it")
		case !ends[i]:
			c.wrong(s.Name, "", "", "no end can be reached from it")
		}
		if s.Children != nil && !fed {
			c.wrong(s.Name, "children", "join", "no state emits children for the join")
		}
	}
}

// fedJoins reports whether a reachable state may emit: one that returns moves.
func (c *checker) fedJoins(reached []bool) bool {
	for i := range c.f.States {
		if reached[i] && c.f.States[i].Moves {
			return true
		}
	}
	return false
}

func (c *checker) reach(from int) []bool {
	reached := make([]bool, len(c.f.States))
	todo := []int{from}
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if reached[i] {
			continue
		}
		reached[i] = true
		for _, name := range c.f.States[i].successors() {
			todo = append(todo, c.index[name])
		}
	}
	return reached
}

// leading returns the states that can reach an end.
func (c *checker) leading() []bool {
	before := make([][]int, len(c.f.States))
	var todo []int
	for i := range c.f.States {
		if c.f.States[i].isEnd() {
			todo = append(todo, i)
		}
		for _, name := range c.f.States[i].successors() {
			before[c.index[name]] = append(before[c.index[name]], i)
		}
	}
	leads := make([]bool, len(c.f.States))
	for len(todo) > 0 {
		i := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if !leads[i] {
			leads[i] = true
			todo = append(todo, before[i]...)
		}
	}
	return leads
}

// ofMachine are the classes of failure that depend on the machine.
var ofMachine = []abi.Class{abi.ClassTimeout, abi.ClassMemory, abi.ClassHost}

// doubts finds definitions that run, but are probably not intended.
func (c *checker) doubts() {
	for i := range c.f.States {
		s := &c.f.States[i]
		for _, class := range sortedClasses(s.On) {
			if slices.Contains(ofMachine, class) {
				c.found = append(c.found, Problem{
					State: s.Name, Field: "on", Entry: string(class), Doubt: true,
					Reason: fmt.Sprintf("whether an item takes the route of %s depends on the machine: a receipt then says pure: false", class),
				})
			}
		}
	}
}
