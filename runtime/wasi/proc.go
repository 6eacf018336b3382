package wasi

import "github.com/tetratelabs/wazero/api"

// Signals by their number (witx: signal).
const (
	signalNone = 0
	signalLast = 30 // sys

	// The signals that are ignored by default: chld, cont, urg and winch.
	signalsIgnored = 1<<16 | 1<<17 | 1<<22 | 1<<27
)

func procExit(_ *State, _ api.Memory, p []uint64) errno {
	panic(&ExitError{uint32(p[0])})
}

// procRaise takes the default action, because a guest of preview 1 cannot set
// another one: most signals end the guest, with the exit code that a shell gives
// to a process killed by the signal. No signal can stop the guest.
func procRaise(_ *State, _ api.Memory, p []uint64) errno {
	signal := uint32(p[0])
	switch {
	case signal > signalLast:
		return errInval
	case signal == signalNone || signalsIgnored>>signal&1 == 1:
		return success
	}
	panic(&ExitError{128 + signal})
}

// schedYield does nothing.
func schedYield(*State, api.Memory, []uint64) errno { return success }
