package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/parquet"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// namesDir reports whether path is a directory, in which each output gets its own file.
func namesDir(path string) bool {
	if remote.IsURL(path) {
		return false
	}
	if os.IsPathSeparator(path[len(path)-1]) {
		return true
	}
	stat, err := os.Stat(path)
	return err == nil && stat.IsDir()
}

// openDir checks that files can be created in a directory, and sets *dir.
func (f *resultFiles) openDir(path string, dir **outputs.Dir) error {
	atomicfile.Sweep(path)
	d, err := outputs.OpenDir(path, outputs.DirOptions{Temporary: func() string { return atomicfile.TempName("output") }})
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	*dir = d
	return nil
}

// writeOutputs writes the file or directory of outputs, in the form that the file's
// name extension selects. It writes rest if the other outputs were written early, and
// otherwise all.
func (f *resultFiles) writeOutputs(all, rest outputs.Seq) error {
	switch {
	case f.outputs == "":
		return nil
	case f.dir != nil:
		return writeDir(f.dir, all)
	}
	return f.targets[f.outputs].Write(func(w *bufio.Writer) error {
		err := f.writeFile(w, all, rest)
		if isFormError(err) {
			return fmt.Errorf("%w; a file named .cbor takes any output", err)
		}
		return err
	})
}

func (f *resultFiles) writeFile(w *bufio.Writer, all, rest outputs.Seq) error {
	if e := f.earlyFiles[f.outputs]; e != nil {
		return e.end(rest)
	}
	if isParquet(f.outputs) {
		return parquet.WriteOutputs(w, all)
	}
	return outputs.Write(w, outputs.FormOf(packed.Trim(f.outputs)), all)
}

// isParquet reports whether outputs are written to a path as a Parquet file.
func isParquet(path string) bool {
	return strings.EqualFold(filepath.Ext(packed.Trim(path)), ".parquet")
}

func writeDir(dir *outputs.Dir, all outputs.Seq) error {
	for o, err := range all {
		if err == nil {
			err = dir.Put(o)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func isFormError(err error) bool {
	_, ok := errors.AsType[*notation.FormError](err)
	return ok
}

// writeItem writes one well-formed CBOR item, unchanged or as a line.
func writeItem(w *bufio.Writer, item []byte, format string) error {
	return withHint(outputs.WriteItem(w, outputs.Form(format), item))
}

// writeOutputLines writes each output with its id.
func writeOutputLines(w *bufio.Writer, format string, all outputs.Seq) error {
	err := outputs.Write(w, outputs.Form(format), all)
	if failed, ok := errors.AsType[*outputs.WriteError](err); ok {
		return withHint(fmt.Errorf("chunk %v: %w", failed.ID, failed.Err))
	}
	return err
}

// withHint adds to an error how to write an output that the form cannot express.
func withHint(err error) error {
	if isFormError(err) {
		return fmt.Errorf("%w; -f cbor writes the bytes as they are", err)
	}
	return err
}
