package replay_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/replay"
)

// Run a chunk that trapped again, and look at the guest's last calls.
func Example() {
	wasm, err := os.ReadFile("../../guest-examples/faulty/c/faulty.wasm")
	if err != nil {
		log.Fatal(err)
	}
	b := &bundle.Bundle{ // as bundle.Decode reads it from a file
		ID: abi.IntID(0), Chunk: []byte{3}, Module: bundle.Module{SHA256: sha256.Sum256(wasm), Size: len(wasm)},
		Failure: abi.Failure{Class: abi.ClassTrap, Message: "out of bounds memory access"},
	}
	r, err := replay.Run(context.Background(), b, wasm, replay.Options{Trace: 4})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Replayed.Failure)
	for _, c := range r.Compared[:2] {
		fmt.Println(c.What, "is the same:", c.Same)
	}
	fmt.Println(len(r.Trace.First)+len(r.Trace.Last), "lines of the trace")
	// Output:
	// trap: unreachable
	// class is the same: true
	// message is the same: false
	// 4 lines of the trace
}
