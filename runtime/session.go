package runtime

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/linear"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// leaseFactor bounds the total extension of a deadline by heartbeats: ten times
// the timeout.
const leaseFactor = 10

// session is the host's side of one instance: the state of its imports. It is
// used by one goroutine at a time.
type session struct {
	meter
	wasi   *wasi.State
	log    logger
	failed *abi.Failure // set by the guest for the running step
	renews bool         // heartbeats move the deadline
	memory *linear.Memory
	step   step
	// outgrown, unless nil, reports whether a call that has used some fuel should be
	// made again by a faster engine.
	outgrown func(used int64) bool
	stack    [2]uint64 // parameters and results of the running call
}

// step is the context in which the guest is called. It ends with the caller's
// context, and host functions find their session in it. It has no other values:
// the engine looks some up in each call, and the caller's chain of contexts may
// be long.
type step struct {
	context.Context
	s *session
}

type sessionKey struct{}

// Value implements [context.Context].
func (c *step) Value(key any) any {
	if key == (sessionKey{}) {
		return c.s
	}
	return nil
}

func sessionOf(ctx context.Context) *session {
	if c, ok := ctx.(*step); ok { // a third of the time of Value
		return c.s
	}
	return ctx.Value(sessionKey{}).(*session)
}

// context returns the context for a step. ctx is the caller's.
func (s *session) context(ctx context.Context) *step {
	s.step = step{ctx, s}
	return &s.step
}

// start starts a step. Earlier steps have no influence on its failure.
func (s *session) start(ctx context.Context, budget uint64, timeout time.Duration, renews bool) {
	s.begin(ctx, budget, timeout)
	s.failed, s.renews = nil, renews
	s.memory.ForgetDenied()
}

// systemFailure is the failure of a step if the system did not have the memory
// that the guest is allowed to use.
func (s *session) systemFailure() *abi.Failure {
	return abi.Failf(abi.ClassHost, "the system has no memory: %v", s.memory.Failed())
}

// yield gives the guest its next slice of fuel, or ends the step.
func (s *session) yield(fuel, stack int64) int64 {
	if s.memory.Failed() != nil { // the step has already failed
		s.settle(fuel)
		panic(&stopError{s.systemFailure()})
	}
	if s.outgrown != nil && s.outgrown(s.granted-fuel) {
		s.settle(fuel)
		panic(&stopError{outgrownFailure})
	}
	return s.meter.yield(fuel, stack)
}

// verdict stores the first reason of the guest for the failure of the current
// step.
func (s *session) verdict(f *abi.Failure) {
	if s.failed == nil {
		s.failed = f
	}
}

// heartbeat handles a heartbeat of the guest and reports whether to go on. If the
// guest is told to stop, the call has failed, because its reaction depends on
// time.
func (s *session) heartbeat() bool {
	switch {
	case !s.renews && s.ctx.Err() == nil && !s.late():
		return true
	case s.renews && s.renew():
		return true
	case s.ctx.Err() == nil && s.outgrown != nil:
		panic(&stopError{outgrownFailure})
	case s.ctx.Err() == nil:
		s.verdict(s.timedOut())
	}
	return false
}

// Bounds of the log of one call.
const (
	maxLogLines = 1000
	maxLogBytes = 64 << 10
)

// logger passes on the lines of one call, within its limits, and keeps the last ones
// for a failure.
type logger struct {
	to      func(level int32, line string)
	lines   int
	bytes   int
	dropped int
	partial []byte // unfinished line of standard output or error
	words   words
}

func (l *logger) start(to func(level int32, line string)) {
	l.to, l.lines, l.bytes, l.dropped, l.partial = to, 0, 0, 0, l.partial[:0]
	l.words.start()
}

// line logs a line of the guest's import.
func (l *logger) line(level int32, line []byte) {
	l.words.logged(level, line)
	l.pass(level, line)
}

// pass passes on a line.
func (l *logger) pass(level int32, line []byte) {
	if l.to == nil {
		return
	}
	text := plainText(line)
	if l.lines == maxLogLines || l.bytes+len(text) > maxLogBytes {
		l.dropped++
		return
	}
	l.lines++
	l.bytes += len(text)
	l.to(level, text)
}

// Write logs each line that a guest writes to standard output and error at
// level debug. It never fails.
func (l *logger) Write(b []byte) (int, error) {
	n := len(b)
	for {
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
	line := bytes.TrimSuffix(l.partial, []byte{'\r'})
	l.words.printed(line)
	l.pass(abi.LogDebug, line)
	l.partial = l.partial[:0]
}

// complete ends an unfinished line.
func (l *logger) complete() {
	if len(l.partial) > 0 {
		l.flush()
	}
}

// finish ends the log of one call, and logs the number of dropped lines. The last
// words stay until start.
func (l *logger) finish() {
	l.complete()
	if l.to != nil && l.dropped > 0 {
		l.to(abi.LogWarn, fmt.Sprintf("%d more log lines dropped: a call may log %d lines and %d bytes", l.dropped, maxLogLines, maxLogBytes))
	}
	l.to = nil
}
