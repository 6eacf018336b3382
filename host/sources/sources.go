// Package sources makes chunks of files that are no chunk files: of lines, JSON
// lines, CSV, whole files, and ranges of integers.
//
// A [Source] yields chunks one after another, each exactly one well-formed CBOR
// item (RFC 8949) in its preferred encoding, which depends on the bytes of the
// input alone. What it holds at once is one chunk, and no more than a few times
// [Input.MaxChunk] while it is made; only [Files] holds the names of all files.
//
// Whatever is wrong with an input ends a source with an *[Error], which names
// file and line.
package sources

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A Source yields chunks in their order. A chunk may be used until the next one
// is asked for. After an error the source ends; it can be run once.
type Source = iter.Seq2[[]byte, error]

// DefaultMaxChunk is the limit of one chunk, in bytes, where none is given.
const DefaultMaxChunk = 64 << 20

// An Input is what a source reads.
type Input struct {
	Name   string    // the file as people know it
	Reader io.Reader // which the source does not close
	// MaxChunk is the limit of one chunk in bytes; 0 means [DefaultMaxChunk].
	MaxChunk int64
}

func (in Input) limit() int { return limitOf(in.MaxChunk) }

func limitOf(maxChunk int64) int {
	if maxChunk <= 0 {
		return DefaultMaxChunk
	}
	return int(min(maxChunk, maxLimit))
}

// maxLimit keeps sums of lengths within an int, and chunks within the 32 bits
// of a guest's lengths.
const maxLimit = 1<<31 - 1

// Causes of an [Error], beside what the system says of a file.
var (
	ErrTooLarge  = errors.New("larger than the limit of a chunk")
	ErrMalformed = errors.New("malformed input")
	ErrChanged   = errors.New("the file changed while it was read")
	ErrTooMany   = errors.New("too many chunks")
)

// An Error says what is wrong with the input of a source, where, and what to do.
type Error struct {
	Name   string // the file as people know it
	Line   int    // from 1; 0 where none is meant
	Reason string // one line
	Hint   string // what to do, one line; may be empty
	Err    error  // the cause, for [errors.Is] and [errors.As]
}

// Error returns one line: name, line, reason, hint.
func (e *Error) Error() string {
	var s strings.Builder
	s.WriteString(e.Name)
	if e.Line > 0 {
		fmt.Fprintf(&s, ": line %d", e.Line)
	}
	s.WriteString(": " + e.Reason)
	if e.Hint != "" {
		s.WriteString("; " + e.Hint)
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func (in Input) fail(line int, cause error, hint, reason string, args ...any) *Error {
	return &Error{Name: in.Name, Line: line, Reason: fmt.Sprintf(reason, args...), Hint: hint, Err: cause}
}

// tooLarge is about a chunk that begins at a line.
func (in Input) tooLarge(line int, what string) *Error {
	return in.fail(line, ErrTooLarge, hintSize, "%s is larger than the %d bytes that a chunk may have", what, in.limit())
}

const hintSize = "--max-chunk SIZE sets the limit"

// unreadable is about a read that the system refused.
func (in Input) unreadable(line int, err error) *Error {
	return in.fail(line, err, "", "cannot be read: %s", systemReason(err))
}

// systemReason returns what the system says, without the path that stands in
// front of the message already.
func systemReason(err error) string {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err.Error()
	}
	return err.Error()
}

// maxRange keeps what a range makes within what a job can have.
const maxRange = 1<<32 - 1

// Range yields the integers of a set as chunks, in ascending order. Texts in it
// are not looked at. name stands for the set in errors.
func Range(name string, set abi.IDSet) Source {
	return func(yield func([]byte, error) bool) {
		if n := set.Count(); n > maxRange {
			yield(nil, &Error{Name: name, Reason: fmt.Sprintf("more than %d integers, which is what a job can have", maxRange), Err: ErrTooMany,
				Hint: "make the range of the first integers of blocks, and let the module count on within a block"})
			return
		}
		var item []byte
		for lo, hi := range set.Ranges() {
			for n := lo; ; n++ {
				item = abi.AppendHead(item[:0], abi.MajorUint, n)
				if !yield(item, nil) {
					return
				}
				if n == hi { // which may be the largest there is
					break
				}
			}
		}
	}
}
