package flow

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Recheck has a share of the executed steps of modules executed twice, the second time
// on a new instance. If two results differ, the run ends with a
// *[worker.DifferenceError], and the output is not stored.
type Recheck struct {
	Share float64 // above 0 and at most 1
	// Flow is the same flow with modules of another engine, for the second execution;
	// nil = the modules of the first.
	Flow *Flow
}

// secondTime is the factor by which the second execution may take longer, because it may
// run on an interpreter.
const secondTime = 100

// recheck returns the recheck of a state; nil if it is not a module's, or there is none.
func (l *live) recheck(s *state) (*worker.Recheck, error) {
	if l.Recheck == nil {
		return nil, nil
	}
	exec := s.Exec
	if l.Recheck.Flow != nil {
		exec = l.Recheck.Flow.States[s.index].Exec
	}
	of, ok := exec.(interface{ module() *Module })
	if !ok {
		return nil, nil
	}
	m := of.module()
	pool, err := m.second(l.hard)
	if err != nil {
		return nil, err
	}
	l.pools = append(l.pools, pool)
	// The first steps are as likely to be chosen in each run as all others.
	below, offset := shareOf(l.Recheck.Share), rand.Uint64()
	return &worker.Recheck{Pool: pool, Chosen: func(chunk store.Digest) bool {
		return binary.BigEndian.Uint64(chunk[:])+offset <= below
	}}, nil
}

// second prepares the module for second executions.
func (m *Module) second(ctx context.Context) (Pool, error) {
	s := m.Settings
	s.Isolation = runtime.IsolationInstance
	s.Timeout, s.FoldTimeout = longer(s.Timeout), longer(s.FoldTimeout)
	p, err := m.Prepare(ctx, s)
	if err != nil {
		return nil, err
	}
	return modulePool{p}, nil
}

func longer(d time.Duration) time.Duration {
	if d > math.MaxInt64/secondTime {
		return math.MaxInt64
	}
	return secondTime * d
}

// shareOf returns a share of all numbers.
func shareOf(share float64) uint64 {
	if n := math.Ldexp(share, 64); n < math.MaxUint64 {
		return uint64(n)
	}
	return math.MaxUint64
}
