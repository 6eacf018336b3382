package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

func infoCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "info", Usage: "show one chunk of a job: state, attempts, output and fuel",
		UsageText: "wasm-jobs info [--store DIR] [--json] JOB CHUNK\n\nCHUNK is a chunk's id; put a text that looks like a number in double quotes.\n\nExample: wasm-jobs info 3f2a 17",
		ArgsUsage: "JOB CHUNK",
		Flags:     []cli.Flag{storeFlag(), jsonFlag()},
		Action: func(ctx *cli.Context) error {
			id, err := chunkArgument(ctx, true)
			if err != nil {
				return err
			}
			return withJob(ctx, c, false, func(from recordStore, j *journal.Record) error {
				chunk, err := j.Chunk(ctx.Context, *id)
				if errors.Is(err, journal.ErrNoChunk) {
					return usageErrorf("%w", err)
				}
				if err != nil {
					return storeError(err)
				}
				shared, err := sharedChunk(ctx.Context, from, j, chunk)
				if err != nil {
					return storeError(err)
				}
				if ctx.Bool("json") {
					return outputError(writeJSON(c.out, struct {
						*journal.Chunk
						*postgres.ChunkState
					}{chunk, shared}))
				}
				return outputError(printChunk(c.out, chunk, shared))
			})
		},
	}
}

// sharedChunk reads the fields of a chunk that only jobs that workers share have, nil for
// other jobs.
func sharedChunk(ctx context.Context, from recordStore, j *journal.Record, chunk *journal.Chunk) (*postgres.ChunkState, error) {
	s, ok := from.(*postgres.Store)
	if !ok || j.Record.Shared == nil {
		return nil, nil
	}
	state, err := s.ChunkOf(ctx, j.Record.ID, chunk.Number)
	if err != nil {
		return nil, err
	}
	for i := range chunk.Attempts {
		if a := &chunk.Attempts[i]; a.Host == "" && a.State == "succeeded" {
			a.Host = state.Host // it was leased last for its output
		}
	}
	return &state, nil
}

func printChunk(out io.Writer, chunk *journal.Chunk, shared *postgres.ChunkState) error {
	t := newTable(out)
	t.field("chunk", "%v", chunk.ID)
	t.field("state", "%s", chunk.State)
	switch {
	case chunk.Output != nil:
		t.field("output", "%s, %s, fuel %d", chunk.Output.Digest, plural(chunk.Output.Size, "byte"), chunk.Output.Fuel)
	case chunk.Digest != "":
		t.field("output", "missing: it was damaged or deleted; the next run computes it again")
	}
	if shared != nil {
		printLease(t, shared)
	}
	for _, a := range chunk.Attempts {
		t.field("attempt", "%s", attemptLine(&a))
		for _, frame := range a.Stack {
			t.field("", "    at %s", frame)
		}
		for _, line := range a.Logs {
			t.field("", "    | %s", line)
		}
	}
	return t.flush()
}

// printLease prints who leases a chunk, and what is counted of it.
func printLease(t *table, s *postgres.ChunkState) {
	if s.Deadline != nil {
		t.field("lease", "worker %s on %s, since %s", s.Worker, s.Host, s.Start.Local().Format(time.DateTime))
	} else if s.Worker != "" {
		t.field("last lease", "worker %s on %s", s.Worker, s.Host)
	}
	if s.Failures+s.Requeues+s.Losses > 0 {
		t.field("counted", "failures %d, requeues %d, lost workers %d", s.Failures, s.Requeues, s.Losses)
	}
}

// fuelText formats an amount of fuel, which may be a lower bound.
func fuelText(fuel uint64, atLeast bool) string {
	if atLeast {
		return fmt.Sprintf("at least %d", fuel)
	}
	return fmt.Sprint(fuel)
}

func attemptLine(a *journal.Attempt) string {
	line := fmt.Sprintf("%d of run %d: %s", a.Attempt, a.Run, a.State)
	if a.State == "reused" {
		return fmt.Sprintf("run %d: the output was in the store", a.Run)
	}
	if a.Class != "" {
		line += fmt.Sprintf(" (%s: %s)", a.Class, failureMessage(abi.Class(a.Class), a.Message))
	}
	if a.Fuel > 0 {
		line += ", fuel " + fuelText(a.Fuel, a.FuelAtLeast)
	}
	where := fmt.Sprintf(", worker %d", a.Worker)
	if a.Host != "" {
		where += " on " + a.Host
	}
	return line + where + fmt.Sprintf(", %s, %v", a.Start.Local().Format("2006-01-02 15:04:05.000"), a.End.Sub(a.Start).Round(time.Microsecond))
}
