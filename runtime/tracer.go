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

// Tracer receives the calls of functions of a guest, in the goroutine that runs
// it, from the call of an export down to imported functions. Calls that
// metering adds to a module are not included. Values are in the engine's form:
// the bits of a number in 64 bits, and a v128 as two values. They are valid
// until the method returns.
type Tracer interface {
	// Enter is called before a function runs.
	Enter(f *Function, arguments []uint64)
	// Leave is called after it has returned. If it ended in another way,
	// returned is false.
	Leave(f *Function, results []uint64, returned bool)
}

// Function describes a function of a module.
type Function struct {
	Index   int    // in the file of the module; -1 for an imported function whose index is unknown
	Module  string // of an import
	Name    string // from the import, the name section or an export; "" = none
	Params  []binary.ValueType
	Results []binary.ValueType
}

// withTracer returns a context that makes the functions compiled with it report
// their calls. It is for host modules: the index of their functions is known
// only to the module that imports them.
func withTracer(ctx context.Context, calls Tracer) context.Context {
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

// withTracer does the same for the module's own functions.
func (m *Module) withTracer(ctx context.Context) context.Context {
	calls := m.runtime.config.Tracer
	if calls == nil {
		return ctx
	}
	imported := m.description.importedFunctions()
	return experimental.WithFunctionListenerFactory(ctx, experimental.FunctionListenerFactoryFunc(
		func(d api.FunctionDefinition) experimental.FunctionListener {
			index := m.original(int(d.Index()))
			if index < 0 || index >= imported+m.description.Functions {
				return nil // a function of metering
			}
			f := functionOf(d, index)
			if f.Name = d.Name(); f.Name == "" && len(d.ExportNames()) > 0 {
				f.Name = d.ExportNames()[0]
			}
			return &callListener{calls, f}
		}))
}

// original returns the index in the file of a function with the given index in
// the rewritten module: metering adds one imported function before all
// functions that the module defines. For that function it returns -1.
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

// ImportIndex returns the index of an imported function in the file of the
// module; -1 if it is not imported.
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

// slots returns the number of 64-bit values that hold values of the given
// types.
func slots(types []binary.ValueType) (n int) {
	for _, t := range types {
		if n++; t == binary.V128 {
			n++
		}
	}
	return n
}

// callListener reports the calls of one function.
type callListener struct {
	calls    Tracer
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

// values returns the values of the given types from the engine's view of the
// stack, which may be longer. The upper half of a 32-bit value is undefined.
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
