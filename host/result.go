package host

import (
	"context"
	"crypto/sha256"
	"io"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
)

// Result is the result of a job. It reads outputs from the store and chunks
// from the job's input, which must stay open while the result is in use.
type Result struct {
	Report Report
	// Aggregate is the module's aggregate of all outputs: one CBOR item; nil if
	// the module has no aggregate, chunks failed, or the job was stopped.
	Aggregate []byte

	job      *Job
	module   Module // nil if it was not admitted
	outputs  *outputReader
	root     [sha256.Size]byte // of the outputs
	hashed   bool
	finished bool // by an earlier run
	early    int  // number of outputs that Job.Early got
}

// Outputs yields the existing outputs, in id order. After an error, which may
// be a *[StoreError], an input error or ctx's, the iteration ends. It is an
// error if there are fewer outputs than succeeded chunks.
func (res *Result) Outputs(ctx context.Context) iter.Seq2[Output, error] {
	return res.outputs.all(ctx, 0, res.Report.Chunks.Succeeded)
}

// Rest yields, like Outputs, the outputs that the job's Early did not get. They
// come after all others.
func (res *Result) Rest(ctx context.Context) iter.Seq2[Output, error] {
	return res.outputs.all(ctx, res.early, res.Report.Chunks.Succeeded-res.early)
}

// Failed calls each with the exact bytes of every failed chunk, in id order.
// The bytes are valid until each returns.
func (res *Result) Failed(ctx context.Context, each func(f *ChunkFailure, chunk []byte) error) error {
	for i := range res.Report.Failures {
		f := &res.Report.Failures[i]
		err := res.job.Chunks.Read(ctx, f.Index, f.Index+1, func(_ int, chunk []byte) error {
			return each(f, chunk)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Bundle returns a bundle with which a failed chunk can be run again. f and
// chunk are the arguments of Failed's function; the bundle refers to chunk. Its
// failure is f.Last.
func (res *Result) Bundle(f *ChunkFailure, chunk []byte) *bundle.Bundle {
	j := res.job
	b := &bundle.Bundle{
		ID: f.ID, Chunk: chunk, Module: bundle.Module{SHA256: res.module.Digest(), Size: len(j.Module)},
		Options: j.Options, Settings: j.Settings, Failure: *f.Last, Shortened: f.LastShortened,
	}
	for _, d := range j.Settings.Command.Dirs {
		b.Dirs = append(b.Dirs, bundle.Dir{Guest: d.Guest, Digest: d.Tree.Digest()})
	}
	return b
}

// WriteDeadLetter writes the bytes of the failed chunks, in id order, as one
// CBOR array: a chunk file.
func (res *Result) WriteDeadLetter(ctx context.Context, w io.Writer) error {
	head := abi.AppendHead(nil, abi.MajorArray, uint64(len(res.Report.Failures)))
	if _, err := w.Write(head); err != nil {
		return err
	}
	return res.Failed(ctx, func(_ *ChunkFailure, chunk []byte) error {
		_, err := w.Write(chunk)
		return err
	})
}

// WriteOutputs writes every output as a CBOR sequence of maps with the keys
// "id" and "output", in id order: a chunk file with the same ids.
func (res *Result) WriteOutputs(ctx context.Context, w io.Writer) error {
	var entry []byte
	for o, err := range res.Outputs(ctx) {
		if err != nil {
			return err
		}
		entry = abi.AppendOutput(entry[:0], o.ID, o.Output)
		if _, err := w.Write(entry); err != nil {
			return err
		}
	}
	return nil
}

// HasAggregate reports whether the outputs are folded. If they are not, the
// outputs are the job's result.
func (res *Result) HasAggregate() bool {
	return res.module != nil && res.job.folds(res.module)
}
