// Package chunks reads chunk files: CBOR sequences (RFC 8742) of chunks, or one
// CBOR array whose elements are the chunks.
//
// A file is scanned once from end to end before any chunk is handed out. The scan
// checks that each chunk is one well-formed CBOR item within its limits and that
// ids are unique, and computes the input digest. It keeps eight bytes in memory for
// each chunk's offset and, if chunks state ids, eight more and the texts; never a
// chunk. After that, chunks are read in id order, whatever their order in the file:
// unsigned integers by value, then texts bytewise.
//
// Input is hostile: no declared length is trusted before its bytes have arrived,
// and a chunk that is too large is refused before it is held. Every defect is
// reported as an [InputError] with its location.
package chunks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Format selects how the top level of a chunk file is read.
type Format uint8

// The formats.
const (
	Auto     Format = iota // an array if the first item is one, otherwise a sequence
	Sequence               // each item is a chunk
	Array                  // one array whose elements are the chunks
)

// String returns the name of the format, as [ParseFormat] takes it.
func (f Format) String() string {
	switch f {
	case Sequence:
		return "sequence"
	case Array:
		return "array"
	default:
		return "auto"
	}
}

// ParseFormat is the inverse of [Format.String].
func ParseFormat(s string) (Format, error) {
	for _, f := range []Format{Auto, Sequence, Array} {
		if s == f.String() {
			return f, nil
		}
	}
	return 0, fmt.Errorf("invalid chunk format %q: want auto, sequence or array", s)
}

// DefaultIDKey is the map key whose value is a chunk's id.
const DefaultIDKey = "id"

// DefaultMaxChunk is the limit of one chunk, in bytes.
const DefaultMaxChunk = 64 << 20

// MaxTextID is the limit of a text id, in bytes. Ids are held in memory for the
// life of a job, and are part of every key, report and log line about the chunk.
const MaxTextID = 64 << 10

// Options control how a chunk file is read. The zero Options are the defaults of
// the command line.
type Options struct {
	// Name is the name of the file in messages; empty means its path, or "standard
	// input" for [Spool].
	Name string
	// IDKey is the map key whose value is a chunk's id; empty means [DefaultIDKey].
	IDKey string
	// NoIDKey numbers all chunks by position, whatever they hold.
	NoIDKey bool
	Format  Format
	// MaxChunk is the limit of one chunk in bytes; 0 means [DefaultMaxChunk].
	MaxChunk int64
	// TempDir is the directory for input that can be read only once; empty means
	// [os.TempDir].
	TempDir string
	// Limit, if not 0, is the number of chunks after which the scan stops. What
	// follows is not looked at.
	Limit int
	// Progress, if not nil, is called during the scan about once for each MiB and
	// at the end, from the goroutine that scans. total is negative if the size is
	// not known.
	Progress func(bytes, total int64)
	// Place, if not nil, returns the origin of the chunk at a position: the name of
	// another file with a line of it, such as "a.jsonl:7", or "" if it is not known.
	// Messages about chunks of [FromSeq] use it.
	Place func(position int) string
}

// place returns the result of o.Place, or "" if there is none.
func (o *Options) place(position int) string {
	if o.Place == nil {
		return ""
	}
	return o.Place(position)
}

func (o Options) withDefaults(name string) Options {
	if o.Name == "" {
		o.Name = name
	}
	if o.IDKey == "" {
		o.IDKey = DefaultIDKey
	}
	if o.MaxChunk <= 0 {
		o.MaxChunk = DefaultMaxChunk
	}
	return o
}

// A File is a scanned chunk file. All methods are safe for concurrent use, except
// that Close must be called last.
type File struct {
	name     string
	data     io.ReaderAt
	file     *os.File    // data if it is a file, otherwise nil
	temp     string      // removed by Close; empty if the name is gone already
	stat     fs.FileInfo // of file, as it was scanned
	shared   bool        // file belongs to another File, which closes it
	index    index
	digest   [sha256.Size]byte
	place    func(position int) string // as Options.Place
	warnings []string
}

// Open scans the chunk file at path. A pipe or device is kept in a temporary file,
// as [Spool] does. The error is an *[InputError], or ctx.Err() if ctx ended first.
func Open(ctx context.Context, path string, o Options) (*File, error) {
	o = o.withDefaults(path)
	file, err := os.Open(path)
	if err != nil {
		return nil, openError(o.Name, err)
	}
	stat, err := file.Stat()
	if err != nil {
		file.Close()
		return nil, openError(o.Name, err)
	}
	switch mode := stat.Mode(); {
	case mode.IsRegular():
		return scanOwned(ctx, &File{name: o.Name, data: file, file: file, stat: stat, place: o.place}, file, stat.Size(), o)
	case mode.IsDir():
		file.Close()
		return nil, fileError(o.Name, "is a directory", "want a chunk file", errors.ErrUnsupported)
	default:
		defer file.Close()
		return Spool(ctx, file, o)
	}
}

func openError(name string, err error) error {
	reason := err.Error()
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		reason = pathErr.Err.Error()
	}
	return fileError(name, "cannot be opened: "+reason, "", err)
}

