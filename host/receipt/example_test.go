package receipt_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Run a job, and compare its receipt with a known one.
func Example() {
	ctx := context.Background()
	known, err := os.ReadFile("../../testdata/receipts/square.receipt.json")
	if err != nil {
		log.Fatal(err)
	}
	want, err := receipt.Parse(known)
	if err != nil {
		log.Fatal(err)
	}
	got, err := squareReceipt(ctx)
	if err != nil {
		log.Fatal(err)
	}
	for _, d := range receipt.Compare(want, got) {
		fmt.Println("different:", d.Field)
	}
	fmt.Println(got.Chunks, "chunks, outputs", got.Outputs.String()[:15])
	// Output:
	// 302 chunks, outputs sha256:160f559a
}

// squareReceipt runs a module over the chunks of a file.
func squareReceipt(ctx context.Context) (*receipt.Receipt, error) {
	module, err := os.ReadFile("../../guest-examples/square/c/square.wasm")
	if err != nil {
		return nil, err
	}
	file, err := chunks.Open(ctx, "../../testdata/receipts/square.cbor", chunks.Options{})
	if err != nil {
		return nil, err
	}
	defer file.Close()
	c, err := host.New(ctx, host.Config{})
	if err != nil {
		return nil, err
	}
	defer c.Close(ctx)
	result, err := c.Run(ctx, &host.Job{Module: module, Chunks: file, Retry: host.DefaultRetry()})
	if err != nil {
		return nil, err
	}
	return result.Receipt()
}
