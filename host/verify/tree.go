package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// treeOf hashes outputs as they pass.
type treeOf struct {
	digester *merkle.Digester
	all      outputs.Seq // can be read once
}

func newTreeOf(all outputs.Seq) *treeOf {
	t := &treeOf{digester: merkle.NewDigester(nil)}
	t.all = func(yield func(outputs.Output, error) bool) {
		for o, err := range all {
			if err == nil {
				t.digester.Add(o.ID, o.Output)
			}
			if !yield(o, err) {
				return
			}
		}
	}
	return t
}

// root returns the digest of the outputs that were read.
func (t *treeOf) root() receipt.Digest { return t.digester.Root() }

func (t *treeOf) close() { t.digester.Close() }

// Digest returns the digest of outputs, as in a receipt, and their number.
func Digest(all outputs.Seq) (receipt.Digest, uint64, error) {
	t := newTreeOf(all)
	defer t.close()
	for _, err := range t.all {
		if err != nil {
			return receipt.Digest{}, 0, err
		}
	}
	root := t.root()
	return root, t.digester.Len(), nil
}

// ErrNoChunk is returned if a job has no chunk with an id.
var ErrNoChunk = errors.New("the receipt's job has no chunk")

// OutputsError is returned if outputs are not those of a receipt.
type OutputsError struct {
	Name       string // of the outputs
	Have, Want receipt.Digest
}

func (e *OutputsError) Error() string {
	return fmt.Sprintf("the outputs in %s are not those of the receipt, and prove nothing: digest %v, want %v", e.Name, e.Have, e.Want)
}

// Prove returns a proof that the output of a chunk belongs to the job of a
// receipt. It reads all outputs. The error is an *[OutputsError] or wraps
// [ErrNoChunk].
func Prove(ctx context.Context, expected *Expected, r *receipt.Receipt, id abi.ID) (*receipt.Proof, error) {
	var prover merkle.Prover
	var output []byte
	index := uint64(0)
	for o, err := range expected.All(ctx) {
		if err != nil {
			return nil, err
		}
		if o.ID == id {
			prover.Keep()
			index, output = prover.Len(), append([]byte{}, o.Output...)
		}
		prover.AddEntry(o.ID, o.Output)
	}
	if root := receipt.Digest(prover.Root()); root != r.Outputs {
		return nil, &OutputsError{expected.Name, root, r.Outputs}
	}
	if output == nil {
		return nil, fmt.Errorf("%w %v", ErrNoChunk, id)
	}
	p, err := prover.Proof(index)
	if err != nil {
		return nil, err
	}
	return receipt.NewProof(id, output, p), nil
}
