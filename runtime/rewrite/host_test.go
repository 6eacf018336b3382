package rewrite_test

import (
	"context"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

const coreFeatureExtendedConst = experimental.CoreFeaturesExtendedConst

type overflowError struct{}

func (*overflowError) Error() string { return "stack overflow" }

type fuelError struct{}

func (*fuelError) Error() string { return "out of fuel" }

// meter is a host as described in METERING.md.
type meter struct {
	budget, slice int64
	granted       int64
	yields        int
	last, gap     int64 // used at the last yield, and the maximum between two
}

type meterKey struct{}

func serveMeter(t testing.TB, ctx context.Context, r wazero.Runtime) {
	i64 := api.ValueTypeI64
	_, err := r.NewHostModuleBuilder(rewrite.Module).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(yield), []api.ValueType{i64, i64}, []api.ValueType{i64}).
		Export(rewrite.Yield).Instantiate(ctx)
	if err != nil {
		t.Fatal(err)
	}
}

func yield(ctx context.Context, _ api.Module, stack []uint64) {
	m, _ := ctx.Value(meterKey{}).(*meter)
	if m == nil {
		m = &meter{budget: 1 << 62, slice: 1000}
	}
	fuel := int64(stack[0])
	used := m.granted - fuel
	m.yields++
	m.last, m.gap = used, max(m.gap, used-m.last)
	switch {
	case used > m.budget:
		panic(&fuelError{})
	case int64(stack[1]) < 0:
		panic(&overflowError{})
	case fuel < 0:
		refilled := min(m.slice, m.budget-used)
		m.granted += refilled - fuel
		stack[0] = uint64(refilled)
	}
}

func restoreStack(m api.Module, stack uint64) {
	if g, ok := m.ExportedGlobal(rewrite.StackExport).(api.MutableGlobal); ok {
		g.Set(stack)
	}
}

// call calls a function of a metered instance and returns the fuel it used.
func (m *meter) call(mod api.Module, name string, stack int64, args ...uint64) (results []uint64, used int64, err error) {
	fuel := mod.ExportedGlobal(rewrite.FuelExport).(api.MutableGlobal)
	m.granted, m.yields = 0, 0
	fuel.Set(0)
	mod.ExportedGlobal(rewrite.StackExport).(api.MutableGlobal).Set(uint64(stack))
	ctx := context.WithValue(context.Background(), meterKey{}, m)
	results, err = mod.ExportedFunction(name).Call(ctx, args...)
	if used = m.granted - int64(fuel.Get()); used > m.budget {
		return nil, used, &fuelError{}
	}
	return results, used, err
}

func rewritten(t testing.TB, wasm []byte, o rewrite.Options) *rewrite.Result {
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	r, err := rewrite.Rewrite(wasm, m, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
