// Package verify checks a receipt by executing its job: either all chunks,
// which checks every digest in it, or a sample, whose outputs are proved to be
// in the receipt's tree.
//
// The caller sets up the job with the receipt's settings, within its own
// [Limits], and checks that the module and the input are the receipt's. An
// [Executor] runs the job. A receipt is data and never decides what is allowed.
//
//	if err := (verify.Limits{}).Check(&r.Settings); err != nil {
//		return err // it asks for more than is allowed here
//	}
//	result, err := verify.All(ctx, r, executor, nil)
//	if err != nil {
//		return err // nothing is known
//	}
//	if !result.Holds() {
//		fmt.Println(result.Differences, result.Chunks.Count)
//	}
//	for _, note := range result.Notes {
//		fmt.Println("note:", note) // what was not checked
//	}
package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Executor runs the job of a receipt, without any outputs that were stored
// before. Failed chunks are not errors.
type Executor interface {
	// All executes all chunks and folds their outputs.
	All(ctx context.Context) (*Execution, error)
	// Some executes the chunks with the given numbers, in ascending order. It
	// does not fold.
	Some(ctx context.Context, numbers []uint64) (*Execution, error)
}

// Execution is the result of an executor.
type Execution struct {
	Executed int            // chunks, including failed ones
	Engine   receipt.Engine // of this execution
	Outputs  func(ctx context.Context) outputs.Seq
	Failures []Failure // in id order, of the chunks that have no output
	// Receipt is the receipt of the execution, if all chunks were executed and
	// none failed; otherwise nil.
	Receipt *receipt.Receipt
}

// Failure is the failure of a chunk.
type Failure struct {
	ID abi.ID
	*abi.Failure
}

// Input has the chunks of the job, numbered from 0 in id order.
type Input interface {
	Len() int
	ID(i int) abi.ID // ids ascend
}

// Expected are the outputs that a job is claimed to have, from a file or a
// store.
type Expected struct {
	Name  string // for people
	Most  int64  // upper bound of their number
	All   func(ctx context.Context) outputs.Seq
	Close func() error
}

// Finder opens expected outputs, which the caller closes. It returns nil if
// there are none.
type Finder func(ctx context.Context) (*Expected, error)

// HostError is returned if a chunk failed with class host when it was executed again:
// that is a failure of this machine, and tells nothing about the receipt.
type HostError struct {
	ID      abi.ID
	Failure *abi.Failure
}

func (e *HostError) Error() string {
	return fmt.Sprintf("chunk %v was not executed, so the receipt is neither confirmed nor refuted: %v", e.ID, e.Failure)
}

// Unwrap returns the failure.
func (e *HostError) Unwrap() error { return e.Failure }

// ErrNoOutputs is returned if the proofs of a sample need the outputs of the
// other chunks, and none are found.
var ErrNoOutputs = errors.New("the outputs of the other chunks are needed to prove the outputs of a sample")

// Result is the result of a verification.
type Result struct {
	Sample   bool
	Executed int
	Proved   int    // outputs of a sample that are in the receipt's tree
	Outputs  string // name of the outputs that were compared; "" = none
	// Differences are differences of fields: A is the receipt's value, B the
	// value found.
	Differences []receipt.Difference
	Chunks      ChunkDifferences
	Notes       []Note
	Execute     time.Duration // chunks, and their fold if all were executed
	Compare     time.Duration // the part of it after the execution
}

// Holds reports whether the receipt holds, as far as it was checked.
func (r *Result) Holds() bool {
	return len(r.Differences) == 0 && r.Chunks.Count == 0 && (!r.Sample || r.Proved == r.Executed)
}

// Noted reports whether there is a note of a kind.
func (r *Result) Noted(kind NoteKind) bool {
	for _, n := range r.Notes {
		if n.Kind == kind {
			return true
		}
	}
	return false
}

// All executes all chunks. If something differs, it calls find, which may be
// nil, for the outputs that show which chunks differ.
func All(ctx context.Context, r *receipt.Receipt, x Executor, find Finder) (*Result, error) {
	return all(ctx, r, x, find, false)
}

