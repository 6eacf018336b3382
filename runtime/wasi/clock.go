package wasi

import (
	"math"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// The times at which the guest's clocks start, as Unix time and as time since the
// boot of an imaginary machine. Preparing comes before any call.
const (
	prepareWall = 1_640_991_600 * time.Second // 2021-12-31T23:00:00Z
	callWall    = 1_640_995_200 * time.Second // 2022-01-01T00:00:00Z
	prepareMono = time.Second                 // not 0: Go guests treat 0 as a broken clock
	callMono    = callWall - prepareWall + prepareMono

	// tick passes at each reading. It is the resolution that clocks report.
	tick = time.Millisecond
	// maxPassed leaves room for the start of the later clock: 146 years.
	maxPassed = 1 << 62
)

// Clocks by their number (witx: clockid). All except the first are the same
// clock: a guest that never waits uses processor time all the time.
const (
	clockRealtime = 0
	clockLast     = 3 // monotonic, process_cputime_id, thread_cputime_id
)

// clock is the time that the guest sees. It starts at a fixed time, and each
// reading of any clock advances it by one millisecond, so that loops that wait
// for time to pass end. Sleeping advances it without waiting. It stops at its
// limit and never goes back.
type clock struct {
	wall, mono time.Duration // at the start
	passed     time.Duration
	limit      time.Duration // of passed
}

func (c *clock) reset(preparing bool) {
	if preparing {
		*c = clock{prepareWall, prepareMono, 0, callMono - prepareMono - 1}
	} else {
		*c = clock{callWall, callMono, 0, maxPassed}
	}
}

// start returns the first time of a clock.
func (c *clock) start(id uint32) time.Duration {
	if id == clockRealtime {
		return c.wall
	}
	return c.mono
}

func (c *clock) read(id uint32) time.Duration {
	c.passed = min(c.passed+tick, c.limit)
	return c.start(id) + c.passed
}

// after returns the time passed after d more nanoseconds.
func (c *clock) after(d uint64) time.Duration {
	return c.passed + time.Duration(min(d, uint64(c.limit-c.passed)))
}

// at returns the time passed when a clock shows t nanoseconds. It may be in the
// past.
func (c *clock) at(id uint32, t uint64) time.Duration {
	return min(time.Duration(min(t, math.MaxInt64))-c.start(id), c.limit)
}

// clockTimeGet reads a clock. It always has the requested precision, because
// readings are exact.
func clockTimeGet(s *State, m api.Memory, p []uint64) errno {
	id := uint32(p[0])
	if id > clockLast {
		return errInval
	}
	b, e := view(m, p[2], 8)
	if e == success {
		le.PutUint64(b, uint64(s.clock.read(id)))
	}
	return e
}

func clockResGet(_ *State, m api.Memory, p []uint64) errno {
	if uint32(p[0]) > clockLast {
		return errInval
	}
	return writeUint64(m, p[1], uint64(tick))
}
