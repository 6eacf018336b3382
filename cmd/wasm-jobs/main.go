// Command wasm-jobs runs one WebAssembly function over many chunks.
package main

import (
	"context"
	"os"
	"runtime/debug"
)

// gcPercent trades some time of the collector for memory: nearly all that a job
// holds has no pointers, which costs nothing to mark. A job of very many chunks
// holds so much of it that less garbage beside it is worth more.
const (
	gcPercent     = 50
	gcPercentMany = 25
	manyChunks    = 2_000_000
)

func main() {
	setGCPercent(gcPercent)
	os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}

// setGCPercent leaves it to the user, where GOGC says so.
func setGCPercent(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}
