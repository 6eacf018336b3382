package chunks

import (
	"errors"
	"fmt"
	"io"
)

// Causes of an [InputError]. Others are [io.ErrUnexpectedEOF] for truncated input,
// an *[abi.SyntaxError] for malformed input, [abi.ErrIDTwice] and [abi.ErrIDType]
// for the id of one chunk, and errors of the system about a file.
var (
	ErrDuplicateID = errors.New("duplicate id")
	ErrTooLarge    = errors.New("too large")
	ErrFormat      = errors.New("invalid format of a chunk file")
	ErrChanged     = errors.New("the file changed while it was in use")
	ErrTooMany     = errors.New("too many chunks")
)

// A Hint is advice about an input, in one line. Hints that name fields of options
// are constants, so that a program can replace them by its own words; others are
// shown as they are.
type Hint string

// Hints about [Options].
const (
	HintFormat   Hint = "Format Sequence takes each item of the file as a chunk, Format Array takes each element of one array"
	HintMaxChunk Hint = "MaxChunk sets the limit"
	HintIDKey    Hint = "use another IDKey, or NoIDKey"
	HintJSON     Hint = "it looks like JSON: chunk files are CBOR"
)

// An InputError describes a defect of a chunk file, its location and the remedy.
type InputError struct {
	Name     string // the file as people know it
	Position int    // zero-based position of the chunk in the file; -1 if the error is not about one chunk
	Offset   int64  // in bytes from the start of the file; -1 if unknown
	Place    string // shown instead of name and location, as [Options.Place] returns it; may be empty
	Reason   string // one line
	Hint     Hint   // remedy; may be empty
	Err      error  // the cause, for [errors.Is] and [errors.As]
}

// Error returns one line: name, location, reason, hint.
func (e *InputError) Error() string {
	s := e.Name + ": " + e.Reason
	if location := e.location(); e.Place != "" {
		s = e.Place + ": " + e.Reason
	} else if location != "" {
		s = e.Name + ": " + location + ": " + e.Reason
	}
	if e.Hint != "" {
		s += "; " + string(e.Hint)
	}
	return s
}

// location returns the location in the file, or "".
func (e *InputError) location() string {
	switch {
	case e.Position >= 0 && e.Offset >= 0:
		return fmt.Sprintf("chunk %d (byte %d)", e.Position, e.Offset)
	case e.Position >= 0:
		return fmt.Sprintf("chunk %d", e.Position)
	case e.Offset >= 0:
		return fmt.Sprintf("byte %d", e.Offset)
	}
	return ""
}

// Unwrap returns the cause.
func (e *InputError) Unwrap() error { return e.Err }

// fileError returns an error about the file as a whole.
func fileError(name, reason string, hint Hint, cause error) *InputError {
	return &InputError{Name: name, Position: -1, Offset: -1, Reason: reason, Hint: hint, Err: cause}
}

// readError returns an error about a read at the given offset that the system
// refused.
func readError(name string, offset int64, err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return changedError(name)
	}
	return &InputError{Name: name, Position: -1, Offset: offset, Reason: "cannot be read: " + err.Error(), Err: err}
}

func changedError(name string) error {
	return fileError(name, "changed while it was in use", "run again when no other program writes to it", ErrChanged)
}
