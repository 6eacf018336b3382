package host_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"sync/atomic"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// squareWasm squares integers; its aggregate is their sum.
const squareWasm = "../guest-examples/square/wat/square.wasm"

// Open a module, call it, and close it.
func Example() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}

	guest, err := host.Open(ctx, module, host.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer guest.Close()
	output, err := guest.Call(ctx, []byte{3}) // one CBOR item, as is the output
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(diagnose(output))
	// Output: 9
}

// Call a guest with Go values, and read its message when it refuses one.
func ExampleTypedGuest() {
	ctx := context.Background()
	module, err := os.ReadFile("../guest-examples/square/c/square.wasm")
	if err != nil {
		log.Fatal(err)
	}
	guest, err := host.Open(ctx, module, host.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer guest.Close()

	type request struct {
		N int64 `cbor:"n"`
	}
	squares := host.TypedGuest[request, uint64]{Guest: guest}
	for _, n := range []int64{3, 1 << 40} {
		square, err := squares.Call(ctx, request{n})
		if failure, failed := errors.AsType[*abi.Failure](err); failed {
			fmt.Println(failure.Class, "failed:", failure.Message)
		} else if err != nil {
			log.Fatal(err)
		} else {
			fmt.Println(square)
		}
	}
	// Output:
	// 9
	// guest failed: overflow
}

// Map an endless sequence with one bad chunk.
func ExampleGuest_MapOrdered() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	guest, err := host.Open(ctx, module, host.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer guest.Close()

	requests := func(yield func([]byte, error) bool) {
		for yield([]byte{2}, nil) && yield([]byte("\x61x"), nil) && yield([]byte{3}, nil) {
		}
	}
	for o, err := range guest.MapOrdered(ctx, requests) {
		if bad, ok := errors.AsType[*host.ChunkError](err); ok {
			fmt.Println(bad) // and the sequence goes on
			continue
		}
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("output of %v: %s\n", o.ID, diagnose(o.Output))
		if n, _ := o.ID.Int(); n >= 3 {
			break // no goroutine is left
		}
	}
	// Output:
	// output of 0: 4
	// chunk 1: guest: not an integer
	// output of 2: 9
	// output of 3: 4
}

// Run a module over the chunks 2 and 3.
func Example_job() {
	ctx := context.Background()
	module, err := os.ReadFile(squareWasm)
	if err != nil {
		log.Fatal(err)
	}
	file, err := chunks.Of([]byte{2}, []byte{3}) // each is one CBOR item; chunks.Open reads a file
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

// printer prints the events of chunks.
type printer struct{}

func (printer) Progress(phase string, c event.Counts) {} // for a progress bar

func (printer) Wants() event.Detail { return event.Chunks }

func (printer) Observe(events []event.Event) {
	for _, e := range events {
		switch e.Kind {
		case event.KindPhase:
			fmt.Println("phase", e.Message)
		case event.KindFailed:
			fmt.Printf("chunk %v failed: %v\n", e.ID, e.Failure)
		case event.KindEnd:
			fmt.Printf("%d of %d chunks succeeded\n", e.Counts.Succeeded, e.Counts.Total)
		}
	}
}

// Watch the events of a job. The chunk "x" is not an integer, and fails.
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

// Generate chunks in code. Only the disk limits their number.
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

// countingStore counts the outputs that it gets. Your own store has the methods
// of [store.Store] and passes storetest.Run.
type countingStore struct {
	store.Store
	records atomic.Int64
}

func (s *countingStore) Put(ctx context.Context, action store.Action, records []store.Record) error {
	s.records.Add(int64(len(records)))
	return s.Store.Put(ctx, action, records)
}

// Keep outputs in your own store: stored outputs are not computed again.
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
			log.Fatal("cannot store: ", failed.Err)
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
