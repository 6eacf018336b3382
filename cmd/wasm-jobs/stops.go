package main

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// stops are the two ways to end a job early: softly after a first signal, hard
// after a second.
type stops struct {
	soft, hard context.Context
	signals    chan os.Signal
	done       chan struct{}
}

// hardTime is how long a hard stop may take before the process ends.
const hardTime = time.Second

// notify begins to listen for SIGINT and SIGTERM. stopping is called for the
// first; a third one, or a hard stop that takes longer than hardTime, ends the
// process after a call of abandon.
func notify(ctx context.Context, stopping, abandon func()) *stops {
	quit := sync.OnceFunc(func() {
		abandon()
		os.Exit(exitInterrupted)
	})
	s := &stops{signals: make(chan os.Signal, 3), done: make(chan struct{})}
	hard, cancelHard := context.WithCancel(ctx)
	soft, cancelSoft := context.WithCancel(hard)
	s.soft, s.hard = soft, hard
	signal.Notify(s.signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		defer close(s.done)
		defer cancelHard()
		for count := 0; ; {
			if _, more := <-s.signals; !more {
				return
			}
			switch count++; count {
			case 1:
				cancelSoft()
				stopping()
			case 2:
				cancelHard()
				time.AfterFunc(hardTime, quit)
			default:
				quit()
			}
		}
	}()
	return s
}

// end stops listening and waits for the goroutine of notify.
func (s *stops) end() {
	signal.Stop(s.signals)
	close(s.signals)
	<-s.done
}

// within calls f, which may wait for a terminal, a pipe or another process.
// Where ctx ends, f has no more than hardTime: its goroutine then ends with the
// process.
func within[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	done := make(chan outcome, 1)
	go func() {
		value, err := f()
		done <- outcome{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return o.value, o.err
	case <-time.After(hardTime):
		var none T
		return none, host.ErrInterrupted
	}
}
