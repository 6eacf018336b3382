package main

import (
	"bufio"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/report"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
)

func reportCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "report", Usage: "show how a job went: times, distributions, failures, slowest chunks",
		UsageText: `wasm-jobs report [--store DIR] [--json] [-o FILE] [JOB]

JOB is an id or the beginning of one; the default is the job with the latest run.
Without -o, the report is text on stdout. run --report writes the same.

Example: wasm-jobs report 3f2a
         wasm-jobs report 3f2a -o report.html`,
		ArgsUsage: "[JOB]",
		Flags: []cli.Flag{storeFlag(), jsonFlag(),
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the report to `FILE`: a page if it ends in .html, text if it ends in .txt, otherwise JSON"},
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			path := ctx.String("output")
			if ctx.Bool("json") && path != "" && reportForm(path) != jsonForm {
				return usageErrorf("--json and -o %s exclude each other: give one of them", path)
			}
			return withJob(ctx, c, true, func(_ recordStore, j *journal.Record) error {
				d, err := recordedReport(ctx.Context, j, false)
				if err != nil {
					return err
				}
				return outputError(placeReport(ctx, c, d, path))
			})
		},
	}
}

// placeReport writes a report to a file, or to stdout if path is empty.
func placeReport(ctx *cli.Context, c *console, d *report.Document, path string) error {
	if path == "" || path == "-" {
		name := "stdout.txt"
		if ctx.Bool("json") || path == "-" {
			name = "stdout.json"
		}
		return atomicfile.To(c.out).Write(func(w *bufio.Writer) error { return writeReport(w, d, name) })
	}
	file, err := atomicfile.Create(path)
	if err != nil {
		return err
	}
	defer file.Discard()
	return file.Write(func(w *bufio.Writer) error { return writeReport(w, d, path) })
}
