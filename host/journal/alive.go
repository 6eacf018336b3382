package journal

import (
	"context"
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// silence is the time without a sign of life after which a run counts as ended; it
// gives one each second.
const silence = 30 * time.Second

// Runs is a store of runs.
type Runs interface {
	Runs(ctx context.Context, job store.JobID) ([]store.Run, error)
}

// ReadRuns reads the runs of a job, and finds those without an end whose process exists,
// by number. A process records the end of its run before it ends: if one is gone, the
// runs are read once more, since it may have ended after they were read.
func ReadRuns(ctx context.Context, s Runs, job store.JobID) (runs []store.Run, living map[int]bool, err error) {
	for range 2 {
		if runs, err = s.Runs(ctx, job); err != nil {
			return nil, nil, err
		}
		living = map[int]bool{}
		gone := false
		for i := range runs {
			if run := &runs[i]; run.Ended.IsZero() {
				living[run.Number] = alive(run, time.Now())
				gone = gone || !living[run.Number]
			}
		}
		if !gone {
			break
		}
	}
	return runs, living, nil
}

// alive reports whether the process of a run without an end still exists. If it ran
// on another machine, only its signs of life count.
func alive(run *store.Run, now time.Time) bool {
	if now.Sub(run.Seen) > silence {
		return false
	}
	p := ProcessOf(run)
	host, err := os.Hostname()
	return err != nil || p.Host != host || processExists(p.PID)
}
