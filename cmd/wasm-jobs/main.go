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

// gcPercent trades some time of the collector for memory: nearly all that a job
// holds has no pointers, which costs nothing to mark. A job of very many chunks
// holds so much of it that less garbage beside it is worth more. A small one is
// over before it has made as much garbage as the collector waits for at first,
// 64 MiB.
const (
	gcPercentFirst = 1600
	gcPercent      = 50
	gcPercentMany  = 25
	manyChunks     = 2_000_000
)

func main() {
	lowerGCPercent(gcPercentFirst)
	// Called by the collector, in a goroutine of its own, once it has run.
	runtime.SetFinalizer(new([16]byte), func(*[16]byte) { lowerGCPercent(gcPercent) })
	os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

var (
	gcMu      sync.Mutex
	gcSetting = math.MaxInt // gcMu
)

// lowerGCPercent sets it where it is higher, and leaves it to the user where
// GOGC says so.
func lowerGCPercent(percent int) {
	gcMu.Lock()
	defer gcMu.Unlock()
	if percent < gcSetting && os.Getenv("GOGC") == "" {
		gcSetting = percent
		debug.SetGCPercent(percent)
	}
}
