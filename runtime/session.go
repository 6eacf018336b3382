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

// leaseFactor bounds how often heartbeats renew a lease: ten times its length
// in all.
const leaseFactor = 10

// session is the host's side of one instance: what its imports read and write.
// It is used by one goroutine at a time.
type session struct {
	meter
	wasi   *wasi.State
	log    logger
	failed *abi.Failure // what the guest said of the step that runs
	renews bool         // heartbeats move the deadline
	memory *linear.Memory
	step   step
	stack  [2]uint64 // parameters and results of the call that runs
}

// step is the context in which the guest is called: it ends with that of the
// caller, and is how host functions find their session. It has no other values:
// the engine looks some up in each call, and the caller's chain may be long.
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

// context returns the context for a step of which ctx is the caller's.
func (s *session) context(ctx context.Context) *step {
	s.step = step{ctx, s}
	return &s.step
}

// start begins a step, on whose failure nothing that came before has a say.
func (s *session) start(ctx context.Context, budget uint64, timeout time.Duration, renews bool) {
	s.begin(ctx, budget, timeout)
	s.failed, s.renews = nil, renews
	s.memory.ForgetDenied()
}

// verdict keeps the first reason that the guest gave for the failure of the
// current step.
func (s *session) verdict(f *abi.Failure) {
	if s.failed == nil {
		s.failed = f
	}
}

// beat is what a heartbeat of the guest does. One that was told to stop has
// failed, since what it does then depends on time.
func (s *session) beat() bool {
	switch {
	case !s.renews && s.ctx.Err() == nil && !s.late():
		return true
	case s.renews && s.renew():
		return true
	case s.ctx.Err() == nil:
		s.verdict(s.timedOut())
	}
	return false
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
