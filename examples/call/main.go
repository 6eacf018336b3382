// Call calls a guest 1,000 times. Its argument is the module of guest-examples/square,
// in any language.
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
	squares := host.TypedGuest[int, int]{Guest: guest}
	sum := 0
	for n := range 1000 {
		square, err := squares.Call(ctx, n)
		if err != nil {
			log.Fatal(err)
		}
		sum += square
	}
	fmt.Println("the squares of 0 to 999 sum up to", sum)
}
