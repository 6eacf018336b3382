package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math"
	"os"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// flowResults receives the items that ended or failed, in item order, and writes the
// files of a run.
type flowResults struct {
	files   *resultFiles
	folds   bool    // the result is made by a fold, and is not the list of ended items
	ends    *scroll // ended items; nil if not wanted
	dead    *scroll
	effects *scroll // results of effects; nil if not wanted
	buf     []byte
}

// scroll is a temporary file that is first written, and then read.
type scroll struct {
	file *os.File
	w    *bufio.Writer
}

func newScroll() *scroll { return &scroll{} }

// maxScroll is the size of the buffer before the file, in bytes.
const maxScroll = 1 << 20

func (s *scroll) write(b []byte) error {
	if s.file == nil {
		file, err := os.CreateTemp("", "wasm-jobs-flow-*")
		if err != nil {
			return err
		}
		_ = os.Remove(file.Name()) // if that is not possible, close removes it
		s.file, s.w = file, bufio.NewWriterSize(file, maxScroll)
	}
	_, err := s.w.Write(b)
	return err
}

// copyTo copies the whole scroll to w.
func (s *scroll) copyTo(w io.Writer) error {
	if s == nil || s.file == nil {
		return nil
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err := io.Copy(w, s.file)
	return err
}

// each calls f for each item of the scroll, which must be a CBOR sequence. An item is
// valid until f returns.
func (s *scroll) each(f func(item []byte) error) error {
	if s == nil || s.file == nil {
		return nil
	}
	if err := s.w.Flush(); err != nil {
		return err
	}
	if _, err := s.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	o := chunks.Options{Name: s.file.Name(), NoIDKey: true, Format: chunks.Sequence, MaxChunk: math.MaxInt64}
	for item, err := range chunks.Stream(context.Background(), s.file, o) {
		if err == nil {
			err = f(item.Bytes)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scroll) close() {
	if s != nil && s.file != nil {
		s.file.Close()
		_ = os.Remove(s.file.Name())
	}
}

func newFlowResults(files *resultFiles, f *flow.Flow) *flowResults {
	r := &flowResults{files: files}
	for i := range f.States {
		r.folds = r.folds || f.States[i].Fold != nil
	}
	if files.outputs != "" || !r.folds {
		r.ends = newScroll()
	}
	if files.deadLetter != "" {
		r.dead = newScroll()
	}
	return r
}

func (r *flowResults) close() {
	r.ends.close()
	r.dead.close()
	r.effects.close()
}

// Ended implements [flow.Sink].
func (r *flowResults) Ended(e *flow.End) error {
	if r.ends == nil {
		return nil
	}
	r.buf = e.Append(r.buf[:0])
	return r.ends.write(r.buf)
}

// Dead implements [flow.Sink].
func (r *flowResults) Dead(d *flow.Dead) error {
	if r.dead == nil {
		return nil
	}
	r.buf = d.Append(r.buf[:0])
	return r.dead.write(r.buf)
}

// write writes the files. It writes the result and the receipt only if the run is
// complete.
func (r *flowResults) write(c *console, res *flow.Result, complete bool, format string) error {
	defer r.close()
	var errs []error
	put := func(path string, fill func(*bufio.Writer) error) {
		if path != "" {
			errs = append(errs, r.files.targets[path].Write(fill))
		}
	}
	put(r.files.outputs, func(w *bufio.Writer) error {
		return r.writeEnds(w, string(outputs.FormOf(packed.Trim(r.files.outputs))))
	})
	put(r.files.deadLetter, r.writeDead)
	put(r.files.effects, func(w *bufio.Writer) error { return r.effects.copyTo(w) })
	for _, path := range r.files.reports {
		put(path, func(w *bufio.Writer) error { return writeJSON(w, &res.Report) })
	}
	if !complete {
		return errors.Join(errs...)
	}
	put(r.files.result, func(w *bufio.Writer) error { return r.writeResult(w, res, "cbor") })
	if r.files.result == "" && r.files.targets["-"] == nil {
		errs = append(errs, atomicfile.To(c.out).Write(func(w *bufio.Writer) error { return r.writeResult(w, res, format) }))
	}
	if res.Receipt != nil && errors.Join(errs...) == nil { // last: it comes with exit code 0
		put(r.files.receipt, func(w *bufio.Writer) error {
			b, err := res.Receipt.Marshal()
			if err == nil {
				_, err = w.Write(b)
			}
			return err
		})
	}
	return errors.Join(errs...)
}

func (r *flowResults) writeResult(w *bufio.Writer, res *flow.Result, format string) error {
	if r.folds {
		return writeItem(w, res.Output, format)
	}
	return r.writeEnds(w, format)
}

// writeEnds writes the ended items: as CBOR, or one line each.
func (r *flowResults) writeEnds(w *bufio.Writer, format string) error {
	if format == "cbor" {
		return r.ends.copyTo(w)
	}
	return r.ends.each(func(item []byte) error { return writeItem(w, item, format) })
}

// writeDead writes the dead letter: one array.
func (r *flowResults) writeDead(w *bufio.Writer) error {
	if r.dead.file == nil {
		_, err := w.Write([]byte{0x80})
		return err
	}
	w.WriteByte(0x9f)
	if err := r.dead.copyTo(w); err != nil {
		return err
	}
	return w.WriteByte(0xff)
}
