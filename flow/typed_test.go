package flow

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
)

type amount struct {
	N int `cbor:"n"`
}

// TestTypedNext: the output of a state with a fixed next state is the item.
func TestTypedNext(t *testing.T) {
	b := New[string, amount]("typed", "all")
	double := func(_ context.Context, _ string, i amount) (Move[amount], error) {
		return To("", amount{2 * i.N}), nil
	}
	Pure(b, "first", "1", double, Next("second"))
	Effectful(b, "second", 7, func(_ context.Context, s Step[int, string, amount]) (Move[amount], error) {
		switch s.Item.N {
		case 4:
			return Move[amount]{}, &RouteError{"done", errors.New("elsewhere")}
		case 6:
			return To("", s.Item).Emit("done", s.Item), nil
		}
		return To("", amount{s.Item.N + s.App}), nil
	}, Next("done"))
	b.End("done")
	f, err := b.Flow()
	if err != nil {
		t.Fatal(err)
	}
	g := &gathered{}
	run := &Run{Flow: f, Input: inputOf(t, amount{1}, amount{2}, amount{3}), Sink: g}
	if _, err := NewRunner(Config{}).Run(context.Background(), run); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(g.lines, []string{"0 done map[n:9]"}) || len(g.dead) != 2 || !strings.Contains(g.dead[0], "route") || !strings.Contains(g.dead[1], "abi") {
		t.Errorf("ends %q, dead letter %q", g.lines, g.dead)
	}
}

// TestTypedRoute: a route leaves the data as it is, with keys that the type does not
// have.
func TestTypedRoute(t *testing.T) {
	b := New[string, amount]("typed", "all")
	Effectful(b, "first", 0, func(context.Context, Step[int, string, amount]) (Move[amount], error) {
		return Move[amount]{}, &RouteError{"done", errors.New("elsewhere")}
	}, Moves("done"))
	b.End("done")
	f, err := b.Flow()
	if err != nil {
		t.Fatal(err)
	}
	g := &gathered{}
	run := &Run{Flow: f, Input: inputOf(t, map[string]any{"n": 1, "x": 2}), Sink: g}
	if _, err := NewRunner(Config{}).Run(context.Background(), run); err != nil || !slices.Equal(g.lines, []string{"0 done map[n:1 x:2]"}) {
		t.Errorf("%v, ends %q", err, g.lines)
	}
}
