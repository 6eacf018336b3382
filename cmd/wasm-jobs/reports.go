package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/report"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// reportFlag is the flag that [reportPaths] reads.
func reportFlag() cli.Flag {
	return &cli.StringSliceFlag{Name: "report", KeepSpace: true, Usage: "write a report to `FILE`: a page if it ends in .html, text if it ends in .txt, otherwise JSON; may be given once for each"}
}

// The forms of a report.
const (
	pageForm = "HTML"
	textForm = "text"
	jsonForm = "JSON"
)

// reportForm returns the form of a report in a file.
func reportForm(path string) string {
	switch strings.ToLower(filepath.Ext(packed.Trim(path))) {
	case ".html", ".htm":
		return pageForm
	case ".txt":
		return textForm
	}
	return jsonForm
}

// reportPaths reads --report.
func reportPaths(ctx *cli.Context) ([]string, error) {
	paths := ctx.StringSlice("report")
	taken := map[string]string{}
	for _, path := range paths {
		form := reportForm(path)
		if path == "" {
			return nil, usageErrorf("empty --report: want a file")
		}
		if first, again := taken[form]; again {
			return nil, usageErrorf("duplicate --report: %s and %s are both %s; give one file for each of .json, .html and .txt", first, path, form)
		}
		taken[form] = path
	}
	return paths, nil
}

// flowReportPaths reads --report of flows, whose reports are only JSON.
func flowReportPaths(ctx *cli.Context) ([]string, error) {
	paths, err := reportPaths(ctx)
	for _, path := range paths {
		if form := reportForm(path); form != jsonForm {
			return nil, usageErrorf("invalid --report %s: the report of a flow cannot be %s, only JSON; wasm-jobs flow status shows it as text", path, form)
		}
	}
	return paths, err
}

// writeReport writes a document in the form of a file.
func writeReport(w *bufio.Writer, d *report.Document, path string) error {
	switch reportForm(path) {
	case pageForm:
		return d.WritePage(w)
	case textForm:
		return d.WriteText(w, printable)
	}
	return writeJSON(w, d)
}

// reportOf returns the document of a job that has just run.
func (f *resultFiles) reportOf(result *host.Result) *report.Document {
	d := &report.Document{Report: &result.Report, Started: f.started, Ended: time.Now()}
	if !f.started.IsZero() {
		d.Host, _ = os.Hostname() // it may be missing
	}
	if f.asked != nil {
		d.Name, d.Spec, d.Command, d.Alone = f.asked.Name, &f.asked.Settings, commandOf(f.asked), aloneOf(f.asked)
	}
	var groups report.Grouping
	for i := range result.Report.Failures {
		failed := &result.Report.Failures[i]
		groups.Add(failed.ID, worded(&failed.Failure))
	}
	var bundle func(abi.ID) string
	if f.bundle != "" {
		bundle = func(id abi.ID) string { return filepath.Join(f.bundle, id.FileName()+bundleEnding) }
	}
	d.Groups = groups.Groups(bundle)
	d.Explain()
	return d
}

// recordedReport returns the document of the last run of a job in a store. With brief,
// it lacks the list of failed chunks, and its groups have at most [briefFailures].
func recordedReport(ctx context.Context, j *journal.Record, brief bool) (*report.Document, error) {
	last := j.Last()
	d := &report.Document{
		Report: &host.Report{}, Name: j.Spec.Name, Host: journal.ProcessOf(last).Host, Started: last.Started, Ended: last.Ended,
		Spec: &j.Spec.Settings, Command: commandOf(&j.Spec), Alone: aloneOf(&j.Spec),
	}
	if len(last.Report) == 0 || json.Unmarshal(last.Report, d.Report) != nil {
		if err := unfinishedReport(ctx, j, d.Report); err != nil {
			return nil, err
		}
	}
	d.Job, d.State, d.Module.Path = journal.Name(j.Record.ID), j.State(), j.Spec.Module.Path
	if err := recordedFailures(ctx, j, d, brief); err != nil {
		return nil, err
	}
	d.Explain()
	return d, nil
}

// maxFailureText bounds the texts of the failures of a recorded report, in bytes.
const maxFailureText = 16 << 20

// briefFailures is the number of failed chunks that a brief report looks at.
const briefFailures = 10000

// recordedFailures adds the failed chunks.
func recordedFailures(ctx context.Context, j *journal.Record, d *report.Document, brief bool) error {
	d.Failures, d.FailuresShortened = []host.ChunkFailure{}, 0
	var groups report.Grouping
	left, count := maxFailureText, 0
	err := j.EachFailure(ctx, func(id abi.ID, a *journal.Attempt) bool {
		f := abi.Failure{Class: a.Class, Message: a.Message, Stack: a.Stack, Logs: a.Logs}
		groups.Add(id, worded(&f))
		if count++; brief {
			return count < briefFailures
		}
		for _, text := range slices.Concat(a.Stack, a.Logs, []string{a.Message}) {
			left -= len(text)
		}
		if left < 0 {
			f.Message, f.Stack, f.Logs = "", nil, nil
			d.FailuresShortened++
		}
		d.Failures = append(d.Failures, host.ChunkFailure{ID: id, Failure: f, Attempts: a.Attempt})
		return true
	})
	d.Groups = groups.Groups(nil)
	return storeError(err)
}

// unfinishedReport fills in the report of a run that has none: it goes on, or its
// process died.
func unfinishedReport(ctx context.Context, j *journal.Record, r *host.Report) error {
	_, _, succeeded, failed, err := j.Counts(ctx)
	if err != nil {
		return storeError(err)
	}
	*r = host.Report{Cause: host.Cause{Error: "the run has not recorded its end"}}
	r.Chunks = host.Counts{Total: j.Record.Total, Succeeded: succeeded, Failed: failed}
	r.Workers = journal.ProcessOf(j.Last()).Workers
	r.Module.SHA256 = strings.TrimPrefix(j.Spec.Module.Digest, "sha256:")
	r.Digests = host.Digests{Module: j.Spec.Module.Digest, Input: fmt.Sprintf("sha256:%x", store.Digest(j.Record.Input))}
	return nil
}
