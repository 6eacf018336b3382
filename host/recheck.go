package host

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Recheck executes some chunks twice. If a chosen chunk gives an output, it is
// executed again before the output is stored, on a new instance that is used
// only for it. The choice depends only on the bytes of the chunk and the job's
// seed. Outputs that were stored before are not rechecked.
type Recheck struct {
	Share float64 // of the chunks; above 0 and at most 1
	// Engine makes the second execution; nil is the coordinator's own engine.
	// The coordinator does not close it.
	Engine Engine
}

// secondTime is the factor by which the second execution may take longer than
// the first, because it may run on an interpreter.
const secondTime = 100

// prepare makes the pool for the second executions of a job.
func (r *Recheck) prepare(ctx context.Context, job *Job, first Module) (Pool, error) {
	module := first
	if r.Engine != nil {
		var err error
		if module, err = r.Engine.Admit(ctx, job.Module, job.Options); err == nil {
			err = module.Compile(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	s := job.Settings
	s.Isolation = runtime.IsolationInstance
	s.Timeout = longer(s.Timeout)
	s.FoldTimeout = longer(s.FoldTimeout)
	return module.Prepare(ctx, s)
}

// by returns the recheck configuration of workers.
func (r *Recheck) by(pool Pool, seed uint64) *worker.Recheck {
	below := uint64(math.MaxUint64)
	if b := math.Ldexp(r.Share, 64); b < math.MaxUint64 {
		below = uint64(b)
	}
	return &worker.Recheck{Pool: pool, Chosen: func(chunk store.Digest) bool { return number(chunk, seed) <= below }}
}

func longer(d time.Duration) time.Duration {
	if d > math.MaxInt64/secondTime {
		return math.MaxInt64
	}
	return d * secondTime
}

// number returns the number of a chunk. The numbers of all possible chunks are
// spread evenly.
func number(chunk store.Digest, seed uint64) uint64 {
	b := append([]byte("wasm-jobs verify 1\n"), chunk[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, seed))
	return binary.BigEndian.Uint64(sum[:])
}
