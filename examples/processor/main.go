// Processor has a module and a function of Go behind one interface, and chains them:
// the first squares, the second says what came out. Its argument is the module: that of
// guest-examples/square, in any language.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

func openModule(ctx context.Context, path string) *processor.Module {
	wasm, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	module, err := processor.Open(ctx, wasm, processor.Options{})
	if err != nil {
		log.Fatal(err)
	}
	return module
}

func start[In, Out any](ctx context.Context, r processor.Runner[In, Out]) *processor.Processor[In, Out] {
	p, err := processor.New(ctx, r, processor.Config{})
	if err != nil {
		log.Fatal(err)
	}
	return p
}

// open makes what a worker has for itself, such as a connection: here, a greeting.
func open(context.Context) (string, error) { return "that makes", nil }

func say(_ context.Context, greeting string, n int) (string, error) {
	return fmt.Sprintf("%s %d", greeting, n), nil
}

func main() {
	ctx := context.Background()
	module := openModule(ctx, os.Args[1])
	defer module.Close()
	squares := start(ctx, processor.Typed[int, int](module))
	words := start(ctx, processor.Func(2, open, say, nil))
	processor.Chain(squares, words)
	answers := words.Subscribe()
	for n := range 3 {
		if err := squares.Send(ctx, abi.IntID(uint64(n)), n); err != nil {
			log.Fatal(err)
		}
		answer, err := answers.Next(ctx)
		fmt.Println(answer.ID, answer.Result.Output, answer.Err, err)
	}
	if squares.Stop() != nil || words.Stop() != nil {
		log.Fatal("a processor broke")
	}
}
