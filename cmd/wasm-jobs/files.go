package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// resultFiles are the files that run writes: paths, "-" for stdout, "" for none.
type resultFiles struct {
	result, outputs, deadLetter, receipt, events string
	effects                                      string                      // of a flow
	reports                                      []string                    // one for each form
	asked                                        *spec.Spec                  // of the job; nil if unknown
	started                                      time.Time                   // of the run; zero if unknown
	concat                                       bool                        // the result is the bytes of all outputs
	targets                                      map[string]*atomicfile.File // by path
	dir                                          *outputs.Dir                // the directory outputs; nil if it is a file

	earlyFiles map[string]*earlyFile // files in targets that are written while the job runs

	bundle  string       // a directory, or ""
	bundles *outputs.Dir // nil if there is none

	mu sync.Mutex // of dir and bundles, which a signal may end
}

// open checks, before anything runs, that each file can be written.
func (f *resultFiles) open(stdout io.Writer) error {
	if strings.EqualFold(filepath.Ext(packed.Trim(f.outputs)), ".json") {
		return usageErrorf("invalid --outputs %s: outputs are written as one JSON value a line; name the file .jsonl, or .cbor", f.outputs)
	}
	if remote.IsURL(f.bundle) {
		return usageErrorf("invalid --bundle %s: want a directory of this machine", remote.Name(f.bundle))
	}
	if f.bundle != "" {
		if err := f.openDir(f.bundle, &f.bundles); err != nil {
			f.discard()
			return usageErrorf("invalid --bundle %s: bundles cannot be written there: %w", f.bundle, err)
		}
	}
	f.targets = map[string]*atomicfile.File{}
	taken := map[string]bool{}
	for _, path := range append([]string{f.result, f.outputs, f.deadLetter, f.receipt, f.events, f.effects}, f.reports...) {
		if path == "" {
			continue
		}
		if path == f.outputs && namesDir(path) {
			if err := f.openDir(path, &f.dir); err != nil {
				f.discard()
				return usageErrorf("%s cannot be written: %w", path, err)
			}
			continue
		}
		place := path
		if path != "-" && !remote.IsURL(path) {
			place = atomicfile.Resolve(path)
		}
		if taken[place] {
			f.discard()
			return usageErrorf("duplicate output file %s: give each result its own file", path)
		}
		taken[place] = true
		if path == "-" {
			f.targets[path] = atomicfile.To(stdout)
			continue
		}
		file, err := createResult(path)
		if err != nil {
			f.discard()
			return usageErrorf("%s cannot be written: %s", nameOfInput(path), withoutPath(err))
		}
		f.targets[path] = file
	}
	return nil
}

// discard removes files that were not put in place.
func (f *resultFiles) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closeDirs()
	for _, file := range f.targets {
		file.Discard()
	}
}

// abandon discards the directories for good, before the process ends abruptly. No
// directory can be opened after it. See [atomicfile.Abandon].
func (f *resultFiles) abandon() {
	f.mu.Lock()
	f.closeDirs()
}

func (f *resultFiles) closeDirs() {
	for _, dir := range []*outputs.Dir{f.dir, f.bundles} {
		if dir != nil {
			dir.Close()
		}
	}
}

// eventsOut returns the writer of events, or nil.
func (f *resultFiles) eventsOut() io.Writer {
	if file := f.targets[f.events]; file != nil {
		return file.Out()
	}
	return nil
}

// placeEvents puts the file of events in place.
func (f *resultFiles) placeEvents() error {
	if file := f.targets[f.events]; file != nil {
		return file.Place()
	}
	return nil
}

// write writes the results of a job. The result itself is written only if it is complete.
func (f *resultFiles) write(ctx context.Context, c *console, result *host.Result, complete bool, format string) error {
	var errs []error
	put := func(path string, fill func(*bufio.Writer) error) {
		if path != "" {
			errs = append(errs, f.targets[path].Write(fill))
		}
	}
	errs = append(errs, f.writeOutputs(result.Outputs(ctx), result.Rest(ctx)))
	put(f.deadLetter, func(w *bufio.Writer) error { return result.WriteDeadLetter(ctx, w) })
	errs = append(errs, f.writeBundles(ctx, result))
	if len(f.reports) > 0 {
		d := f.reportOf(result)
		for _, path := range f.reports {
			put(path, func(w *bufio.Writer) error { return writeReport(w, d, path) })
		}
	}
	if !complete {
		return errors.Join(errs...)
	}
	form := "cbor"
	if f.concat {
		form, format = concatenated, concatenated
	}
	put(f.result, func(w *bufio.Writer) error {
		if e := f.earlyFiles[f.result]; e != nil {
			return e.end(result.Rest(ctx))
		}
		return writeResult(ctx, w, result, form)
	})
	if f.result == "" && f.targets["-"] == nil {
		errs = append(errs, atomicfile.To(c.out).Write(func(w *bufio.Writer) error { return writeResult(ctx, w, result, format) }))
	}
	if all := result.Report.Chunks; all.Succeeded == all.Total && errors.Join(errs...) == nil { // last, because a receipt implies exit code 0
		put(f.receipt, func(w *bufio.Writer) error { return writeReceipt(w, result) })
	}
	return errors.Join(errs...)
}

// concatenated is the format of --concat.
const concatenated = "concat"

// writeResult writes the aggregate or, if there is none, the outputs.
func writeResult(ctx context.Context, w *bufio.Writer, result *host.Result, format string) error {
	if format == concatenated {
		return writeConcat(w, result.Outputs(ctx))
	}
	if result.HasAggregate() {
		return writeItem(w, result.Aggregate, format)
	}
	if format == "cbor" {
		return result.WriteOutputs(ctx, w)
	}
	return writeOutputLines(w, format, result.Outputs(ctx))
}

// places returns the files that are being written: the temporary files, and the files
// that they replace.
func (f *resultFiles) places() []fs.FileInfo {
	f.mu.Lock()
	defer f.mu.Unlock()
	var paths []string
	for _, file := range f.targets {
		paths = append(paths, file.Paths()...)
	}
	for _, dir := range []*outputs.Dir{f.dir, f.bundles} {
		if dir != nil {
			paths = append(paths, dir.Path())
		}
	}
	return infosOf(paths...)
}
