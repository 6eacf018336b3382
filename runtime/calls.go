package runtime

import (
	"context"
	"math"
	"slices"

	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// Calls is told which functions a guest calls, in the goroutine that runs it,
// from the call of an export on down to imported functions. What metering adds to
// a module is not among them. Values are as the engine holds them: a number's
// bits in 64, and two of 64 for a v128. They may be used until the method
// returns.
type Calls interface {
	// Enter comes before a function runs.
	Enter(f *Function, arguments []uint64)
	// Leave comes after it has returned, or, with returned false, when it ended
	// otherwise.
	Leave(f *Function, results []uint64, returned bool)
}

// Function is one function of a module.
type Function struct {
	Index   int    // in the file of the module; -1 = of none, an imported one that is not known
	Module  string // of an import
	Name    string // of the import, or from the name section, or of an export; "" = none
	Params  []binary.ValueType
	Results []binary.ValueType
}

// withCalls makes functions that are compiled with ctx tell calls of it. They
// are those of host modules: which index each has, only the module knows that
// imports it.
func withCalls(ctx context.Context, calls Calls) context.Context {
	if calls == nil {
		return ctx
	}
	return experimental.WithFunctionListenerFactory(ctx, experimental.FunctionListenerFactoryFunc(
		func(d api.FunctionDefinition) experimental.FunctionListener {
			if d.ModuleName() == rewrite.Module {
				return nil
			}
			f := functionOf(d, -1)
			f.Module, f.Name = d.ModuleName(), d.Name()
			return &callListener{calls, f}
		}))
}

// withCalls is that of the module's own functions.
func (m *Module) withCalls(ctx context.Context) context.Context {
	calls := m.runtime.config.Calls
	if calls == nil {
		return ctx
	}
	imported := m.description.importedFunctions()
	return experimental.WithFunctionListenerFactory(ctx, experimental.FunctionListenerFactoryFunc(
		func(d api.FunctionDefinition) experimental.FunctionListener {
			index := m.original(int(d.Index()))
			if index < 0 || index >= imported+m.description.Functions {
				return nil // metering's
			}
			f := functionOf(d, index)
			if f.Name = d.Name(); f.Name == "" && len(d.ExportNames()) > 0 {
				f.Name = d.ExportNames()[0]
			}
			return &callListener{calls, f}
		}))
}

// original returns the index in the file of the module of what has an index in
// the module that runs: metering imports one function more, before all that a
// module defines. It is -1 for that function.
func (m *Module) original(index int) int {
	imported := m.description.importedFunctions()
	switch {
	case m.depth == 0 || index < imported:
		return index
	case index == imported:
		return -1
	}
	return index - 1
}

func (d *Description) importedFunctions() (n int) {
	for _, i := range d.Imports {
		if i.Type != "" {
			n++
		}
	}
	return n
}

// ImportIndex returns the index that an imported function has in the file of
// the module; -1 where it is not imported.
func (d *Description) ImportIndex(module, name string) int {
	index := 0
	for _, i := range d.Imports {
		if i.Type == "" {
			continue
		}
		if i.Module == module && i.Name == name {
			return index
		}
		index++
	}
	return -1
}

func functionOf(d api.FunctionDefinition, index int) *Function {
	types := func(all []api.ValueType) (out []binary.ValueType) {
		for _, t := range all {
			out = append(out, binary.ValueType(t))
		}
		return out
	}
	return &Function{Index: index, Params: types(d.ParamTypes()), Results: types(d.ResultTypes())}
}

// slots returns how many values of 64 bits hold those of these types.
func slots(types []binary.ValueType) (n int) {
	for _, t := range types {
		if n++; t == binary.V128 {
			n++
		}
	}
	return n
}

// callListener tells of the calls of one function.
type callListener struct {
	calls    Calls
	function *Function
}

// Before implements [experimental.FunctionListener].
func (l *callListener) Before(_ context.Context, _ api.Module, _ api.FunctionDefinition, params []uint64, _ experimental.StackIterator) {
	l.calls.Enter(l.function, values(params, l.function.Params))
}

// After implements [experimental.FunctionListener].
func (l *callListener) After(_ context.Context, _ api.Module, _ api.FunctionDefinition, results []uint64) {
	l.calls.Leave(l.function, values(results, l.function.Results), true)
}

// Abort implements [experimental.FunctionListener].
func (l *callListener) Abort(context.Context, api.Module, api.FunctionDefinition, error) {
	l.calls.Leave(l.function, nil, false)
}

// values returns those of these types, of which the engine's view of the stack
// may have more. It leaves the upper half of a value of 32 bits as it was.
func values(stack []uint64, types []binary.ValueType) []uint64 {
	out := slices.Clone(stack[:min(len(stack), slots(types))])
	at := 0
	for _, t := range types {
		if at < len(out) && (t == binary.I32 || t == binary.F32) {
			out[at] &= math.MaxUint32
		}
		if at++; t == binary.V128 {
			at++
		}
	}
	return out
}
