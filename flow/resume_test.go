package flow_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// numbersTo returns an input of the integers from 0 to n-1.
func numbersTo(t testing.TB, n int) *chunks.File {
	t.Helper()
	var set abi.IDSet
	set.AddRange(0, uint64(n-1))
	input, err := chunks.FromSeq(t.Context(), sources.Range("range", set), chunks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { input.Close() })
	return input
}

// folded is a flow of two states whose result is an array of all entries.
func folded(t testing.TB) *flow.Flow {
	t.Helper()
	engine, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { engine.Close(context.WithoutCancel(t.Context())) })
	module := func(path string) *flow.Module {
		wasm, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		m, err := engine.Admit(t.Context(), wasm, runtime.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return &flow.Module{Module: m}
	}
	return &flow.Flow{Name: "folded", States: []flow.State{
		{Name: "square", Exec: module("../guest-examples/square/c/square.wasm"), Next: "same"},
		{Name: "same", Exec: module("../testdata/wasm/echo.wasm"), Next: "done"},
		{Name: "done", End: true, Fold: module("../testdata/wasm/echo-aggregate.wasm")},
	}}
}

// TestResumeLaterWindow continues runs some of whose outputs are stored: none of the
// first window of a walk, a part of the second, two windows, and a hole. The result and
// the receipt are those of a run that began with an empty store.
func TestResumeLaterWindow(t *testing.T) {
	const roots = 5000
	f, input := folded(t), numbersTo(t, roots)
	run := func(s store.Store, input flow.Input) (receipt, output []byte) {
		t.Helper()
		res, err := flow.NewRunner(flow.Config{Store: s}).Run(t.Context(), &flow.Run{Flow: f, Input: input})
		if err != nil {
			t.Fatal(err)
		}
		if receipt, err = res.Receipt.Marshal(); err != nil {
			t.Fatal(err)
		}
		return receipt, res.Output
	}
	empty := store.NewMemory()
	defer empty.Close()
	want, wantOutput := run(empty, input)
	for _, stored := range []int{1, 2047, 2048, 2049, 3000, 4096, 4999} {
		s := store.NewMemory()
		defer s.Close()
		run(s, numbersTo(t, stored))
		got, output := run(s, input)
		if !bytes.Equal(got, want) || !bytes.Equal(output, wantOutput) {
			t.Errorf("%d of %d roots stored: a result of %d bytes and\n%s\nwant %d bytes and\n%s", stored, roots, len(output), got, len(wantOutput), want)
		}
	}
}

// TestRecheck executes all steps twice. If the second module gives another output, the
// run ends and the output is not stored.
func TestRecheck(t *testing.T) {
	f, other, input := folded(t), folded(t), numbersTo(t, 10)
	if _, err := flow.NewRunner(flow.Config{}).Run(t.Context(), &flow.Run{Flow: f, Input: input, Recheck: &flow.Recheck{Share: 1, Flow: other}}); err != nil {
		t.Fatal(err)
	}
	other.States[0].Exec = other.States[1].Exec
	s := store.NewMemory()
	defer s.Close()
	res, err := flow.NewRunner(flow.Config{Store: s}).Run(t.Context(), &flow.Run{Flow: f, Input: input, Recheck: &flow.Recheck{Share: 1, Flow: other}})
	if differs, ok := errors.AsType[*worker.DifferenceError](err); !ok || res.Report.State != flow.Failed {
		t.Errorf("%v, state %s, want a *DifferenceError", err, res.Report.State)
	} else if n, _ := differs.ID.Int(); n > 9 {
		t.Errorf("item %v differs, which the input does not have", differs.ID)
	}
}
