package check

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Call is one call of the module.
type Call struct {
	Name     string // name in reports, such as "chunk 7"
	Function string // exec, aggregate or merge: see package abi
	Input    []byte
}

// ErrNoCalls reports that there are no chunks to call the module with.
var ErrNoCalls = errors.New("no chunks to call the module with")

// samples is the number of integers of [Samples].
const samples = 20

// Samples returns calls of exec for the integers 0 to 19. For a WASI command, which
// reads text, each integer is a line.
func Samples(_ context.Context, d *runtime.Description) ([]Call, error) {
	var calls []Call
	for n := range uint64(samples) {
		chunk := abi.AppendHead(nil, abi.MajorUint, n)
		if d.Command {
			chunk = abi.AppendText(nil, strconv.FormatUint(n, 10)+"\n")
		}
		calls = append(calls, exec(abi.IntID(n), chunk))
	}
	return calls, nil
}

// ReadCalls returns calls of exec for the first chunks of a file, in id order, at
// most the given number. It copies the chunks. The error is [ErrNoCalls], or comes
// from the file or from ctx.
func ReadCalls(ctx context.Context, file *chunks.File, most int) (calls []Call, err error) {
	n := min(file.Len(), most)
	if n < 1 {
		return nil, ErrNoCalls
	}
	err = file.Read(ctx, 0, n, func(i int, chunk []byte) error {
		calls = append(calls, exec(file.ID(i), bytes.Clone(chunk)))
		return nil
	})
	return calls, err
}

func exec(id abi.ID, chunk []byte) Call {
	return Call{fmt.Sprintf("chunk %v", id), abi.ExportExec, chunk}
}

// Names of calls that other code looks for.
const (
	aggregateOfAll = "aggregate of all outputs"
	mergeOfHalves  = "merge of two halves"
)

// maxFolded limits the size of all outputs that aggregate is called with, in bytes.
const maxFolded = 64 << 20

// folds returns calls of aggregate with no output, with all outputs, and with each
// half of them; or no calls if the outputs are too large.
func folds(results []guest.CallResult) []Call {
	var outputs [][]byte
	size := 0
	for _, r := range results {
		if r.Failure == nil {
			outputs = append(outputs, r.Output)
			size += len(r.Output)
		}
	}
	if size > maxFolded {
		return nil
	}
	n := len(outputs)
	calls := []Call{aggregate("aggregate of nothing", outputs, 0, 0)}
	if n > 0 {
		calls = append(calls, aggregate(aggregateOfAll, outputs, 0, n))
	}
	if n > 1 {
		calls = append(calls, aggregate("aggregate of the first half", outputs, 0, n/2), aggregate("aggregate of the second half", outputs, n/2, n))
	}
	return calls
}

// aggregate returns a call for some outputs, whose ids are their positions.
func aggregate(name string, outputs [][]byte, from, to int) Call {
	ids := []abi.ID{}
	for n := from; n < to; n++ {
		ids = append(ids, abi.IntID(uint64(n)))
	}
	return Call{name, abi.ExportAggregate, guest.AggregateInput(ids, outputs[from:to])}
}

// merge returns a call for the results of aggregate for both halves, if these are
// the last of four successful calls.
func merge(results []guest.CallResult) []Call {
	if len(results) != 4 || results[2].Failure != nil || results[3].Failure != nil {
		return nil
	}
	return []Call{{mergeOfHalves, abi.ExportMerge, guest.MergeInput([][]byte{results[2].Output, results[3].Output})}}
}
