package cluster

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// EngineName returns the name of this program's engine, as in receipts.
func EngineName() string {
	e := host.ReceiptEngine()
	return fmt.Sprintf("abi %d metering %d wazero %s", e.ABI, e.Metering, e.Wazero)
}

// job is a job of the database that a process has taken in. Its fields do not change,
// except for the cost.
type job struct {
	version version
	record  store.JobRecord
	host.Job
	id   func(int) abi.ID
	pool host.Pool // nil until it is needed

	mu   sync.Mutex
	each time.Duration // time of one chunk; 0 = not known
	size int           // approximate bytes of a chunk
}

// errNotOurs reports a record whose contents do not match its id.
var errNotOurs = errors.New("the job's record is not of the job")

// readJob reads a job, and checks its module, context and directories against the digests
// in its record.
func readJob(ctx context.Context, record store.JobRecord, s source, shared Blobs) (*job, error) {
	asked, err := spec.Parse(record.Spec)
	if err != nil {
		return nil, err
	}
	if err := asked.Validate(); err != nil {
		return nil, err
	}
	if store.Action(asked.Action()) != record.Action || store.JobID(asked.ID()) != record.ID {
		return nil, errNotOurs
	}
	j := &job{record: record, Job: *host.JobOf(asked)}
	if j.Module, err = readFile(ctx, s, shared, roleModule); err != nil {
		return nil, err
	}
	if spec.Digest(sha256.Sum256(j.Module)) != asked.Module.Digest {
		return nil, errDamaged
	}
	if asked.Context != "" {
		if j.Settings.Context, err = readFile(ctx, s, shared, roleContext); err != nil {
			return nil, err
		}
		if spec.Digest(sha256.Sum256(j.Settings.Context)) != asked.Context {
			return nil, errDamaged
		}
	}
	if err := j.readDirs(ctx, asked, s, shared); err != nil {
		return nil, err
	}
	j.id, err = readIDs(ctx, s, record.Total)
	return j, err
}

func (j *job) readDirs(ctx context.Context, asked *spec.Spec, s source, shared Blobs) error {
	if asked.Settings.Command == nil {
		return nil
	}
	for i, d := range asked.Settings.Command.Dirs {
		b, err := readFile(ctx, s, shared, fmt.Sprint(roleDir, i))
		if err != nil {
			return err
		}
		tree, err := wasi.ParseTree(b)
		if err != nil {
			return fmt.Errorf("%w: %w", errDamaged, err)
		}
		if spec.Digest(tree.Digest()) != d.Digest {
			return errDamaged
		}
		j.Settings.Command.Dirs = append(j.Settings.Command.Dirs, wasi.Dir{Guest: d.Guest, Tree: tree})
	}
	return nil
}

// input returns the job's chunks, read from a source.
func (j *job) input(s source, shared Blobs) *input {
	return &input{source: s, shared: shared, total: j.record.Total, digest: j.record.Input, id: j.id}
}

const (
	// leaseTime is the time that a lease should take. A lease costs about a
	// millisecond, and a worker that dies loses about leaseTime of work.
	leaseTime  = 1500 * time.Millisecond
	leaseBytes = 8 << 20 // of input
)

// measure updates the cost of a chunk with measured attempts.
func (j *job) measure(p queue.Progress) {
	if p.Attempts == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	each := p.Busy / time.Duration(p.Attempts)
	if j.each == 0 {
		j.each = max(each, 1)
	}
	j.each = max(1, j.each+(each-j.each)/4)
}

// want returns the number of chunks that a lease should have.
func (j *job) want() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.each == 0 {
		return 1
	}
	n := min(queue.MaxLease, leaseTime/j.each)
	if j.size > 0 {
		n = min(n, time.Duration(leaseBytes/j.size))
	}
	return max(1, int(n))
}

// sized updates the size of a chunk with the chunks of a lease.
func (j *job) sized(bytes, chunks int) {
	if chunks == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.size = max(1, bytes/chunks)
}
