package host_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync/atomic"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// squareWasm squares integers; its aggregate is their sum.
const squareWasm = "../guest-examples/square/wat/square.wasm"

// Run a module over the chunks 2 and 3.
func Example() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte{2}, []byte{3}) // each one CBOR item; chunks.Open reads a file
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	c, err := host.New(ctx, host.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	result, err := c.Run(ctx, &host.Job{Module: module, Chunks: file, Retry: host.DefaultRetry()})
	if err != nil {
		log.Fatal(err)
	}
	for o, err := range result.Outputs(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("output of %v: %s\n", o.ID, diagnose(o.Output))
	}
	fmt.Println("result:", diagnose(result.Aggregate))
	// Output:
	// output of 0: 4
	// output of 1: 9
	// result: 13
}

// diagnose returns a CBOR item in diagnostic notation.
func diagnose(item []byte) string {
	text, err := cbor.Diagnose(item)
	if err != nil {
		log.Fatal(err)
	}
	return text
}

// printer prints what becomes of chunks.
type printer struct{}

func (printer) Progress(phase string, c host.Counts) {} // for a progress bar

func (printer) Wants() bool { return true }

func (printer) Observe(events []host.Event) {
	for _, e := range events {
		switch e.Kind {
		case host.KindPhase:
			fmt.Println("phase", e.Message)
		case host.KindFailed:
			fmt.Printf("chunk %v failed: %v\n", e.ID, e.Failure)
		case host.KindEnd:
			fmt.Printf("%d of %d chunks succeeded\n", e.Counts.Succeeded, e.Counts.Total)
		}
	}
}

// Watch the events of a job. The chunk "x" is no integer, and fails.
func ExampleObserver() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte{2}, []byte("\x61x"))
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	c, err := host.New(ctx, host.Config{Observer: printer{}})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	result, err := c.Run(ctx, &host.Job{Module: module, Chunks: file, Retry: host.DefaultRetry()})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(result.Report.Failures), "in the report")
	// Output:
	// phase compile
	// phase prepare
	// phase execute
	// chunk 1 failed: guest: not an integer
	// phase fold
	// 1 of 2 chunks succeeded
	// 1 in the report
}

// Supply chunks from code: as many as the disk has room for.
func Example_chunksFromCode() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	integers := func(yield func([]byte, error) bool) {
		for n := range 1000 {
			item, err := cbor.Marshal(n)
			if !yield(item, err) {
				return
			}
		}
	}
	file, err := chunks.FromSeq(ctx, integers, chunks.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	c, err := host.New(ctx, host.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	result, err := c.Run(ctx, &host.Job{Module: module, Chunks: file})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(diagnose(result.Aggregate))
	// Output: 332833500
}

// countingStore counts the outputs that it is given. A store of your own has
// the methods of [store.Store] and passes storetest.Run.
type countingStore struct {
	store.Store
	records atomic.Int64
}

func (s *countingStore) Put(ctx context.Context, action store.Action, records []store.Record) error {
	s.records.Add(int64(len(records)))
	return s.Store.Put(ctx, action, records)
}

// Keep outputs in a store of your own: what it has is not computed again.
func Example_customStore() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte{2}, []byte{3})
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()

	s := &countingStore{Store: store.NewMemory()}
	defer s.Close()
	c, err := host.New(ctx, host.Config{Store: s})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close(ctx)
	for range 2 {
		result, err := c.Run(ctx, &host.Job{Module: module, Chunks: file})
		if failed, ok := errors.AsType[*host.StoreError](err); ok {
			log.Fatal("nothing can be kept: ", failed.Err)
		} else if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%d attempts, %d reused, result %s\n",
			result.Report.Attempts, result.Report.Chunks.Reused, diagnose(result.Aggregate))
	}
	fmt.Println(s.records.Load(), "records: two outputs, the result, and that all is done")
	// Output:
	// 2 attempts, 0 reused, result 13
	// 0 attempts, 2 reused, result 13
	// 4 records: two outputs, the result, and that all is done
}
