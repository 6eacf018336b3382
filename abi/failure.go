package abi

import (
	"fmt"
	"slices"
	"strings"
)

// Class says why an attempt gave no output. The retry policy decides by class.
type Class string

// The classes of failure.
const (
	ClassTrap           Class = "trap"            // unreachable, out of bounds, division by zero, stack overflow
	ClassMemory         Class = "memory"          // alloc returned 0, or a trap after a denied growth
	ClassTimeout        Class = "timeout"         // the lease ran out
	ClassGuestRetryable Class = "guest-retryable" // fail kind 1
	ClassHost           Class = "host"            // the instance could not be made, or the host broke
	ClassRequeued       Class = "requeued"        // fail kind 2 or shutdown; not counted as a failure
	ClassFuel           Class = "fuel"            // the instruction budget ran out
	ClassExit           Class = "exit"            // proc_exit, with any code, during a call
	ClassABI            Class = "abi"             // bad pointer or length, malformed or oversize output
	ClassGuest          Class = "guest"           // fail kind 0
)

// Classes returns every class, in the order of the documentation.
func Classes() []Class {
	return []Class{ClassTrap, ClassMemory, ClassTimeout, ClassGuestRetryable, ClassHost,
		ClassRequeued, ClassFuel, ClassExit, ClassABI, ClassGuest}
}

// Failure is why one attempt gave no output: data about the guest, not an
// error of the program. It is returned as an error where a call has nothing
// else to return.
type Failure struct {
	Class   Class    `json:"class"`
	Message string   `json:"message"`
	Stack   []string `json:"stack,omitempty"` // guest frames, innermost first; only after a trap
	// Fuel is what the call had used when that was last settled before it failed,
	// at the last call or return: the same on every engine, but after a timeout.
	// 0 = not known. It is for replays, and recorded nowhere but in their bundles.
	Fuel uint64 `json:"-"`
}

// Error returns the class and the message, without the stack.
func (f *Failure) Error() string { return string(f.Class) + ": " + f.Message }

// SameTrap reports whether f and g are one trap: the same class and message
// with the same, known guest stack. Two attempts of a hermetic guest on fresh
// state that end in the same trap prove that a third would too.
func (f *Failure) SameTrap(g *Failure) bool {
	return f != nil && g != nil && len(f.Stack) > 0 && f.Class == g.Class &&
		f.Message == g.Message && slices.Equal(f.Stack, g.Stack)
}

// Failf returns a failure of the given class. The message is one line: line
// breaks in what a guest said become spaces.
func Failf(class Class, format string, args ...any) *Failure {
	return &Failure{Class: class, Message: oneLine(fmt.Sprintf(format, args...))}
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}
