package guest_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Call a guest twice: once with a valid chunk, once with one that it refuses.
func ExampleCall() {
	ctx := context.Background()
	wasm, err := os.ReadFile("../../guest-examples/square/c/square.wasm")
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
	pool, err := module.Prepare(ctx, runtime.Settings{})
	if err != nil {
		log.Fatal(err)
	}
	defer pool.Close()
	instance := pool.Borrow(nil)
	defer instance.Release()
	for _, chunk := range [][]byte{{5}, abi.AppendText(nil, "five")} {
		result, err := guest.Call(ctx, instance, abi.ExportExec, chunk)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%x %v\n", result.Output, result.Failure)
	}
	// Output:
	// 1819 <nil>
	//  guest: not an integer
}
