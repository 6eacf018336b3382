package queue

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Policy controls which failures are retried, and when.
type Policy struct {
	// Retries is the maximum number of attempts after the first.
	Retries int
	// Classes are the classes that are retried; nil means [DefaultClasses].
	Classes []abi.Class
	// MaxRequeues is the number of times that a chunk may return to the queue
	// uncounted.
	MaxRequeues int
	// Backoff is the delay before the first retry, which doubles up to BackoffMax,
	// with jitter. A waiting retry holds no worker.
	Backoff, BackoffMax time.Duration
	// Deterministic retries a chunk even after two attempts ended in the same trap.
	// For a hermetic guest, that proves that a third attempt would end in it, too.
	Deterministic bool
}

// DefaultPolicy returns the policy of the command line.
func DefaultPolicy() Policy {
	return Policy{Retries: 3, Backoff: 50 * time.Millisecond, BackoffMax: 5 * time.Second, MaxRequeues: 100}
}

// DefaultClasses are retried unless a policy names others.
func DefaultClasses() []abi.Class {
	return []abi.Class{abi.ClassTrap, abi.ClassMemory, abi.ClassTimeout, abi.ClassGuestRetryable, abi.ClassHost}
}

func (p *Policy) retries(c abi.Class) bool {
	if p.Classes == nil {
		return slices.Contains(DefaultClasses(), c)
	}
	return slices.Contains(p.Classes, c)
}

// History is the record of the failed attempts on a chunk.
type History struct {
	Failures int // number of failures that count
	Requeues int
	Last     *abi.Failure // nil before the first one that counts
}

// Verdict is the next step for a chunk after a failed attempt.
type Verdict uint8

// The verdicts.
const (
	Fail    Verdict = iota // no more attempts
	Retry                  // another attempt
	Requeue                // another attempt; the failed one did not count
)

// Decision is a verdict and its reason.
type Decision struct {
	Verdict Verdict
	Attempt int // number of attempts so far, counted or not
	// Failure is the failure that the chunk ends with, or the failure of this
	// attempt.
	Failure   *abi.Failure
	NotBefore time.Time // earliest time of the next attempt
}

// Decide returns the decision about a chunk whose attempt failed with f, and the
// history including that attempt.
func Decide(h History, f *abi.Failure, p *Policy) (History, Decision) {
	d := Decision{Failure: f}
	if f.Class == abi.ClassRequeued {
		if h.Requeues++; h.Requeues > p.MaxRequeues {
			d.Failure = abi.Failf(f.Class, "returned to the queue %d times: %s", h.Requeues, f.Message)
		} else {
			d.Verdict = Requeue
		}
	} else {
		h.Failures++
		switch {
		case !p.retries(f.Class):
		case !p.Deterministic && f.SameTrap(h.Last):
			d.Failure = &abi.Failure{Class: f.Class, Stack: f.Stack, Logs: f.Logs, Message: f.Message + " (the same twice: deterministic)"}
		case h.Failures <= p.Retries:
			d.Verdict = Retry
		}
		h.Last = f
	}
	d.Attempt = h.Failures + h.Requeues
	return h, d
}

// chunkHistory is the history of a chunk, and the delay of its retries. It keeps a
// digest instead of the last failure: very many chunks may wait, each with several
// KiB of the guest's text.
type chunkHistory struct {
	failures, requeues int
	trap               [sha256.Size]byte           // of the last failure; zero if no other failure can equal it
	backoff            *backoff.ExponentialBackOff // nil before the first retry
}

// decide is [Decide] with the history in h, which it updates.
func (h *chunkHistory) decide(f *abi.Failure, p *Policy) Decision {
	before := History{Failures: h.failures, Requeues: h.requeues}
	var trap [sha256.Size]byte
	if p.retries(f.Class) && !p.Deterministic { // otherwise it makes no difference
		trap = trapOf(f)
	}
	if trap == h.trap {
		before.Last = f
	}
	after, d := Decide(before, f, p)
	if after.Failures > before.Failures {
		h.trap = trap
	}
	h.failures, h.requeues = after.Failures, after.Requeues
	return d
}

// trapOf returns a digest that is equal for two failures only if they are the same
// trap. It is zero for failures without a stack, which equal no other.
func trapOf(f *abi.Failure) (sum [sha256.Size]byte) {
	if len(f.Stack) == 0 {
		return sum
	}
	d := sha256.New()
	for _, s := range append([]string{string(f.Class), f.Message}, f.Stack...) {
		fmt.Fprintf(d, "%d:%s", len(s), s)
	}
	d.Sum(sum[:0])
	return sum
}

// wait returns the delay of the next attempt after a verdict.
func (h *chunkHistory) wait(v Verdict, p *Policy) time.Duration {
	if v == Requeue || p.Backoff == 0 {
		return p.Backoff
	}
	if h.backoff == nil {
		h.backoff = backoff.NewExponentialBackOff(
			backoff.WithInitialInterval(p.Backoff), backoff.WithMaxInterval(max(p.Backoff, p.BackoffMax)),
			backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
	}
	return min(h.backoff.NextBackOff(), h.backoff.MaxInterval) // the jitter may exceed it
}

// Tries is the history of one chunk, or item, for a scheduler that is no
// [Queue] of its own: it decides as [Memory] does, and says how long the next
// attempt waits. The zero Tries has none. It is used by one goroutine at a time.
type Tries struct{ history chunkHistory }

// Decide takes in that an attempt failed with f, now, and says what becomes of
// the chunk.
func (t *Tries) Decide(now time.Time, f *abi.Failure, p *Policy) Decision {
	d := t.history.decide(f, p)
	if d.Verdict != Fail {
		d.NotBefore = now.Add(t.history.wait(d.Verdict, p))
	}
	return d
}