// scanOwned scans r into f and closes f if that fails.
func scanOwned(ctx context.Context, f *File, r io.Reader, size int64, o Options) (*File, error) {
	if err := f.scan(ctx, r, size, o); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Spool scans r up to its end and keeps the data in a temporary file of o.TempDir,
// to be read again. If the system allows it, the file is unlinked at once;
// otherwise [File.Close] removes it. r is scanned while it is read: bad input is
// refused without waiting for its end. If r can be given a read deadline, as pipes
// can, the end of ctx interrupts a read.
//
// The error is an *[InputError], ctx.Err() if ctx ended first, or the system's
// error about the temporary file.
func Spool(ctx context.Context, r io.Reader, o Options) (*File, error) {
	o = o.withDefaults("standard input")
	f, err := newSpool(o)
	if err != nil {
		return nil, err
	}
	defer InterruptReads(ctx, r)()
	return scanOwned(ctx, f, io.TeeReader(r, spoolWriter{f.file}), -1, o)
}

// InterruptReads makes a waiting read of r return when ctx ends, if r has a method
// SetReadDeadline. The returned function must be called: it stops that, and waits until
// it has stopped, so that r is no longer used.
func InterruptReads(ctx context.Context, r io.Reader) (stop func()) {
	deadliner, ok := r.(interface{ SetReadDeadline(time.Time) error })
	if !ok {
		return func() {}
	}
	done := make(chan struct{})
	stopFunc := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = deadliner.SetReadDeadline(time.Unix(1, 0)) // A file that cannot be polled keeps waiting.
	})
	return func() {
		if !stopFunc() {
			<-done
		}
	}
}

// newSpool returns a File over a new, empty temporary file.
func newSpool(o Options) (*File, error) {
	file, err := os.CreateTemp(o.TempDir, "wasm-jobs-chunks-*")
	if err != nil {
		return nil, &spoolError{err}
	}
	f := &File{name: o.Name, data: file, file: file, place: o.place}
	if os.Remove(file.Name()) != nil { // Some systems do not unlink a file in use.
		f.temp = file.Name()
	}
	return f, nil
}

// spoolWriter marks errors of the temporary file, to tell them from errors of the
// input.
type spoolWriter struct{ file *os.File }

func (w spoolWriter) Write(b []byte) (int, error) {
	n, err := w.file.Write(b)
	if err != nil {
		err = &spoolError{err}
	}
	return n, err
}

type spoolError struct{ err error }

func (e *spoolError) Error() string {
	return "chunks cannot be kept in a temporary file: " + e.err.Error()
}
func (e *spoolError) Unwrap() error { return e.err }

// FromSeq keeps chunks that come from code in a temporary file, as [Spool] does.
// Each item of seq is one chunk; its bytes are not used after the next item is
// asked for. o.Format is ignored. An error of seq ends the scan and comes back
// wrapped.
func FromSeq(ctx context.Context, seq iter.Seq2[[]byte, error], o Options) (*File, error) {
	o = o.withDefaults("chunks")
	f, err := newSpool(o)
	if err != nil {
		return nil, err
	}
	if err := f.collect(ctx, seq, spoolWriter{f.file}, o); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Of returns a File over copies of a few chunks in memory, with the default
// options.
func Of(items ...[]byte) (*File, error) {
	o := Options{}.withDefaults("chunks")
	data := bytes.Join(items, nil)
	f := &File{name: o.Name, data: bytes.NewReader(data), place: o.place}
	seq := func(yield func([]byte, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
	}
	if err := f.collect(context.Background(), seq, io.Discard, o); err != nil {
		return nil, err
	}
	return f, nil
}

// Len returns the number of chunks.
func (f *File) Len() int { return f.index.count() }

// ID returns the id of the i-th chunk in id order. It panics if i is not below Len.
func (f *File) ID(i int) abi.ID { return f.index.id(f.index.position(i)) }

// Position returns the zero-based position in the file of the i-th chunk in id
// order. It panics if i is not below Len.
func (f *File) Position(i int) int { return f.index.position(i) }

// Size returns the size of the i-th chunk in id order, in bytes. It panics if i is
// not below Len.
func (f *File) Size(i int) int {
	start, end := f.index.span(f.index.position(i))
	return int(end - start)
}

// Digest returns the input digest: the Merkle tree hash (RFC 6962) over the
// entries [id, chunk] in id order.
func (f *File) Digest() [sha256.Size]byte { return f.digest }

// Warnings returns remarks that are not errors, such as that the file is empty: one
// line each, with the name of the file.
func (f *File) Warnings() []string { return f.warnings }

// Unchanged returns nil while the size and the modification time of the file are
// the same as at the scan, and an [InputError] of [ErrChanged] otherwise. Replacing
// the file by renaming another over it is not a change: the old file is still read.
func (f *File) Unchanged() error {
	if f.file == nil {
		return nil
	}
	stat, err := f.file.Stat()
	if err != nil {
		return openError(f.name, err)
	}
	if stat.Size() != f.stat.Size() || !stat.ModTime().Equal(f.stat.ModTime()) {
		return changedError(f.name)
	}
	return nil
}

// Close closes the file, and removes it if it is temporary. Reads fail with
// [os.ErrClosed] afterwards, including reads of selections. On a selection, Close
// does nothing.
func (f *File) Close() error {
	if f.file == nil || f.shared {
		return nil
	}
	err := f.file.Close()
	if f.temp != "" {
		err = errors.Join(err, os.Remove(f.temp))
		f.temp = ""
	}
	return err
}
