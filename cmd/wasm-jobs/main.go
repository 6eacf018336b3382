// Command wasm-jobs runs one WebAssembly function over many chunks.
package main

import (
	"context"
	"os"
	"runtime/debug"
)

// gcPercent trades some time of the collector for memory: nearly all that a job
// holds are outputs without pointers, which cost nothing to mark.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	os.Exit(Main(context.Background(), os.Args, os.Stdin, os.Stdout, os.Stderr))
}
