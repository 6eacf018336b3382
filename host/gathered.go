package host

import (
	"context"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Gathered is the work that others did on a job, such as the workers of a shared store.
// Only the fold is left to do.
type Gathered struct {
	Succeeded int // chunks whose outputs are in the store
	Failed    []GatheredFailure
	Reused    int // of Succeeded
	Attempts  int
	// Some means that there may be fewer outputs than Succeeded, because the
	// job ended early or still runs.
	Some bool
	// Fold allows the fold of the outputs, unless that was done before. Without
	// it no guest is called: the aggregate is the one in the store, or there is
	// none.
	Fold bool
	// Outputs, if not nil, yields the outputs of all chunks from an index on, in id
	// order. Otherwise they are looked up in the store by the bytes of their chunks.
	Outputs func(ctx context.Context, first int) iter.Seq2[store.Value, error]
	// Err is the error that ended the job, or nil. Run returns it.
	Err error
}

// GatheredFailure is a chunk that failed permanently.
type GatheredFailure struct {
	Chunk    int // index in id order
	Failure  *abi.Failure
	Attempts int
}

// Gather ends a job whose chunks others have executed and whose outputs are in the
// store: it folds them, unless that was done before, and makes the result. The errors are
// the errors of Run, and Err of g.
func (c *Coordinator) Gather(ctx context.Context, job *Job, g *Gathered) (*Result, error) {
	return c.run(ctx, job, g)
}
