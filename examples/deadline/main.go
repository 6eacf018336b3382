// Deadline runs a job that does not end by itself. Its argument is the module of
// guest-examples/faulty.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	module, err := os.ReadFile(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte("\xa1\x62do\x64loop")) // {"do": "loop"}
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	c, err := host.New(ctx, host.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(context.Background())
	_, err = c.Run(ctx, &host.Job{Module: module, Chunks: file})
	fmt.Println("interrupted:", errors.Is(err, host.ErrInterrupted))
	fmt.Println("deadline exceeded:", errors.Is(err, context.DeadlineExceeded))
}
