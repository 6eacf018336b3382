package replay

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A bundle of an earlier build has the engine's words about a trap.
func TestEarlier(t *testing.T) {
	engine := &abi.Failure{Class: abi.ClassTrap, Message: "unreachable", Stack: []string{"abort()", "pick()"}}
	is := &abi.Failure{Class: abi.ClassTrap, Message: "panic: no", Stack: []string{"pick()"}, Engine: engine}
	for name, c := range map[string]struct {
		was  *abi.Failure
		want bool
	}{
		"the same":            {&abi.Failure{Message: "panic: no", Stack: []string{"pick()"}}, false},
		"in the engine's":     {&abi.Failure{Message: "unreachable", Stack: []string{"abort()", "pick()"}}, true},
		"without its stack":   {&abi.Failure{Message: "unreachable"}, true},
		"with another stack":  {&abi.Failure{Message: "unreachable", Stack: []string{"other()"}}, false},
		"with another reason": {&abi.Failure{Message: "out of bounds memory access"}, false},
	} {
		if got := earlier(c.was, is); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if earlier(engine, nil) || earlier(engine, engine) {
		t.Error("a failure without other words has some")
	}
}
