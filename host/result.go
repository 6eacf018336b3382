package host

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Result is what a job gave. It reads outputs from the store and chunks from
// the job's file, which must be open while it is used.
type Result struct {
	Report Report
	// Aggregate is what the module made of all outputs: one CBOR item; nil
	// where the module has no aggregate, chunks failed, or the job was stopped.
	Aggregate []byte

	run      *run
	outputs  [sha256.Size]byte
	hashed   bool
	finished bool // before this run
}

// Output is the output of one chunk.
type Output struct {
	ID     abi.ID
	Output []byte // one CBOR item; valid until the next one is asked for
}

// outputBatch is how many outputs are asked for at once.
const outputBatch = 1024

// Outputs yields the outputs there are, in id order. After an error, which may
// be a *[StoreError], an input error or ctx's, the iteration ends. Fewer outputs
// than chunks succeeded are an error too.
func (res *Result) Outputs(ctx context.Context) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		count := 0
		for o, err := range res.outputsFrom(ctx, 0) {
			count++
			if !yield(o, err) || err != nil {
				return
			}
		}
		if missing := res.run.counts.Succeeded - count; missing > 0 {
			yield(Output{}, &StoreError{missingError(missing)})
		}
	}
}

// missingError is a number of outputs that were stored and are not there.
type missingError int

func (n missingError) Error() string {
	return fmt.Sprintf("%d outputs that were stored are missing: run the job again", int(n))
}

// outputsFrom yields the outputs of the chunks from an index on.
func (res *Result) outputsFrom(ctx context.Context, first int) iter.Seq2[Output, error] {
	return func(yield func(Output, error) bool) {
		r := res.run
		var keys []store.Key
		var orders []byte
		left := false
		for from := first; from < r.counts.Total && !left; from += outputBatch {
			to := min(from+outputBatch, r.counts.Total)
			keys, orders = keys[:0], orders[:0]
			err := r.Chunks.Read(ctx, from, to, func(i int, chunk []byte) error {
				start := len(orders)
				orders = r.Chunks.ID(i).AppendOrderKey(orders) // where the store most likely has it
				keys = append(keys, store.Key{Chunk: sha256.Sum256(chunk), Order: orders[start:]})
				return nil
			})
			if err == nil {
				err = r.store.Get(ctx, r.action, keys, func(i int, v store.Value) error {
					if !yield(Output{r.Chunks.ID(from + i), v.Output}, nil) {
						left = true
						return errLeaseOver
					}
					return nil
				})
				if err != nil && ctx.Err() == nil {
					err = &StoreError{err}
				}
			}
			if err != nil && !left {
				yield(Output{}, err)
				return
			}
		}
	}
}