// Against executes all chunks, and compares each output with the expected one
// even if the receipt holds.
func Against(ctx context.Context, r *receipt.Receipt, x Executor, find Finder) (*Result, error) {
	return all(ctx, r, x, find, true)
}

func all(ctx context.Context, r *receipt.Receipt, x Executor, find Finder, always bool) (*Result, error) {
	result := newResult()
	run, err := result.execute(func() (*Execution, error) { return x.All(ctx) })
	if err != nil {
		return nil, err
	}
	started := time.Now()
	defer func() { result.Compare = time.Since(started) }()
	if run.Receipt != nil {
		result.compareReceipts(r, run.Receipt)
	}
	if !always && run.Receipt != nil && len(result.Differences) == 0 {
		return result, nil
	}
	return result, result.compareAll(ctx, r, run, find)
}

func newResult() *Result {
	return &Result{Differences: []receipt.Difference{}, Chunks: ChunkDifferences{Listed: []ChunkDifference{}}}
}

func (r *Result) execute(run func() (*Execution, error)) (*Execution, error) {
	started := time.Now()
	defer func() { r.Execute = time.Since(started) }()
	x, err := run()
	if err != nil {
		return nil, err
	}
	for _, f := range x.Failures {
		if f.Class == abi.ClassHost {
			return nil, &HostError{f.ID, f.Failure}
		}
	}
	r.Executed = x.Executed
	return x, nil
}

// compareReceipts records the fields in which the receipt differs from the
// receipt of the execution.
func (r *Result) compareReceipts(of, again *receipt.Receipt) {
	fuel := of.Engine.Metering == again.Engine.Metering
	for _, d := range receipt.Compare(of, again) {
		switch {
		case d.Engine():
			r.note(Note{Kind: OtherEngine, Field: d.Field, Have: d.A, Here: d.B})
		case d.Field == "fuel" && !fuel:
		default:
			r.Differences = append(r.Differences, d)
		}
	}
	if !fuel {
		r.note(Note{Kind: FuelNotCompared})
	}
}

// compareAll adds the chunks that failed or whose outputs differ from the
// expected ones.
func (r *Result) compareAll(ctx context.Context, of *receipt.Receipt, run *Execution, find Finder) error {
	expected, err := open(ctx, find)
	if err != nil {
		return err
	}
	if expected == nil {
		r.note(Note{Kind: ChunksUnknown})
		return r.compareChunks(func(func(outputs.Output, error) bool) {}, func(func(outputs.Output, error) bool) {}, run.Failures)
	}
	defer expected.Close()
	r.Outputs = expected.Name
	tree := newTreeOf(expected.All(ctx))
	defer tree.close()
	if err := r.compareChunks(tree.all, run.Outputs(ctx), run.Failures); err != nil {
		return err
	}
	if root := tree.root(); root != of.Outputs {
		r.note(Note{Kind: OtherOutputs, Name: expected.Name, Root: root})
	}
	return nil
}

func open(ctx context.Context, find Finder) (*Expected, error) {
	if find == nil {
		return nil, nil
	}
	return find(ctx)
}

// compareChunks adds the chunks whose expected outputs differ from those of an
// execution, and the chunks that failed.
func (r *Result) compareChunks(expected, found outputs.Seq, failures []Failure) error {
	for d, err := range outputs.Compare(expected, found) {
		if err != nil {
			return err
		}
		for len(failures) > 0 && failures[0].ID.Compare(d.ID) < 0 {
			r.Chunks.Add(failures[0].ID, nil, nil, failures[0].Failure)
			failures = failures[1:]
		}
		var failure *abi.Failure
		if len(failures) > 0 && failures[0].ID == d.ID {
			failure, failures = failures[0].Failure, failures[1:]
		}
		r.Chunks.Add(d.ID, d.A, d.B, failure)
	}
	for _, f := range failures {
		r.Chunks.Add(f.ID, nil, nil, f.Failure)
	}
	return nil
}
