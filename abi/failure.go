package abi

import (
	"fmt"
	"slices"
	"strings"
)

// Class is the reason why an attempt gave no output. The retry policy depends
// on it.
type Class string

// The classes of failure.
const (
	ClassTrap           Class = "trap"            // unreachable, out of bounds, division by zero, stack overflow
	ClassMemory         Class = "memory"          // alloc returned 0, or a trap after a denied growth
	ClassTimeout        Class = "timeout"         // the time limit of the attempt was exceeded
	ClassGuestRetryable Class = "guest-retryable" // fail kind 1
	ClassHost           Class = "host"            // the instance could not be made, or the host broke
	ClassRequeued       Class = "requeued"        // fail kind 2 or shutdown; not counted as a failure
	ClassFuel           Class = "fuel"            // the instruction budget ran out
	ClassExit           Class = "exit"            // proc_exit, with any code, during a call
	ClassABI            Class = "abi"             // bad pointer or length, malformed or oversize output
	ClassGuest          Class = "guest"           // fail kind 0
	ClassLost           Class = "lost"            // on a shared store: the chunk's worker died three times
)

// Classes returns every class, in the order of the documentation.
func Classes() []Class {
	return []Class{ClassTrap, ClassMemory, ClassTimeout, ClassGuestRetryable, ClassHost,
		ClassRequeued, ClassFuel, ClassExit, ClassABI, ClassGuest, ClassLost}
}

// Failure is the reason why one attempt gave no output. It describes the guest
// and is not an error of the program; a call that returns nothing else returns
// it as an error.
type Failure struct {
	Class   Class  `json:"class"`
	Message string `json:"message"`
	// Stack has the frames of the guest, innermost first; only after a trap. It
	// begins at the first frame that is not machinery of the language or the SDK. A
	// frame ends with (FILE:LINE) if that is known.
	Stack []string `json:"stack,omitempty"`
	// Logs are the last lines that the guest logged in the failed attempt, in order.
	// They explain the failure, and do not tell failures apart.
	Logs []string `json:"logs,omitempty"`
	// Fuel is the fuel used up to the last call or return before the failure. It
	// is the same on every engine, except after a timeout; 0 means not known. It
	// is meant for replays and is recorded only in their bundles.
	Fuel uint64 `json:"-"`
	// Engine is the failure of a trap in the engine's own words, if they differ:
	// without the message of a panic, and with all frames under the names in the
	// module. Earlier builds recorded it. It is not part of records.
	Engine *Failure `json:"-"`
}

// Error returns the class and the message, without the stack.
func (f *Failure) Error() string { return string(f.Class) + ": " + f.Message }

// FuelAtLeast reports whether Fuel is a lower bound: if the guest did not end
// the call itself, it also executed an unknown number of instructions after the
// last call or return.
func (f *Failure) FuelAtLeast() bool {
	switch f.Class {
	case ClassTrap, ClassMemory, ClassTimeout, ClassFuel:
		return f.Fuel > 0
	}
	return false
}

// SameTrap reports whether f and g are the same trap: they have the same class,
// message and guest stack, and the stack is known. Two attempts of a hermetic
// guest on fresh state that end in the same trap prove that a third would too.
func (f *Failure) SameTrap(g *Failure) bool {
	return f != nil && g != nil && len(f.Stack) > 0 && f.Class == g.Class &&
		f.Message == g.Message && slices.Equal(f.Stack, g.Stack)
}

// Failf returns a failure of the given class. The message is one line: line
// breaks in the formatted text become spaces.
func Failf(class Class, format string, args ...any) *Failure {
	return &Failure{Class: class, Message: oneLine(fmt.Sprintf(format, args...))}
}

func oneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), " ")
}
