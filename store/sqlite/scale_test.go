package sqlite

import (
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var scale = flag.Int("scale", 0, "outputs in TestScale, in thousands; 0 = it is skipped")

// TestScale times a store of many outputs, each step by itself.
func TestScale(t *testing.T) {
	if *scale == 0 {
		t.Skip("needs -scale N")
	}
	n := *scale * 1000
	dir := t.TempDir()
	at := time.Now()
	step := func(name string) {
		took := time.Since(at)
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		t.Logf("%-32s %8v, %4d ns an output, heap %d MiB", name, took.Round(time.Millisecond), took.Nanoseconds()/int64(n), m.HeapAlloc>>20)
		at = time.Now()
	}
	s := open(t, dir, Options{})
	fill(t, s, store.Action{1}, n, 10_000)
	step("put")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	step("close")
	info, err := os.Stat(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes an output", info.Size()/int64(n))
	s = open(t, dir, Options{})
	step("open")
	get := func(change func(*store.Key)) {
		for i := 0; i < n; i += 1000 {
			var keys []store.Key
			for _, r := range records(i, i+1000) {
				change(&r.Key)
				keys = append(keys, r.Key)
			}
			found := 0
			if err := s.Get(t.Context(), store.Action{1}, keys, func(int, store.Value) error { found++; return nil }); err != nil || found != 1000 {
				t.Fatalf("found %d, %v", found, err)
			}
		}
	}
	get(func(*store.Key) {})
	step("get in order")
	shift := func(k *store.Key) { k.Order = append([]byte{0}, k.Order...) }
	get(shift)
	step("get under other orders")
	get(shift)
	step("get under other orders again")
	for _, err := range s.All(t.Context(), store.Action{1}) {
		if err != nil {
			t.Fatal(err)
		}
	}
	step("all")
}
