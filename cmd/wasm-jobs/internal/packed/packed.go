// Package packed reads and writes data that gzip (RFC 1952) or zstd (RFC 8878) has
// compressed, and reads all other data as it is.
package packed

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// readSize is the size of one read of compressed data. A skippable frame before
// the data of zstd, as parallel compressors write it, is recognized if it fits.
const readSize = 64 << 10

// maxWindow is the limit of the memory for a frame of zstd, in bytes: the limit of the
// program takes without further flags, at its highest level with --long.
const maxWindow = 128 << 20

var (
	gzipMagic = []byte{0x1f, 0x8b, 8}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// Form is a form of compression; "" is none.
type Form string

// The forms, named by the endings of files.
const (
	Gzip Form = ".gz"
	Zstd Form = ".zst"
)

func (f Form) program() string {
	if f == Gzip {
		return "gzip"
	}
	return "zstd"
}

// FormOf returns the form that matches the ending of a path.
func FormOf(path string) Form {
	switch form := Form(strings.ToLower(filepath.Ext(path))); form {
	case Gzip, Zstd:
		return form
	}
	return ""
}

// Trim returns a path without the ending that names a form.
func Trim(path string) string {
	return path[:len(path)-len(FormOf(path))]
}

// Error is returned if compressed data cannot be decompressed. It does not wrap
// [io.ErrUnexpectedEOF], which would mean that the decompressed data is truncated.
type Error struct {
	Form   Form
	Offset int64 // bytes of compressed data that were read before the defect was seen
	Err    error // nil if the data is truncated
}

// Error returns one line. It has the offset, since a line of the decompressed data
// cannot be found in the file.
func (e *Error) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("truncated %s data: it ends after %d bytes without its end mark; copy or download it again", e.Form.program(), e.Offset)
	}
	return fmt.Sprintf("damaged %s data before byte %d of the compressed data: %v; copy or download it again", e.Form.program(), e.Offset, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// OwnPlace says that the error names its place itself.
func (*Error) OwnPlace() {}

// counter counts the bytes that are read.
type counter struct {
	r     io.Reader
	count int64
	err   error // of r, other than [io.EOF]
}

func (c *counter) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	if c.count += int64(n); err != nil && err != io.EOF {
		c.err = err
	}
	return n, err
}

// Reader decompresses all members and frames of its input, one after another. It holds
// at most one window of the data.
type Reader struct {
	from *counter
	in   *bufio.Reader
	form Form
	out  io.Reader // nil before the first read
	err  error     // the first error, which all later reads return
	end  func()
}

// NewReader returns a reader of r. It reads from r only in Read and Form. Close stops
// the decompression, and does not close r.
func NewReader(r io.Reader) *Reader {
	from := &counter{r: r}
	return &Reader{from: from, in: bufio.NewReaderSize(from, readSize), end: func() {}}
}

// Form reads the first bytes of the data, and returns its form. If that read fails,
// the next Read returns the error.
func (r *Reader) Form() Form {
	if r.out == nil {
		r.form = formAt(r.in)
	}
	return r.form
}

// formAt looks at the first bytes of the data, and at no more than it needs: more may
// come only after an answer to them. None of the forms begins as text in UTF-8 or as
// well-formed CBOR.
func formAt(in *bufio.Reader) Form {
	var start []byte
	for n := 1; n <= len(zstdMagic) && len(start) == n-1 && mayBegin(start); n++ {
		start, _ = in.Peek(n)
	}
	switch {
	case bytes.HasPrefix(start, gzipMagic):
		return Gzip
	case bytes.Equal(start, zstdMagic), len(start) == 4 && isSkippable(start) && zstdFollows(in):
		return Zstd
	}
	return ""
}

// mayBegin reports whether the data of a form may begin with start.
func mayBegin(start []byte) bool {
	skippable := []byte{0x50, 0x2a, 0x4d, 0x18}
	if len(start) > 0 {
		skippable[0] |= start[0] & 0x0f
	}
	return bytes.HasPrefix(gzipMagic, start) || bytes.HasPrefix(zstdMagic, start) || bytes.HasPrefix(skippable, start)
}

// isSkippable reports whether a skippable frame begins (RFC 8878, section 3.1.2).
func isSkippable(b []byte) bool {
	return b[0]&0xf0 == 0x50 && b[1] == 0x2a && b[2] == 0x4d && b[3] == 0x18
}

// zstdFollows reports whether a frame with data follows a skippable frame.
func zstdFollows(in *bufio.Reader) bool {
	head, err := in.Peek(8)
	if err != nil {
		return false
	}
	size := binary.LittleEndian.Uint32(head[4:])
	if size > readSize-16 {
		return false
	}
	all, _ := in.Peek(8 + int(size) + len(zstdMagic))
	return bytes.HasSuffix(all, zstdMagic) && len(all) > int(size)+8
}

func (r *Reader) Read(b []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.out == nil {
		r.err = r.open()
	}
	n := 0
	if r.err == nil {
		n, r.err = r.out.Read(b)
	} else if r.err == io.EOF {
		r.err = io.ErrUnexpectedEOF // within the head of compressed data
	}
	if r.err != nil && r.err != io.EOF {
		r.err = r.explain(r.err)
	}
	return n, r.err
}

func (r *Reader) open() error {
	switch r.Form() {
	case Gzip:
		unpacked, err := gzip.NewReader(r.in)
		if err != nil {
			return err
		}
		unpacked.Multistream(false)
		r.out = &members{r.in, unpacked}
	case Zstd:
		unpacked, err := zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
		r.out, r.end = unpacked, unpacked.Close
	default:
		r.out = r.in
	}
	return nil
}

// members reads the members of gzip data, and skips zeros after each, as gzip(1) does:
// tapes and backups fill their last block with zeros.
type members struct {
	in  *bufio.Reader
	now *gzip.Reader
}

func (m *members) Read(b []byte) (int, error) {
	for {
		n, err := m.now.Read(b)
		switch {
		case err != io.EOF:
			return n, err
		case n > 0:
			return n, nil
		}
		if err = m.next(); err != nil {
			return 0, err
		}
	}
}

// next begins the next member. The error is [io.EOF] at the end of the data.
func (m *members) next() error {
	for next := byte(0); next == 0; {
		var err error
		if next, err = m.in.ReadByte(); err != nil {
			return err
		}
	}
	err := m.in.UnreadByte()
	if err == nil {
		err = m.now.Reset(m.in)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	m.now.Multistream(false)
	return err
}

// explain adds the form and the place to an error of decompression. An error of the
// underlying reader stays as it is.
func (r *Reader) explain(err error) error {
	if r.from.err != nil {
		return r.from.err
	}
	e := &Error{r.form, r.from.count - int64(r.in.Buffered()), err}
	switch {
	case r.form == "":
		return err
	case errors.Is(err, io.ErrUnexpectedEOF):
		e.Err = nil
	}
	return e
}

// SetReadDeadline sets the deadline of the underlying reader, if it has one.
func (r *Reader) SetReadDeadline(t time.Time) error {
	if below, ok := r.from.r.(interface{ SetReadDeadline(time.Time) error }); ok {
		return below.SetReadDeadline(t)
	}
	return errors.ErrUnsupported
}

// Close ends the decompression.
func (r *Reader) Close() error {
	r.end()
	return nil
}

// NewWriter returns a writer that compresses data in a form and writes it to w. Close
// writes the end, and does not close w; a writer that is not closed holds only memory.
// The same data gives the same bytes.
func NewWriter(w io.Writer, form Form) (io.WriteCloser, error) {
	if form == Gzip {
		return gzip.NewWriter(w), nil
	}
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
}
