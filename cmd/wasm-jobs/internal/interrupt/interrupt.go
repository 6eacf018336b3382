// Package interrupt ends a command early, on SIGINT, SIGTERM or SIGHUP.
package interrupt

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// Time is how long a command may take to end, before the process ends abruptly.
const Time = time.Second

// Signals ends a command: softly at the first signal, at once at the second. It is
// safe for concurrent use.
//
// A command may block on a pipe, a lock or another process. The process therefore ends
// if the command has not ended within Time after the first signal, or after the second
// if it drains. It also ends at a third signal.
type Signals struct {
	// Soft ends with the first signal, Hard with the second.
	Soft, Hard context.Context

	cancelSoft, cancelHard context.CancelFunc
	signals                chan os.Signal
	done                   chan struct{}
	quit                   func() // called once

	mu       sync.Mutex // guards the fields below
	count    int        // signals so far
	draining bool
	timer    *time.Timer // until exit; nil before a signal
	notice   func()
	hangup   func() // nil: SIGHUP ends the command
	cleanup  []func()
	outcome  error // the error with which the command ends
}

// Watch starts to listen for signals. exit must end the process. It is called after the
// functions of Cleanup, with the error with which the command ends.
// A signal that is ignored when the process starts (nohup ignores SIGHUP) stays
// ignored. The caller must call End.
func Watch(ctx context.Context, outcome error, exit func(error)) *Signals {
	s := &Signals{outcome: outcome, signals: make(chan os.Signal, 3), done: make(chan struct{})}
	s.Hard, s.cancelHard = context.WithCancel(ctx)
	s.Soft, s.cancelSoft = context.WithCancel(s.Hard)
	s.quit = sync.OnceFunc(func() {
		s.clean()
		s.mu.Lock()
		defer s.mu.Unlock()
		exit(s.outcome)
	})
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			signal.Notify(s.signals, sig)
		}
	}
	go func() { // until End
		defer close(s.done)
		for sig := range s.signals {
			s.handle(sig)
		}
	}()
	return s
}

// End stops listening, and ends both contexts.
func (s *Signals) End() {
	signal.Stop(s.signals)
	close(s.signals)
	<-s.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	s.cancelHard()
}

// Notice registers f to be called at the first signal.
func (s *Signals) Notice(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notice = f
}

// Cleanup registers f to be called before the process ends abruptly.
func (s *Signals) Cleanup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cleanup = append(s.cleanup, f)
}

// Ask ends the command softly, as the first signal does. It does nothing after a signal.
func (s *Signals) Ask() {
	s.mu.Lock()
	first := s.count == 0
	s.mu.Unlock()
	if !first {
		return
	}
	if notice := s.next(); notice != nil {
		notice()
	}
}

// Outcome sets the error with which the command ends from now on.
func (s *Signals) Outcome(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.outcome = err
}

// Drain says that from now on the command ends by itself after the first signal, and
// may take longer than Time.
func (s *Signals) Drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	if s.timer != nil && s.count == 1 {
		s.timer.Stop()
	}
}

// Cut reports whether a signal has ended a command that does not drain. The signal may
// then be the cause of the command's error.
func (s *Signals) Cut() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count > 0 && !s.draining
}

// Hangup registers f to be called at each SIGHUP from now on. SIGHUP then does not end
// the command. f must not block.
func (s *Signals) Hangup(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hangup = f
}

func (s *Signals) handle(sig os.Signal) {
	if sig == syscall.SIGHUP {
		s.mu.Lock()
		hangup := s.hangup
		s.mu.Unlock()
		if hangup != nil {
			hangup()
			return
		}
	}
	if notice := s.next(); notice != nil {
		notice()
	}
}

// next handles a signal, and returns the function to call then.
func (s *Signals) next() (notice func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.count++
	switch s.count {
	case 1:
		s.cancelSoft()
		if !s.draining {
			s.timer = time.AfterFunc(Time, s.quit)
		}
		return s.notice
	case 2:
		s.cancelHard()
		if s.draining {
			s.timer = time.AfterFunc(Time, s.quit)
		}
	default:
		return s.quit
	}
	return nil
}

// clean calls the functions of Cleanup, and waits for them at most Time, because a file
// system may block them.
func (s *Signals) clean() {
	done := make(chan struct{})
	go func() { // until the process ends
		defer close(done)
		s.mu.Lock()
		cleanup := s.cleanup
		s.mu.Unlock()
		for _, f := range cleanup {
			f()
		}
	}()
	select {
	case <-done:
	case <-time.After(Time):
	}
}
