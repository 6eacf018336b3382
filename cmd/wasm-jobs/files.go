package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// resultFiles are the files that run writes: paths, "-" for stdout, or "" for
// none.
type resultFiles struct {
	result, outputs, deadLetter, report, events string
	targets                                     map[string]*target // by path
	order                                       []*target
}

// target is a file that appears under its name when all of it is written.
type target struct {
	path string
	file *os.File // a temporary file beside path, or what stands there where that is no regular file
	temp bool
	out  io.Writer // stdout instead of a file
}

// open makes sure, before anything runs, that each file can be written.
func (f *resultFiles) open(stdout io.Writer) error {
	f.targets = map[string]*target{}
	for _, path := range []string{f.result, f.outputs, f.deadLetter, f.report, f.events} {
		if path == "" {
			continue
		}
		if f.targets[path] != nil {
			f.discard()
			return refuse("two results are to be written to %s: give each a file of its own", path)
		}
		t, err := openTarget(path, stdout)
		if err != nil {
			f.discard()
			return refuse("%s cannot be written: %w", path, err)
		}
		f.targets[path] = t
		f.order = append(f.order, t)
	}
	return nil
}

func openTarget(path string, stdout io.Writer) (*target, error) {
	if path == "-" {
		return &target{path: path, out: stdout}, nil
	}
	stat, err := os.Stat(path)
	switch {
	case err == nil && stat.IsDir():
		return nil, errors.New("it is a directory")
	case err == nil && !stat.Mode().IsRegular():
		file, err := os.OpenFile(path, os.O_WRONLY, 0)
		return &target{path: path, file: file}, err
	case err == nil && stat.Mode().Perm()&0o200 == 0:
		return nil, errors.New("it is read-only")
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return nil, err
	}
	_ = file.Chmod(0o644) // where that cannot be, the file stays private
	return &target{path: path, file: file, temp: true}, nil
}

// write fills the target and puts it in place, durably.
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
	if !t.temp {
		return t.file.Close()
	}
	if err := errors.Join(t.file.Sync(), t.file.Close()); err != nil {
		return err
	}
	if err := os.Rename(t.file.Name(), t.path); err != nil {
		return err
	}
	t.temp = false
	return nil
}

// discard removes what was not put in place.
func (f *resultFiles) discard() {
	for _, t := range f.order {
		if t.temp {
			t.file.Close()
			os.Remove(t.file.Name())
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
	put(f.outputs, func(w *bufio.Writer) error { return result.WriteOutputs(ctx, w) })
	put(f.deadLetter, func(w *bufio.Writer) error { return result.WriteDeadLetter(ctx, w) })
	put(f.report, func(w *bufio.Writer) error { return writeJSON(w, &result.Report) })
	if !complete {
		return errors.Join(errs...)
	}
	put(f.result, func(w *bufio.Writer) error { return writeResult(ctx, w, result, "cbor") })
	if f.result == "" && f.targets["-"] == nil {
		stdout := target{path: "-", out: c.out}
		errs = append(errs, stdout.write(func(w *bufio.Writer) error { return writeResult(ctx, w, result, format) }))
	}
	return errors.Join(errs...)
}

// writeResult writes the aggregate, or where there is none, the outputs.
func writeResult(ctx context.Context, w *bufio.Writer, result *host.Result, format string) error {
	if result.HasAggregate() {
		return writeItem(w, result.Aggregate, format)
	}
	if format == "cbor" {
		return result.WriteOutputs(ctx, w)
	}
	return writeOutputLines(ctx, w, result, format)
}
