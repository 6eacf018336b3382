// Package host runs WebAssembly guests: it applies a module, a pure function,
// to many chunks.
//
// A program that serves requests opens a module, calls it, and closes it:
//
//	guest, err := host.Open(ctx, module, host.Options{})
//	if err != nil {
//		log.Fatal(err)
//	}
//	defer guest.Close()
//	output, err := guest.Call(ctx, []byte{3}) // one CBOR item, as is the output
//
// Each [Guest.Call] sees the state that the guest had right after its setup.
// This costs a reset and not a new instance. [Guest.Map] calls the guest for
// each chunk of a sequence, which may be endless, and [TypedGuest] does both
// with Go values.
//
// A program that has all chunks runs a [Job]. A [Coordinator] leases batches of
// chunks to workers, stores each output before it counts it, retries failures
// by their class, and folds the outputs in id order into one result. The bytes
// of the result do not depend on the number of workers, on retries or on the
// order in which chunks finish.
package host
