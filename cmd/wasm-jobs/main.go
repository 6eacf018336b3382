// Command wasm-jobs runs one WebAssembly function over many chunks.
package main

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
)

// gcPercent trades time of the garbage collector for memory. It is low because
// nearly all memory of a job has no pointers and costs nothing to mark. It is lower
// still for a job of very many chunks, which holds much memory. At first it is
// high: a small job ends before it has made 64 MiB of garbage, and never collects.
const (
	gcPercentFirst = 1600
	gcPercent      = 50
	gcPercentMany  = 25
	manyChunks     = 2_000_000
)

func main() {
	lowerGCPercent(gcPercentFirst)
	// The runtime calls the finalizer, in its own goroutine, after the first collection.
	runtime.SetFinalizer(new([16]byte), func(*[16]byte) { lowerGCPercent(gcPercent) })
	os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

var (
	gcMu      sync.Mutex
	gcSetting = math.MaxInt // gcMu
)

// lowerGCPercent lowers the GC percentage to percent. It never raises it, and does
// nothing if the user has set GOGC.
func lowerGCPercent(percent int) {
	gcMu.Lock()
	defer gcMu.Unlock()
	if percent < gcSetting && os.Getenv("GOGC") == "" {
		gcSetting = percent
		debug.SetGCPercent(percent)
	}
}
