package interrupt

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestSignals(t *testing.T) {
	c := make(chan os.Signal, 1) // makes package signal start its goroutine here, outside the bubble
	signal.Notify(c, syscall.SIGHUP)
	defer signal.Stop(c)

	const send, drain, wait = "signal", "drain", "wait"
	for _, tt := range []struct {
		name       string
		steps      []string
		soft, hard bool // have ended
		quit       bool
	}{
		{name: "no signal", steps: []string{wait}},
		{name: "one", steps: []string{send}, soft: true},
		{name: "one, and the command waits", steps: []string{send, wait}, soft: true, quit: true},
		{name: "one, and the command drains", steps: []string{drain, send, wait}, soft: true},
		{name: "one, and the command goes on to drain", steps: []string{send, drain, wait}, soft: true},
		{name: "two, and the command drains", steps: []string{drain, send, send}, soft: true, hard: true},
		{name: "two, and the command waits", steps: []string{drain, send, send, wait}, soft: true, hard: true, quit: true},
		{name: "three", steps: []string{drain, send, send, send}, soft: true, hard: true, quit: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				first, last := errors.New("first"), errors.New("last")
				var mu sync.Mutex
				var did []string // mu
				do := func(what string) {
					mu.Lock()
					defer mu.Unlock()
					did = append(did, what)
				}
				s := Watch(t.Context(), first, func(err error) { do("exit: " + err.Error()) })
				s.Notice(func() { do("notice") })
				s.Cleanup(func() { do("clean") })
				s.Outcome(last)
				for _, step := range tt.steps {
					switch step {
					case send:
						s.signals <- syscall.SIGTERM
					case drain:
						s.Drain()
					case wait:
						time.Sleep(2 * Time) // of the bubble
					}
					synctest.Wait()
				}
				var want []string
				if tt.soft {
					want = append(want, "notice")
				}
				if tt.quit {
					want = append(want, "clean", "exit: last")
				}
				if ended(s.Soft) != tt.soft || ended(s.Hard) != tt.hard || !slices.Equal(did, want) {
					t.Errorf("soft %v, hard %v, %q, want %v, %v and %q", ended(s.Soft), ended(s.Hard), did, tt.soft, tt.hard, want)
				}
				if s.Cut() != (tt.soft && !slices.Contains(tt.steps, drain)) {
					t.Errorf("cut: %v", s.Cut())
				}
				s.End()
				if !ended(s.Soft) || !ended(s.Hard) {
					t.Error("the contexts are alive after End")
				}
				time.Sleep(2 * Time)
				synctest.Wait()
				if !slices.Equal(did, want) {
					t.Errorf("after the end: %q", did)
				}
			})
		})
	}
}

func ended(ctx context.Context) bool { return ctx.Err() != nil }

// A cleanup that blocks on a file system does not prevent the process from ending.
func TestStuckCleanup(t *testing.T) {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	defer signal.Stop(c)
	synctest.Test(t, func(t *testing.T) {
		stuck, quit := make(chan struct{}), make(chan struct{})
		s := Watch(t.Context(), context.Canceled, func(error) { close(quit) })
		defer s.End()
		s.Cleanup(func() { <-stuck })
		s.signals <- syscall.SIGTERM
		<-quit
		close(stuck)
	})
}
