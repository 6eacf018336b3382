package chunks

import (
	"errors"
	"fmt"
	"io"
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
	Place    string // instead of both for people, as [Options.Place] gives it; may be empty
	Reason   string // one line
	Hint     string // what to do, one line; may be empty
	Err      error  // the cause, for [errors.Is] and [errors.As]
}

// Error returns one line: name, place, reason, hint.
func (e *InputError) Error() string {
	s := e.Name + ": " + e.Reason
	if where := e.where(); where != "" {
		s = e.Name + ": " + where + ": " + e.Reason
	}
	if e.Hint != "" {
		s += "; " + e.Hint
	}
	return s
}

// where returns the place that is meant, or "".
func (e *InputError) where() string {
	switch {
	case e.Place != "":
		return e.Place
	case e.Position >= 0 && e.Offset >= 0:
		return fmt.Sprintf("chunk at position %d, byte %d", e.Position, e.Offset)
	case e.Position >= 0:
		return fmt.Sprintf("chunk at position %d", e.Position)
	case e.Offset >= 0:
		return fmt.Sprintf("byte %d", e.Offset)
	}
	return ""
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
