package chunks

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Causes of an [InputError], beside [io.ErrUnexpectedEOF] for truncated input,
// an *[abi.SyntaxError] for malformed input, [abi.ErrIDTwice] and
// [abi.ErrIDType] for the id of one chunk, and what the system says of a file.
var (
	ErrDuplicateID = errors.New("two chunks have one id")
	ErrTooLarge    = errors.New("larger than its limit")
	ErrFormat      = errors.New("the file is not of the format asked for")
	ErrChanged     = errors.New("the file changed while it was in use")
	ErrTooMany     = errors.New("too many chunks")
)

// An InputError says what is wrong with a chunk file, where, and what to do.
type InputError struct {
	Name     string // the file as people know it
	Position int    // zero-based position of the chunk in the file; -1 where none is meant
	Offset   int64  // in bytes from the start of the file; -1 where none is meant
	Reason   string // one line
	Hint     string // what to do, one line; may be empty
	Err      error  // the cause, for [errors.Is] and [errors.As]
}

// Error returns one line: name, place, reason, hint.
func (e *InputError) Error() string {
	var s strings.Builder
	s.WriteString(e.Name)
	sep := ": "
	if e.Position >= 0 {
		fmt.Fprintf(&s, "%schunk at position %d", sep, e.Position)
		sep = ", "
	}
	if e.Offset >= 0 {
		fmt.Fprintf(&s, "%sbyte %d", sep, e.Offset)
	}
	s.WriteString(": " + e.Reason)
	if e.Hint != "" {
		s.WriteString("; " + e.Hint)
	}
	return s.String()
}

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// fileError is about the file as a whole.
func fileError(name, reason, hint string, cause error) *InputError {
	return &InputError{Name: name, Position: -1, Offset: -1, Reason: reason, Hint: hint, Err: cause}
}

// readError is about a read that the system refused at the given offset.
func readError(name string, offset int64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return changedError(name)
	}
	return &InputError{Name: name, Position: -1, Offset: offset, Reason: "cannot be read: " + err.Error(), Err: err}
}

func changedError(name string) error {
	return fileError(name, "changed while it was in use", "run again when nothing writes to it", ErrChanged)
}
