// Endless maps an endless sequence, and stops early. Its argument is the module of
// guest-examples/square, in any language.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/host"
)

func main() {
	ctx := context.Background()
	module, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	guest, err := host.Open(ctx, module, host.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer guest.Close()
	integers := func(yield func(int, error) bool) {
		for n := 0; yield(n, nil); n++ {
		}
	}
	for o, err := range (host.TypedGuest[int, int]{Guest: guest}).MapOrdered(ctx, integers) {
		if err != nil {
			log.Fatal(err)
		} else if o.Output > 1_000_000 {
			fmt.Println("the first square beyond a million is the square of", o.ID)
			break // no goroutine is left
		}
	}
}
