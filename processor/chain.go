package processor

import (
	"context"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Chain makes the responses of one processor, from now on, the requests of
// another, under the same ids. A failure is not executed: it becomes a response of
// the other processor at once. If the other processor has no room, the first one
// waits, and so do its senders: a chain of any length holds no more than its queues.
//
// Stop the processors from the first to the last. If another is stopped or ends
// before the one in front of it, the Stop of the one in front returns an error. A
// chain must not be a circle.
func Chain[A, B, C any](from *Processor[A, B], to *Processor[B, C]) {
	from.mu.Lock()
	defer from.mu.Unlock()
	links := append([]func(context.Context, Response[B]) error{}, from.links...) // the old ones may be in use
	from.links = append(links, func(ctx context.Context, r Response[B]) error {
		if r.Err != nil {
			return to.passBy(r.ID, r.Err)
		}
		err := to.Send(ctx, r.ID, r.Result.Output)
		if errors.Is(err, ErrDuplicate) {
			return to.passBy(r.ID, err)
		}
		return chainError(err)
	})
}

// passBy publishes a failure of the processor in front, and passes it on.
func (p *Processor[In, Out]) passBy(id abi.ID, err error) error {
	if !p.enter() {
		return chainError(p.refusal())
	}
	defer p.leave()
	response := Response[Out]{ID: id, Err: err}
	p.feed.publish(response)
	p.forward(response)
	return nil
}

func chainError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("a response could not be passed on: %w", err)
}
