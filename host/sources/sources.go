// Package sources makes chunks from files in other formats: lines, JSON lines, CSV,
// whole files, and ranges of integers.
//
// A [Source] yields chunks one after another. Each is exactly one well-formed CBOR
// item (RFC 8949) in its preferred encoding, and depends only on the bytes of the
// input. A source holds one chunk at a time, and not more than a few times
// [Input.MaxChunk] while the chunk is made; only [Files] holds the names of all
// files.
//
// An input with a defect ends its source with an *[Error] that names file and line.
package sources

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// A Source yields chunks in their order. A chunk may be used until the next one
// is asked for. After an error the source ends; it can be run once.
type Source = iter.Seq2[[]byte, error]

// DefaultMaxChunk is the default limit of one chunk, in bytes.
const DefaultMaxChunk = 64 << 20

// An Input is the data that a source reads.
type Input struct {
	Name string // the file as people know it
	// Reader has the data. It is not closed by the source. If an error of it has a
	// method OwnPlace, then the message of the [Error] names no line.
	Reader io.Reader
	// MaxChunk is the limit of one chunk in bytes; 0 means [DefaultMaxChunk].
	MaxChunk int64
	// Mark, if not nil, is called before each chunk of [JSONLines] and [CSV] is
	// yielded, with the line from 1 on which the chunk begins.
	Mark func(line int)
	// If Reader joins files, this function returns the file of a line of Reader, and
	// the number of the line in that file, for errors. It may be nil.
	Where func(line int) (name string, lineOfFile int)
	// Bad, if not nil, takes the records that [ErrMalformed] is about, which are then
	// passed over: lines that are not UTF-8, values of JSON, and records of CSV after
	// the header. raw is the record without its line end, valid during the call. An
	// error of Bad ends the source. Without Bad, a malformed record does.
	Bad func(defect *Error, raw []byte) error
	// Stream is set if the input is read while it is written. [JSONLines] then yields
	// each line as soon as it is there, and an array on the first line is a value.
	Stream bool
}

// mark reports the line on which the next chunk begins.
func (in Input) mark(line int) {
	if in.Mark != nil {
		in.Mark(line)
	}
}

func (in Input) limit() int { return limitOf(in.MaxChunk) }

func limitOf(maxChunk int64) int {
	if maxChunk <= 0 {
		return DefaultMaxChunk
	}
	return int(min(maxChunk, maxLimit))
}

// maxLimit keeps sums of lengths within an int, and chunks within a guest's 32-bit
// lengths.
const maxLimit = 1<<31 - 1

// Causes of an [Error], in addition to the system's errors about a file.
var (
	ErrTooLarge  = errors.New("too large for a chunk")
	ErrMalformed = errors.New("malformed input")
	ErrChanged   = errors.New("the file changed while it was read")
	ErrTooMany   = errors.New("too many chunks")
)

// Hints about options of sources. The hint about [Input.MaxChunk], or another
// MaxChunk, is [chunks.HintMaxChunk].
const (
	HintSplit        chunks.Hint = chunks.HintMaxChunk + ", and Split cuts files"
	HintSmallerSplit chunks.Hint = chunks.HintMaxChunk + ", and a smaller Split makes smaller parts"
	HintBytes        chunks.Hint = "Bytes makes byte strings of lines"
	HintComma        chunks.Hint = "Comma is the character between fields"
)

// An Error describes a defect in the input of a source, its location and the
// remedy.
type Error struct {
	Name   string      // the file as people know it
	Line   int         // from 1; 0 if the error is not about one line
	Reason string      // one line
	Hint   chunks.Hint // remedy; may be empty
	Err    error       // the cause, for [errors.Is] and [errors.As]
}

// Error returns one line: name:line, reason, hint.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Name)
	if e.Line > 0 {
		fmt.Fprintf(&s, ":%d", e.Line)
	}
	s.WriteString(": " + e.Reason)
	if e.Hint != "" {
		s.WriteString("; " + string(e.Hint))
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (in Input) fail(line int, cause error, hint chunks.Hint, reason string, args ...any) *Error {
	if in.Where != nil && line > 0 {
		in.Name, line = in.Where(line)
	}
	return &Error{Name: in.Name, Line: line, Reason: fmt.Sprintf(reason, args...), Hint: hint, Err: cause}
}

// tooLarge returns an error about a record or chunk that begins at a line.
func (in Input) tooLarge(line int, part string) *Error {
	return in.fail(line, ErrTooLarge, chunks.HintMaxChunk, "%s too large: more than %d bytes", part, in.limit())
}

// pass gives a malformed record to Bad. It returns nil if the source goes on.
func (in Input) pass(err error, raw []byte) error {
	defect, ok := err.(*Error)
	if in.Bad == nil || !ok || defect.Err != ErrMalformed && !isMalformed(defect.Err) {
		return err
	}
	if err := in.Bad(defect, bytes.TrimRight(raw, "\r\n")); err != nil {
		return in.fail(0, err, "", "cannot go on: %s", systemReason(err))
	}
	return nil
}

func isMalformed(err error) bool {
	_, ok := err.(malformed)
	return ok
}

// placed is an error of [Input.Reader] that names its own place, such as a byte of
// compressed data. Messages then have no line.
type placed interface {
	error
	OwnPlace()
}

// unreadable returns an error about a read that the system refused.
func (in Input) unreadable(line int, err error) *Error {
	e := in.fail(line, err, "", "cannot be read: %s", systemReason(err))
	if own, ok := errors.AsType[placed](err); ok {
		e.Line, e.Reason = 0, own.Error()
	}
	return e
}

// systemReason returns the system's message without the path, which the error names
// already.
func systemReason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// maxRange is the number of integers in a range that a job can have.
const maxRange = 1<<32 - 1

// Range yields the integers of a set as chunks, in ascending order. Texts in the
// set are ignored. name stands for the set in errors.
func Range(name string, set abi.IDSet) Source {
	return func(yield func([]byte, error) bool) {
		if n := set.Count(); n > maxRange {
			yield(nil, &Error{Name: name, Reason: fmt.Sprintf("too many integers: want at most %d", maxRange), Err: ErrTooMany,
				Hint: "make a range of block numbers, and let the module count within a block"})
			return
		}
		var item []byte
		for lo, hi := range set.Ranges() {
			for n := lo; ; n++ {
				item = abi.AppendHead(item[:0], abi.MajorUint, n)
				if !yield(item, nil) {
					return
				}
				if n == hi { // n + 1 may overflow
					break
				}
			}
		}
	}
}
