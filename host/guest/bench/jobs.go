package bench

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Limits of a measured job.
const (
	maxJobChunks = 2_000_000
	maxJobBytes  = 256 << 20
)

// Job runs the module over the chunks of a file, a CBOR sequence without ids, with
// the given number of workers, and stores nothing. modules has the compiled module.
type Job func(ctx context.Context, modules *runtime.Runtime, file string, workers int) (JobTimes, error)

// JobTimes divides the time of a job, in seconds.
type JobTimes struct {
	Workers   int
	Chunks    int
	Attempts  int
	Scan      float64
	Compile   float64
	Prepare   float64
	Execute   float64
	Fold      float64
	FoldCalls float64 // calls of aggregate and merge during Execute, summed over all workers
	Memory    uint64  // the largest memory of a guest, in bytes
}

// Rate is the speed of a whole job. Times are in seconds.
type Rate struct {
	Workers int     `json:"workers"`
	Chunks  int     `json:"chunks"`
	Rate    float64 `json:"rate"`    // chunks per second
	Gain    float64 `json:"gain"`    // relative to the fewest workers that were measured
	Seconds float64 `json:"seconds"` // of the job
	Scan    float64 `json:"scan"`    // a part of Seconds, like all that follow
	Prepare float64 `json:"prepare"`
	Calls   float64 `json:"calls"` // resets and calls, as measured one by one just before, divided by the workers
	Host    float64 `json:"host"`  // the rest of execution
	Fold    float64 `json:"fold"`  // calls of aggregate and merge; those during execution divided by the workers
}

// jobs measures jobs.
func (b *run) jobs(ctx context.Context, modules *runtime.Runtime, module *runtime.Module) error {
	fresh := &caller{Options: b.Options, chunks: b.chunks}
	if _, err := fresh.prepare(ctx, module, runtime.IsolationReset); err != nil {
		return err
	}
	defer fresh.close()
	file, err := b.writeChunks(ctx)
	if err != nil {
		return err
	}
	for _, workers := range workerCounts(b.Workers) {
		b.Step(Jobs, workers)
		rate, err := b.rate(ctx, fresh, func() (JobTimes, error) { return b.Job(ctx, modules, file, workers) })
		if err != nil {
			return err
		}
		if rate.Gain = 1; len(b.report.Scale) > 0 {
			rate.Gain = rate.Rate / b.report.Scale[0].Rate
		}
		b.report.Scale = append(b.report.Scale, rate)
	}
	return nil
}

// workerCounts returns 1, 2, 4 and so on, up to the most.
func workerCounts(most int) (all []int) {
	for n := 1; n < most; n *= 2 {
		all = append(all, n)
	}
	return append(all, most)
}

// rate returns the rate of the median job. The duration of a call is measured again
// before each job, because the speed of a machine varies.
func (b *run) rate(ctx context.Context, fresh *caller, job func() (JobTimes, error)) (Rate, error) {
	var all []Rate
	for range b.Rounds {
		call, err := fresh.round(ctx, b.Time/time.Duration(b.Rounds))
		if err != nil {
			return Rate{}, err
		}
		times, err := job()
		if err != nil {
			return Rate{}, err
		}
		all = append(all, times.rate(call))
		b.report.Memory = max(b.report.Memory, times.Memory)
	}
	slices.SortFunc(all, func(a, b Rate) int { return cmp.Compare(a.Seconds, b.Seconds) })
	return all[len(all)/2], nil
}

// rate divides the time of a job, given the duration of a call.
func (t *JobTimes) rate(call float64) Rate {
	workers := float64(t.Workers)
	folding := min(t.FoldCalls/workers, t.Execute)
	r := Rate{
		Workers: t.Workers, Chunks: t.Chunks, Seconds: t.Scan + t.Compile + t.Prepare + t.Execute + t.Fold,
		Scan: t.Scan, Prepare: t.Compile + t.Prepare, Fold: t.Fold + folding,
		Calls: min(call*float64(t.Attempts)/workers, t.Execute-folding),
	}
	r.Host = t.Execute - r.Calls - folding
	r.Rate = float64(r.Chunks) / r.Seconds
	return r
}

// writeChunks writes the chunks of a job of about the right duration, by repeating
// the measured chunks.
func (b *run) writeChunks(ctx context.Context) (path string, err error) {
	path = filepath.Join(b.dir, "chunks.cbor")
	file, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	w := bufio.NewWriter(file)
	n, size := min(max(b.Time.Seconds()/(b.report.Call+b.report.Reset), 1), maxJobChunks), 0
	for n >= 1 && size < maxJobBytes {
		err := b.chunks.Read(ctx, 0, int(min(n, float64(b.chunks.Len()))), func(_ int, chunk []byte) error {
			if n, size = n-1, size+len(chunk); size > maxJobBytes && size > len(chunk) {
				return errEnough
			}
			_, err := w.Write(chunk)
			return err
		})
		if err != nil && !errors.Is(err, errEnough) {
			return "", err
		}
	}
	return path, w.Flush()
}
