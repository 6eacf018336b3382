package flow_test

import (
	"context"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// BenchmarkThreeStates moves b.N roots through three modules that do next to
// nothing, with a durable store.
func BenchmarkThreeStates(b *testing.B) {
	ctx := context.Background()
	engine, err := runtime.New(ctx, runtime.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer engine.Close(ctx)
	f := &flow.Flow{Name: "three"}
	for _, s := range []struct{ name, path, next string }{
		{"a", "../testdata/wasm/echo.wasm", "b"}, {"b", "../guest-examples/square/c/square.wasm", "c"}, {"c", "../testdata/wasm/echo.wasm", "done"},
	} {
		wasm, err := os.ReadFile(s.path)
		if err != nil {
			b.Fatal(err)
		}
		m, err := engine.Admit(ctx, wasm, runtime.Options{})
		if err != nil {
			b.Fatal(err)
		}
		f.States = append(f.States, flow.State{Name: s.name, Exec: &flow.Module{Module: m}, Next: s.next})
	}
	f.States = append(f.States, flow.State{Name: "done", End: true})
	var set abi.IDSet
	set.AddRange(0, uint64(b.N-1))
	input, err := chunks.FromSeq(ctx, sources.Range("range", set), chunks.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer input.Close()
	s, err := sqlite.Open(ctx, b.TempDir(), sqlite.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	b.ResetTimer()
	if _, err := flow.NewRunner(flow.Config{Store: s, Records: s}).Run(ctx, &flow.Run{Flow: f, Input: input}); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(s.Stats().Commits), "commits")
}
