package flow

import (
	"context"
	"crypto/sha256"
	"flag"
	"runtime"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

var manyChildren = flag.Int("children", 100_000, "how many children the item of TestManyChildren has")

// heapAtFirstEnd measures the heap when the first item is given to the sink: a walk then
// holds all that it knows about the items of its window.
type heapAtFirstEnd struct{ bytes uint64 }

func (h *heapAtFirstEnd) Ended(*End) error {
	if h.bytes == 0 {
		h.bytes = heapInUse()
	}
	return nil
}

func (*heapAtFirstEnd) Dead(*Dead) error { return nil }

func heapInUse() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// TestManyChildren bounds the memory for each child of one item, for which the item
// waits: a million must fit in 300 MiB.
func TestManyChildren(t *testing.T) {
	n := *manyChildren
	plan := &Func{Name: "plan", Version: "1", Call: func(context.Context, [sha256.Size]byte, []byte) ([]byte, error) {
		b := abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 2), "next")
		b = abi.AppendText(abi.AppendText(b, "j"), "emit")
		b = abi.AppendHead(b, abi.MajorArray, uint64(n))
		for i := range n {
			b = abi.AppendText(abi.AppendHead(b, abi.MajorMap, 2), "next")
			b = abi.AppendText(abi.AppendText(b, "c"), "data")
			b = abi.AppendHead(b, abi.MajorUint, uint64(i))
		}
		return b, nil
	}}
	same := func(name string) *Func {
		return &Func{Name: name, Version: "1", Call: func(_ context.Context, _ [sha256.Size]byte, data []byte) ([]byte, error) { return data, nil }}
	}
	size := &Func{Name: "size", Version: "1", Call: func(_ context.Context, _ [sha256.Size]byte, data []byte) ([]byte, error) {
		return abi.AppendHead(nil, abi.MajorUint, uint64(len(data))), nil
	}}
	f := &Flow{Name: "many", States: []State{
		{Name: "a", Moves: true, To: []string{"c", "j"}, Children: &Children{Join: "j"}, Exec: plan},
		{Name: "c", Next: "done", Exec: same("c")},
		{Name: "j", Next: "done", Exec: size},
		{Name: "done", End: true},
	}}
	s, err := sqlite.Open(t.Context(), t.TempDir(), sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	before, h := heapInUse(), &heapAtFirstEnd{}
	res, err := NewRunner(Config{Store: s}).Run(context.Background(), &Run{Flow: f, Input: inputOf(t, 1), Sink: h})
	if err != nil {
		t.Fatal(err)
	}
	child := float64(h.bytes-before) / float64(n)
	t.Logf("%d items, %.0f bytes a child", res.Report.Items.Total, child)
	if res.Report.Items.Ended != n+1 || child > 200 {
		t.Errorf("%+v, %.0f bytes a child, want at most 200", res.Report.Items, child)
	}
}
