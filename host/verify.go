package host

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Verify says that some chunks are executed twice: each that gave an output,
// before that is stored, on an instance of its own that is made for it. Which
// chunks, their bytes and the job's seed decide. Outputs that were stored before
// are not executed, and so are not verified.
type Verify struct {
	Share float64 // of the chunks, above 0 and at most 1
	// Engine makes the second execution; nil is the coordinator's own. It is not
	// closed by the coordinator.
	Engine Engine
}

// secondTime is how many times longer than the first a second execution may
// take: it may be on an interpreter.
const secondTime = 100

// DifferenceError says that a chunk was executed twice and came to two ends. The
// output was not stored.
type DifferenceError struct {
	ID            abi.ID
	First, Second []byte // outputs; Second is nil with Failure
	Fuel          [2]uint64
	Failure       *abi.Failure // of the second execution
}

func (e *DifferenceError) Error() string {
	what := "gave two outputs"
	switch {
	case e.Failure != nil:
		what = fmt.Sprintf("gave an output, and then failed: %v", e.Failure)
	case bytes.Equal(e.First, e.Second):
		what = fmt.Sprintf("used fuel %d, and then %d", e.Fuel[0], e.Fuel[1])
	}
	return fmt.Sprintf("chunk %v was executed twice and %s: the module is no function of its chunk, an engine is wrong, or this machine is broken", e.ID, what)
}

// second is how chunks are executed again.
type second struct {
	pool  Pool
	seed  uint64
	below uint64 // a chunk whose number is no greater is executed again
}

// prepareSecond makes what executes chunks again, where that is asked for.
func (r *run) prepareSecond(ctx context.Context) error {
	if r.Verify == nil {
		return nil
	}
	module := r.module
	if r.Verify.Engine != nil {
		var err error
		if module, err = r.Verify.Engine.Admit(ctx, r.Job.Module, r.Options); err == nil {
			err = module.Compile(ctx)
		}
		if err != nil {
			return err
		}
	}
	s := r.Settings
	s.Isolation = runtime.IsolationInstance
	s.Timeout = longer(s.Timeout)
	s.FoldTimeout = longer(s.FoldTimeout)
	pool, err := module.Prepare(ctx, s)
	if err != nil {
		return err
	}
	r.second = &second{pool: pool, seed: s.Seed, below: math.MaxUint64}
	if below := math.Ldexp(r.Verify.Share, 64); below < math.MaxUint64 {
		r.second.below = uint64(below)
	}
	return nil
}

func longer(d time.Duration) time.Duration {
	if d > math.MaxInt64/secondTime {
		return math.MaxInt64
	}
	return d * secondTime
}

// close closes the pool. On nil it does nothing.
func (s *second) close() error {
	if s == nil {
		return nil
	}
	return s.pool.Close()
}

// has reports whether a chunk is executed again. Over all chunks there are, the
// numbers are spread evenly.
func (s *second) has(chunk store.Digest) bool {
	if s == nil {
		return false
	}
	b := append([]byte("wasm-jobs verify 1\n"), chunk[:]...)
	sum := sha256.Sum256(binary.BigEndian.AppendUint64(b, s.seed))
	return binary.BigEndian.Uint64(sum[:]) <= s.below
}

// again executes a chunk once more and compares. Any error but that of ctx is a
// *[DifferenceError].
func (w *worker) again(ctx context.Context, i int, chunk, output []byte, fuel uint64) (err error) {
	if w.checker == nil {
		w.checker = w.job.second.pool.Lease(nil)
	}
	var used uint64
	w.checked, used, err = w.checker.Call(ctx, abi.ExportExec, chunk, w.checked[:0])
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err == nil && used == fuel && bytes.Equal(output, w.checked) {
		w.result.verified++
		return nil
	}
	e := &DifferenceError{ID: w.job.Chunks.ID(i), First: bytes.Clone(output), Fuel: [2]uint64{fuel, used}}
	switch failure, failed := errors.AsType[*abi.Failure](err); {
	case failed:
		e.Failure = failure
	case err != nil:
		e.Failure = abi.Failf(abi.ClassHost, "%v", err)
	default:
		e.Second = bytes.Clone(w.checked)
	}
	return e
}
