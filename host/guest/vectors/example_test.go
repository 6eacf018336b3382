package vectors_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/host/guest/vectors"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Test a guest with two vectors; the second one is wrong.
func Example() {
	ctx := context.Background()
	file, err := vectors.Parse([]byte(`{"vectors": [
	  {"name": "two squared", "chunk": 2, "output": 4},
	  {"name": "three squared", "chunk": 3, "output": 6}
	]}`))
	if err != nil {
		log.Fatal(err)
	}
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
	tester := vectors.NewTester(module, runtime.Settings{})
	defer tester.Close()
	for _, v := range file.Vectors {
		result, err := tester.Try(ctx, v)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %t\n", v.Name, v.Holds(&result))
		if !v.Holds(&result) {
			fmt.Println(v.Diff(&result))
		}
	}
	// Output:
	// two squared: true
	// three squared: false
	// [- 6 + 9]
}