// Failed calls each with the exact bytes of every failed chunk, in id order.
// They may be used until each returns.
func (res *Result) Failed(ctx context.Context, each func(f *ChunkFailure, chunk []byte) error) error {
	for i := range res.Report.Failures {
		f := &res.Report.Failures[i]
		err := res.run.Chunks.Read(ctx, f.Index, f.Index+1, func(_ int, chunk []byte) error {
			return each(f, chunk)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Bundle returns what is needed to run a failed chunk again: f and chunk are as
// Failed gives them, and the bundle refers to chunk.
func (res *Result) Bundle(f *ChunkFailure, chunk []byte) *bundle.Bundle {
	j := res.run.Job
	b := &bundle.Bundle{
		ID: f.ID, Chunk: chunk, Module: bundle.Module{SHA256: res.run.module.Digest(), Size: len(j.Module)},
		Options: j.Options, Settings: j.Settings, Failure: *f.Last,
	}
	for _, d := range j.Settings.Command.Dirs {
		b.Dirs = append(b.Dirs, bundle.Dir{Guest: d.Guest, Digest: d.Tree.Digest()})
	}
	return b
}

// WriteDeadLetter writes the failed chunks' bytes, in id order, as one CBOR
// array: a chunk file.
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

// HasAggregate reports whether the outputs are folded. Where they are
// not, the outputs are the job's result.
func (res *Result) HasAggregate() bool {
	return res.run.module != nil && res.run.aggregates()
}

// ChunkFailure is a chunk that failed for good.
type ChunkFailure struct {
	ID abi.ID `json:"id"`
	abi.Failure
	Attempts int `json:"attempts"`
	Index    int `json:"-"` // of the chunk in id order
	// Last is how the last attempt ended, with its fuel and without what the
	// host adds to the message.
	Last *abi.Failure `json:"-"`
}

// Phases says how long each phase took, in seconds.
type Phases struct {
	Scan    float64 `json:"scan"` // of the chunk file; whoever scanned it fills this in
	Compile float64 `json:"compile"`
	Prepare float64 `json:"prepare"`
	Execute float64 `json:"execute"`
	Fold    float64 `json:"fold"`
	// FoldCalls is how long workers were folding while chunks were executed: a
	// part of Execute times workers, and of no other phase.
	FoldCalls float64 `json:"fold_calls"`
}

func (p *Phases) add(phase string, d time.Duration) {
	switch phase {
	case "compile":
		p.Compile += d.Seconds()
	case "prepare":
		p.Prepare += d.Seconds()
	case "execute":
		p.Execute += d.Seconds()
	case "fold":
		p.Fold += d.Seconds()
	}
}

// Report is what happened in a job, as JSON for other programs.
type Report struct {
	Job    string `json:"job,omitempty"`   // its id in the store; empty where it keeps no records
	State  string `json:"state"`           // as in package jobs
	Error  string `json:"error,omitempty"` // why the job did not come to its end
	Module struct {
		Path   string `json:"path,omitempty"` // as given; whoever read the file fills this in
		SHA256 string `json:"sha256"`
	} `json:"module"`
	Chunks      Counts         `json:"chunks"`
	Attempts    int            `json:"attempts"`
	Retries     int            `json:"retries"`
	Verified    int            `json:"verified,omitempty"` // chunks that were executed twice, with the same output
	Fuel        uint64         `json:"fuel"`               // of the calls that gave outputs and the aggregate
	Isolation   Isolation      `json:"isolation"`
	Instances   runtime.Stats  `json:"instances"`
	Failures    []ChunkFailure `json:"failures"` // in id order
	Digests     Digests        `json:"digests"`
	Phases      Phases         `json:"phases"`
	Workers     int            `json:"workers"`
	Store       *StoreReport   `json:"store,omitempty"` // of a durable store; whoever opened it fills this in
	Interrupted bool           `json:"interrupted"`
}

// Isolation says how calls got fresh state.
type Isolation struct {
	Mode runtime.Isolation `json:"mode"`
	// Reasons say what the module does that no reset undoes.
	Reasons []string `json:"reasons,omitempty"`
}

// StoreReport says what the job cost in a durable store.
type StoreReport struct {
	Path    string `json:"path"`
	Puts    int64  `json:"puts"`    // batches
	Commits int64  `json:"commits"` // durable transactions
	Syncs   int64  `json:"syncs"`   // fsyncs
	Bytes   int64  `json:"bytes"`   // of outputs
}

// Digests are "sha256:" and 64 hex digits, or empty where there is none.
type Digests struct {
	Module    string `json:"module"`
	Input     string `json:"input"`
	Outputs   string `json:"outputs,omitempty"`
	Aggregate string `json:"aggregate,omitempty"`
}

func digest(sum [sha256.Size]byte) string { return "sha256:" + hex.EncodeToString(sum[:]) }

func (r *run) report(res *Result, err error) (report Report) {
	r.phases.add(r.phase, time.Since(r.phaseAt))
	r.phase = ""
	slices.SortFunc(r.failures, func(a, b ChunkFailure) int { return cmp.Compare(a.Index, b.Index) })
	sum := r.module.Digest()
	report.Module.SHA256 = hex.EncodeToString(sum[:])
	report.Chunks, report.Attempts, report.Retries, report.Fuel = r.counts, r.attempts, r.retries, r.fuel+r.foldFuel
	report.Verified = r.verified
	report.State, report.Error = r.state(err), reason(err)
	if r.records != nil {
		report.Job = jobs.Name(r.records.run.Job)
	}
	report.Isolation = r.isolation
	if r.pool != nil {
		report.Instances = r.pool.Stats()
		if r.second != nil {
			s := r.second.pool.Stats()
			report.Instances.Created += s.Created
			report.Instances.Resets += s.Resets
			report.Instances.Closed += s.Closed
			report.Instances.Memory = max(report.Instances.Memory, s.Memory)
		}
	} else if init, failed := errors.AsType[*runtime.InitError](err); failed {
		report.Instances = init.Instances
	}
	report.Failures = append([]ChunkFailure{}, r.failures...)
	report.Phases, report.Workers, report.Interrupted = r.phases, r.config.Workers, errors.Is(err, ErrInterrupted)
	report.Digests = Digests{Module: digest(sum), Input: digest(r.Chunks.Digest())}
	if res.hashed {
		report.Digests.Outputs = digest(res.outputs)
	}
	if res.Aggregate != nil {
		report.Digests.Aggregate = digest(sha256.Sum256(res.Aggregate))
	}
	return report
}
