//go:build wasip1

// Conform is the guest in Go for the conformance suite of the SDKs. A chunk that is
// a map with a text under the key "do" asks for one of
//
//	{"do": "fail", "kind": 0..2, "message": text}
//	{"do": "log", "level": integer, "message": text}    returns null
//	{"do": "heartbeat"}                                  returns its result, a boolean
//	{"do": "trap"}
//
// Any other chunk, and the input of aggregate and merge, comes back in preferred
// serialization. setup accepts any context except one that asks to fail.
package main

import (
	"errors"
	"fmt"
	"iter"

	wasmjobs "github.com/wasm-jobs/wasm-jobs/sdk/go"
)

type value = wasmjobs.Value

type failing struct {
	Do      string `cbor:"do"`
	Kind    uint32 `cbor:"kind"`
	Message string `cbor:"message"`
}

type logging struct {
	Do      string         `cbor:"do"`
	Level   wasmjobs.Level `cbor:"level"`
	Message string         `cbor:"message"`
}

func asked(chunk value) string {
	request, _ := chunk.Get("do")
	what, _ := request.Text()
	return what
}

func do(chunk value) (value, error) {
	switch asked(chunk) {
	case "fail":
		return chunk, fail(chunk)
	case "log":
		request, err := wasmjobs.Decode[logging](chunk)
		if err == nil {
			wasmjobs.Log(request.Level, "%s", request.Message)
		}
		return wasmjobs.Null, err
	case "heartbeat":
		return wasmjobs.ValueOf(wasmjobs.Heartbeat())
	case "trap":
		panic("told to trap")
	default:
		return chunk, nil
	}
}

func fail(chunk value) error {
	request, err := wasmjobs.Decode[failing](chunk)
	if err != nil {
		return err
	}
	err = errors.New(request.Message)
	switch request.Kind {
	case 0:
		return err
	case 1:
		return wasmjobs.Retryable(err)
	case 2:
		return wasmjobs.Requeue(err)
	default:
		return fmt.Errorf("kind: unknown kind %d", request.Kind)
	}
}

func aggregate(outputs iter.Seq2[wasmjobs.ID, value]) (value, error) {
	all := value{Kind: wasmjobs.KindArray}
	for id, output := range outputs {
		key := value{Kind: wasmjobs.KindUint, Num: id.Int}
		if id.IsText {
			key = value{Kind: wasmjobs.KindText, Bytes: []byte(id.Text)}
		}
		all.Items = append(all.Items, value{Kind: wasmjobs.KindArray, Items: []value{key, output}})
	}
	return all, nil
}

func merge(partials iter.Seq[value]) (value, error) {
	all := value{Kind: wasmjobs.KindArray}
	for partial := range partials {
		all.Items = append(all.Items, partial)
	}
	return all, nil
}

func setup(context value) error {
	if asked(context) == "fail" {
		return fail(context)
	}
	return nil
}

var (
	execFunction      = wasmjobs.Exec(do)
	aggregateFunction = wasmjobs.Aggregate(aggregate)
	mergeFunction     = wasmjobs.Merge(merge)
	setupFunction     = wasmjobs.Setup(setup)
)

//go:wasmexport exec
func exportExec(ptr, size uint32) uint64 { return execFunction.Serve(ptr, size) }

//go:wasmexport aggregate
func exportAggregate(ptr, size uint32) uint64 { return aggregateFunction.Serve(ptr, size) }

//go:wasmexport merge
func exportMerge(ptr, size uint32) uint64 { return mergeFunction.Serve(ptr, size) }

//go:wasmexport setup
func exportSetup(ptr, size uint32) uint64 { return setupFunction.Serve(ptr, size) }

func main() {}
