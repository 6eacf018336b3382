package flow

import (
	"context"
	"crypto/sha256"
	"fmt"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func item_(t testing.TB, v any) []byte {
	b, err := cbor.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func inputOf(t testing.TB, values ...any) *chunks.File {
	var items [][]byte
	for _, v := range values {
		items = append(items, item_(t, v))
	}
	f, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func pureFunc(name string, f func(v any) any) *Func {
	return &Func{Name: name, Version: "1", Call: func(_ context.Context, _ [sha256.Size]byte, data []byte) ([]byte, error) {
		var v any
		if err := cbor.Unmarshal(data, &v); err != nil {
			return nil, err
		}
		out := f(v)
		if err, ok := out.(error); ok {
			return nil, err
		}
		return cbor.Marshal(out)
	}}
}

type gathered struct {
	lines []string
	dead  []string
}

func (g *gathered) Ended(e *End) error {
	var v any
	if err := cbor.Unmarshal(e.Data, &v); err != nil {
		return err
	}
	g.lines = append(g.lines, fmt.Sprintf("%s %s %v", idText(e.ID), e.State, v))
	return nil
}

func (g *gathered) Dead(d *Dead) error {
	g.dead = append(g.dead, fmt.Sprintf("%v %s %s %s", d.ID, d.State, d.Class, d.Message))
	return nil
}

func TestOneState(t *testing.T) {
	f := &Flow{Name: "one", States: []State{
		{Name: "square", Exec: pureFunc("square", func(v any) any { return v.(uint64) * v.(uint64) }), Next: "done", Retry: queue.DefaultPolicy()},
		{Name: "done", End: true},
	}}
	s := store.NewMemory()
	defer s.Close()
	for range 2 {
		g := &gathered{}
		res, err := NewRunner(Config{Store: s, Records: s}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, 1, 2, 3), Sink: g})
		if err != nil {
			t.Fatal(err)
		}
		t.Log(g.lines, res.Report.State, res.Report.States, res.Report.Instances)
	}
}

// unnamed is an input whose chunks have their positions as ids.
func unnamed(t testing.TB, values ...any) *chunks.File {
	var items [][]byte
	for _, v := range values {
		items = append(items, item_(t, v))
	}
	f, err := chunks.FromSeq(context.Background(), func(yield func([]byte, error) bool) {
		for _, b := range items {
			if !yield(b, nil) {
				return
			}
		}
	}, chunks.Options{NoIDKey: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
