package runtime

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// errTimeout is the cause of a context whose lease ran out.
var errTimeout = errors.New("timeout")

// leaseFactor bounds how often heartbeats renew a lease: ten times its length
// in all.
const leaseFactor = 10

// session is the host's side of one instance: what its imports read and write.
// It is used by one goroutine at a time, apart from the timer.
type session struct {
	clock  clock
	random random
	log    logger
	failed *abi.Failure // the first verdict on the step that runs
	memory *linearMemory

	ctx     context.Context // of the step that runs
	timer   *time.Timer     // ends ctx; nil without a timeout
	timeout time.Duration
	last    time.Time // beyond which no heartbeat moves the deadline
	renews  bool
}

type sessionKey struct{}

func sessionOf(ctx context.Context) *session { return ctx.Value(sessionKey{}).(*session) }

// step is the context of one step on an instance. It ends with its parent, or
// with the cause errTimeout.
type step struct {
	context.Context
	s      *session
	parent context.Context
	cancel context.CancelCauseFunc
}

func (c *step) Value(key any) any {
	if key == (sessionKey{}) {
		return c.s
	}
	return c.Context.Value(key)
}

// begin starts a step of at most the given time; 0 is no limit. With renews,
// heartbeats move its end. The step must be ended.
func (s *session) begin(parent context.Context, timeout time.Duration, renews bool) *step {
	ctx, cancel := context.WithCancelCause(parent)
	s.ctx, s.timeout, s.timer, s.failed, s.renews = ctx, timeout, nil, nil, renews
	if timeout > 0 {
		s.last = time.Now().Add(leaseFactor * timeout)
		s.timer = time.AfterFunc(timeout, func() { cancel(errTimeout) })
	}
	return &step{ctx, s, parent, cancel}
}

// end stops the clock of the step and says how it was interrupted: the error
// of the parent's end, which goes before all others, what the guest or the
// host said first, or a timeout.
func (c *step) end() error {
	if c.s.timer != nil {
		c.s.timer.Stop()
	}
	cause := context.Cause(c.Context)
	c.cancel(nil)
	switch {
	case cause != nil && cause != errTimeout:
		return c.parent.Err()
	case c.s.failed != nil:
		return c.s.failed
	case cause != nil:
		return c.s.timedOut()
	}
	return nil
}

func (s *session) timedOut() *abi.Failure {
	return abi.Failf(abi.ClassTimeout, "ran longer than %s", s.timeout)
}

// verdict keeps the first reason why the current step failed.
func (s *session) verdict(f *abi.Failure) {
	if s.failed == nil {
		s.failed = f
	}
}

// renew moves the end of the lease to its full length from now, but not
// beyond ten times that length in all. It reports whether the guest may go on;
// one that was told to stop has failed, since what it does then depends on
// time.
func (s *session) renew() bool {
	if s.ctx.Err() != nil {
		s.verdict(s.timedOut())
		return false
	}
	if s.timer == nil || !s.renews {
		return true
	}
	left := min(time.Until(s.last), s.timeout)
	if left <= 0 || !s.timer.Stop() {
		s.timer.Reset(0)
		s.verdict(s.timedOut())
		return false
	}
	s.timer.Reset(left)
	return true
}

// The instants at which the guest's clocks start, as Unix time and as time
// since the boot of an imagined machine. Preparing happens before any call.
const (
	prepareWall = 1_640_991_600 * time.Second // 2021-12-31T23:00:00Z
	callWall    = 1_640_995_200 * time.Second // 2022-01-01T00:00:00Z
	prepareMono = time.Second                 // not 0: Go guests take that for a broken clock
	callMono    = callWall - prepareWall + prepareMono
	tick        = time.Millisecond
)

// clock is what the guest sees of time: it starts at a fixed instant and each
// reading, of either clock, lets one millisecond pass, so that loops that wait
// for time to pass end. Sleeping moves it and takes no time.
type clock struct {
	wall, mono time.Duration // at the start
	passed     time.Duration
	limit      time.Duration // of passed
}

func (c *clock) prepare() {
	*c = clock{prepareWall, prepareMono, 0, callMono - prepareMono - 1}
}

func (c *clock) call() { *c = clock{callWall, callMono, 0, 1 << 62} }

func (c *clock) pass(d time.Duration) time.Duration {
	c.passed += min(max(d, 0), c.limit-c.passed)
	return c.passed
}

func (c *clock) walltime() (sec int64, nsec int32) {
	t := c.wall + c.pass(tick)
	return int64(t / time.Second), int32(t % time.Second)
}

func (c *clock) nanotime() int64    { return int64(c.mono + c.pass(tick)) }
func (c *clock) nanosleep(ns int64) { c.pass(time.Duration(ns)) }

// random gives the bytes of random_get: ChaCha8 (C2SP chacha8rand) under a key
// that is the SHA-256 of the phase, the seed and the bytes passed to the call.
// The key is only made where a guest asks.
type random struct {
	phase  string
	seed   uint64
	input  []byte
	stream *rand.ChaCha8
}

func (r *random) Read(p []byte) (int, error) {
	if r.stream == nil {
		h := sha256.New()
		h.Write([]byte("wasm-jobs random 1 " + r.phase + "\x00"))
		h.Write(binary.BigEndian.AppendUint64(nil, r.seed))
		h.Write(r.input)
		r.stream = rand.NewChaCha8([32]byte(h.Sum(nil)))
	}
	return r.stream.Read(p)
}

// Bounds of what one call may log.
const (
	maxLogLines = 1000
	maxLogBytes = 64 << 10
)

// logger passes the lines of one call on, as many as its budget allows.
type logger struct {
	to      func(level int32, line string)
	lines   int
	bytes   int
	dropped int
	partial []byte // of standard output or error
}

func (l *logger) start(to func(level int32, line string)) { *l = logger{to: to} }

func (l *logger) line(level int32, line string) {
	if l.to == nil {
		return
	}
	if l.lines == maxLogLines || l.bytes+len(line) > maxLogBytes {
		l.dropped++
		return
	}
	l.lines++
	l.bytes += len(line)
	l.to(level, line)
}

// Write takes what a guest writes to its standard output and error: each line
// is logged at level debug. It never fails.
func (l *logger) Write(b []byte) (int, error) {
	n := len(b)
	for l.to != nil {
		line, rest, ended := bytes.Cut(b, []byte{'\n'})
		l.partial = append(l.partial, line[:min(len(line), maxText+4-min(len(l.partial), maxText+4))]...)
		if !ended {
			break
		}
		l.flush()
		b = rest
	}
	return n, nil
}

func (l *logger) flush() {
	l.line(abi.LogDebug, plainText(bytes.TrimSuffix(l.partial, []byte{'\r'})))
	l.partial = l.partial[:0]
}

// finish ends the log of one call: it says how much was dropped.
func (l *logger) finish() {
	if len(l.partial) > 0 {
		l.flush()
	}
	if l.to != nil && l.dropped > 0 {
		l.to(abi.LogWarn, fmt.Sprintf("%d more log lines dropped: a call may log %d lines and %d bytes", l.dropped, maxLogLines, maxLogBytes))
	}
	*l = logger{}
}
