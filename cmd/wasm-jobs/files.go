package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// resultFiles are the files that run writes: paths, "-" for stdout, or "" for
// none.
type resultFiles struct {
	result, outputs, deadLetter, report, receipt, events string
	concat                                               bool               // the result is the bytes of all outputs
	targets                                              map[string]*target // by path
	dir                                                  *target            // the file that is written in the directory outputs; nil where that is none

	bundle  string  // a directory, or ""
	bundles *target // the file that is written in it; nil where there is none

	mu    sync.Mutex // of order
	order []*target
}

// target is a file that appears under its name when all of it is written.
type target struct {
	path string    // where it is in the end
	file *os.File  // under temp, or what stands at path where that is no regular file
	temp string    // beside path; "" = none
	out  io.Writer // stdout instead of a file
}

// open makes sure, before anything runs, that each file can be written.
func (f *resultFiles) open(stdout io.Writer) error {
	if strings.EqualFold(filepath.Ext(f.outputs), ".json") {
		return refuse("--outputs %s: outputs are lines of JSON, each of them a value: name the file .jsonl, or .cbor", f.outputs)
	}
	if f.bundle != "" {
		if err := f.openDir(f.bundle, &f.bundles); err != nil {
			f.discard()
			return refuse("--bundle %s: bundles cannot be written there: %w", f.bundle, err)
		}
	}
	f.targets = map[string]*target{}
	taken := map[string]bool{}
	for _, path := range []string{f.result, f.outputs, f.deadLetter, f.report, f.receipt, f.events} {
		if path == "" {
			continue
		}
		if path == f.outputs && namesDir(path) {
			if err := f.openDir(path, &f.dir); err != nil {
				f.discard()
				return refuse("%s cannot be written: %w", path, err)
			}
			continue
		}
		place := path
		if path != "-" {
			place = resolve(path)
		}
		if taken[place] {
			f.discard()
			return refuse("two results are to be written to %s: give each a file of its own", path)
		}
		taken[place] = true
		t, err := f.openTarget(place, stdout)
		if err != nil {
			f.discard()
			return refuse("%s cannot be written: %w", path, err)
		}
		f.targets[path] = t
	}
	return nil
}

// resolve returns the file that a path leads to: it is what is replaced, and
// not a link to it.
func resolve(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	} else if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	if absolute, err := filepath.Abs(path); err == nil {
		return absolute
	}
	return path
}

// openTarget opens a target and notes it, so that nothing is left of it.
func (f *resultFiles) openTarget(path string, stdout io.Writer) (*target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t, err := openTarget(path, stdout)
	if err == nil {
		f.order = append(f.order, t)
	}
	return t, err
}

func openTarget(path string, stdout io.Writer) (*target, error) {
	if path == "-" {
		return &target{path: path, out: stdout}, nil
	}
	mode := fs.FileMode(0o666) // less the umask
	stat, err := os.Stat(path)
	switch {
	case err == nil && stat.IsDir():
		return nil, errors.New("it is a directory")
	case err == nil && !stat.Mode().IsRegular():
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &target{path: path, file: file}, err
	case err == nil && stat.Mode().Perm()&0o200 == 0:
		return nil, errors.New("it is read-only")
	case err == nil:
		mode = stat.Mode().Perm()
	}
	base := filepath.Base(path)
	temp := filepath.Join(filepath.Dir(path), "."+base[:min(len(base), maxTempBase)]+"."+rand.Text())
	file, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return nil, err
	}
	if stat != nil {
		_ = file.Chmod(mode) // where that cannot be, the umask stays
	}
	return &target{path: path, file: file, temp: temp}, nil
}

// maxTempBase is how much of a name its temporary file repeats, so that that
// one is no longer than the 255 bytes that file systems allow.
const maxTempBase = 200

// write fills the target and puts it in place.
func (t *target) write(fill func(*bufio.Writer) error) error {
	if t.out != nil {
		return fillAll(t.out, fill)
	}
	if err := fillAll(t.file, fill); err != nil {
		return err
	}
	return t.place()
}

// fillAll calls fill with a buffer before out, and empties that.
func fillAll(out io.Writer, fill func(*bufio.Writer) error) error {
	b := bufio.NewWriterSize(out, 1<<18)
	if err := fill(b); err != nil {
		return err
	}
	return b.Flush()
}

// place gives a written file its name.
func (t *target) place() error {
	if t.temp == "" {
		return t.file.Close()
	}
	if err := t.seal(); err != nil {
		return err
	}
	return os.Rename(t.temp, t.path)
}

// seal ends the writing of a file, which has not its name yet.
func (t *target) seal() error { return errors.Join(t.file.Sync(), t.file.Close()) }

// discard removes what was not put in place.
func (f *resultFiles) discard() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.remove()
}

// abandon is discard for good, before the process ends in the midst of
// something: no further file is made.
func (f *resultFiles) abandon() {
	f.mu.Lock()
	f.remove()
}

func (f *resultFiles) remove() {
	for _, t := range f.order {
		if t.temp != "" { // is gone where it was put in place
			t.file.Close()
			os.Remove(t.temp)
		}
	}
}

// write writes what a job gave. The result itself only where it is complete.
func (f *resultFiles) write(ctx context.Context, c *console, result *host.Result, complete bool, format string) error {
	var errs []error
	put := func(path string, fill func(*bufio.Writer) error) {
		if path != "" {
			errs = append(errs, f.targets[path].write(fill))
		}
	}
	errs = append(errs, f.writeOutputs(func(each func(abi.ID, []byte) error) error {
		for o, err := range result.Outputs(ctx) {
			if err == nil {
				err = each(o.ID, o.Output)
			}
			if err != nil {
				return err
			}
		}
		return nil
	}))
	put(f.deadLetter, func(w *bufio.Writer) error { return result.WriteDeadLetter(ctx, w) })
	errs = append(errs, f.writeBundles(ctx, result))
	put(f.report, func(w *bufio.Writer) error { return writeJSON(w, &result.Report) })
	if !complete {
		return errors.Join(errs...)
	}
	form := "cbor"
	if f.concat {
		form, format = concatenated, concatenated
	}
	put(f.result, func(w *bufio.Writer) error { return writeResult(ctx, w, result, form) })
	if f.result == "" && f.targets["-"] == nil {
		stdout := target{path: "-", out: c.out}
		errs = append(errs, stdout.write(func(w *bufio.Writer) error { return writeResult(ctx, w, result, format) }))
	}
	if all := result.Report.Chunks; all.Succeeded == all.Total && errors.Join(errs...) == nil { // last: it comes with exit code 0
		put(f.receipt, func(w *bufio.Writer) error { return writeReceipt(w, result) })
	}
	return errors.Join(errs...)
}

// concatenated is the format of a result that is the bytes of all outputs.
const concatenated = "concat"

// writeResult writes the aggregate, or where there is none, the outputs.
func writeResult(ctx context.Context, w *bufio.Writer, result *host.Result, format string) error {
	if format == concatenated {
		return writeConcat(ctx, w, result)
	}
	if result.HasAggregate() {
		return writeItem(w, result.Aggregate, format)
	}
	if format == "cbor" {
		return result.WriteOutputs(ctx, w)
	}
	return writeOutputLines(ctx, w, result, format)
}
