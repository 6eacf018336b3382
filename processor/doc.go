// Package processor answers requests that come one by one, from many senders.
//
// A [Runner] is anything that runs a request: a module ([Open]), a function of Go
// with resources of its own ([Func]), a server that another process runs
// (web.Client). The output of a request does not depend on the runner, on the time,
// or on other requests: for a module, the output, its fuel and its key in a store are
// the same as in a job.
//
//	square, err := processor.Open(ctx, wasm, processor.Options{})
//	...
//	defer square.Close()
//	p, err := processor.New(ctx, square, processor.Config{})
//	...
//	defer p.Stop()
//	result, err := p.Call(ctx, []byte{3}) // one CBOR item, as is result.Output
//
// A [Processor] takes requests over a runner: [Processor.Call] runs one in the
// caller's goroutine, [Processor.Send] queues it, and any number of receivers
// ([Processor.Subscribe]) see all responses in one order. [Chain] makes the
// responses of one processor the requests of another. [Stream] runs a sequence of
// requests of any length and gives the answers in order.
//
// [Cache] wraps a runner: it asks a store first, and runs equal requests in flight
// once.
package processor
