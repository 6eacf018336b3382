package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cluster"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/stopfile"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func cancelCommand(c *console) *cli.Command {
	command := steerCommand(c, "cancel", "cancelled", "end a job that workers or another process run; outputs are kept, and the same command, or resume, continues it")
	command.UsageText += `

A job of a store in a directory is run by one process: it stops after its running
attempts, within its --grace, and exits with 130.`
	steer := command.Action
	command.Action = func(ctx *cli.Context) error {
		name, err := storeDir(ctx)
		if err == nil && !postgres.IsURL(name) {
			return cancelLocal(ctx, c, name)
		}
		return steer(ctx) // it reports the error
	}
	return command
}

// cancelLocal asks the processes that run a job of a store in a directory to end it, and
// waits until they have ended.
func cancelLocal(ctx *cli.Context, c *console, dir string) error {
	if err := arguments(ctx, 1); err != nil {
		return err
	}
	asked := map[stopfile.Request]time.Time{}
	defer func() {
		for r := range asked {
			_ = r.Withdraw() // of a process that died
		}
	}()
	for {
		var job *journal.Record
		err := withJob(ctx, c, false, func(_ recordStore, j *journal.Record) error {
			job = j
			return nil
		})
		if err != nil {
			return err
		}
		state := job.State()
		if state != journal.Running {
			return reportCancelled(ctx, c, job, state, len(asked) > 0)
		}
		if err := askRuns(c, dir, job, asked); err != nil {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Context.Done():
			return host.ErrInterrupted
		}
	}
}

// answerTime is the time in which a process must take a request.
const answerTime = 10 * time.Second

// askRuns asks the processes of all runs of a job that go on.
func askRuns(c *console, dir string, j *journal.Record, asked map[stopfile.Request]time.Time) error {
	for i := range j.Runs {
		if j.StateOf(&j.Runs[i]) != journal.Running {
			continue
		}
		p := journal.ProcessOf(&j.Runs[i])
		r := stopfile.Request{Store: dir, Job: journal.Name(j.Record.ID), Host: p.Host, PID: p.PID}
		since, known := asked[r]
		switch {
		case !known:
			if err := r.Make(); err != nil {
				return &exitError{exitStore, fmt.Errorf("cannot ask process %d on %s to end the job: %w", p.PID, p.Host, err)}
			}
			asked[r] = time.Now()
			fmt.Fprintf(c.err, "wasm-jobs: asked process %d on %s to end job %s\n", p.PID, p.Host, r.Job[:shortName])
		case time.Since(since) > answerTime && !r.Taken():
			return &exitError{exitStore, fmt.Errorf("process %d on %s does not answer: it is stopped, or of an earlier version; SIGTERM ends it", p.PID, p.Host)}
		}
	}
	return nil
}

// reportCancelled prints the state of a job that is not running.
func reportCancelled(ctx *cli.Context, c *console, j *journal.Record, state string, asked bool) error {
	name := journal.Name(j.Record.ID)
	switch {
	case ctx.Bool("json"):
		return outputError(writeJSON(c.out, steered{name, state}))
	case asked:
		if state != journal.Crashed { // "died"
			state = "is " + state
		}
		fmt.Fprintf(c.err, "wasm-jobs: job %s %s; finished chunks are kept\n", name[:shortName], state)
	default:
		fmt.Fprintf(c.err, "wasm-jobs: job %s is not running: %s\n", name[:shortName], state)
	}
	return nil
}

func pauseCommand(c *console) *cli.Command {
	return steerCommand(c, "pause", "paused", "give out no more leases of a job; running chunks are finished")
}

func resumeCommand(c *console) *cli.Command {
	return steerCommand(c, "resume", "active", "continue a paused or cancelled job")
}

// steerCommand returns a verb that changes the state of a job.
func steerCommand(c *console, verb, state, usage string) *cli.Command {
	return &cli.Command{
		Name: verb, Usage: usage,
		UsageText: fmt.Sprintf("wasm-jobs %s [--store URL] JOB\n\nExample: wasm-jobs %s 3f2a", verb, verb),
		ArgsUsage: "JOB",
		Flags:     sharedFlags(jsonFlag()),
		Action: func(ctx *cli.Context) error {
			return sharedJob(ctx, c, func(s *postgres.Store, j *journal.Record) error {
				now, err := s.SetState(ctx.Context, j.Record.ID, state)
				if err != nil {
					return storeError(err)
				}
				return reportState(ctx, c, j, now, state)
			})
		},
	}
}

// steered is the output of verbs that change the state of a job, with --json.
type steered struct {
	Job   string `json:"job"`
	State string `json:"state"`
}

// reportState prints the new state of a job.
func reportState(ctx *cli.Context, c *console, j *journal.Record, now, wanted string) error {
	name := journal.Name(j.Record.ID)
	if now == "" {
		return usageErrorf("job %s is run by one process, and no workers share it: a signal to that process ends it", name[:shortName])
	}
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, steered{name, now}))
	}
	switch {
	case now != wanted && cluster.Ended(now):
		fmt.Fprintf(c.err, "wasm-jobs: job %s is over: %s\n", name[:shortName], now)
	default:
		fmt.Fprintf(c.err, "wasm-jobs: job %s is %s\n", name[:shortName], now)
	}
	return nil
}
