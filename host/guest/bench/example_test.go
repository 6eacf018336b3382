package bench_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest/bench"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Measure the calls of a guest. Its times depend on the machine; its fuel does
// not.
func ExampleMeasureCalls() {
	ctx := context.Background()
	wasm, err := os.ReadFile("../../../guest-examples/square/c/square.wasm")
	if err != nil {
		log.Fatal(err)
	}
	r, err := runtime.New(ctx, runtime.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer r.Close(ctx)
	module, err := r.Compile(ctx, wasm, runtime.Options{})
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte{2}, []byte{3})
	if err != nil {
		log.Fatal(err)
	}
	calls, err := bench.MeasureCalls(ctx, module, file, bench.Options{Time: 20 * time.Millisecond})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("isolation by", calls.Isolation)
	fmt.Println("each chunk uses the same fuel:", calls.Fuel.Min == calls.Fuel.Max)
	// Output:
	// isolation by reset
	// each chunk uses the same fuel: true
}
