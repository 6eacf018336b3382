package queue_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/host/queue/queuetest"
)

func TestMemory(t *testing.T) {
	queuetest.Run(t, func(_ *testing.T, total, holders int, p queue.Policy) queuetest.Queue {
		return queue.NewMemory(total, holders, p, nil)
	})
}

// An observer does not change a queue, and receives an event for each lease and its
// end.
func TestMemoryTells(t *testing.T) {
	var told []string
	q := queue.NewMemory(11, 2, queue.Policy{}, func(events []event.Event) {
		for _, e := range events {
			told = append(told, fmt.Sprintf("%s %d: %d-%d %s", e.Kind, e.Worker, e.Lease.From, e.Lease.To, e.Lease.Why))
		}
	})
	do := func(holder, most int) queue.Lease {
		l, err := q.Lease(t.Context(), holder)
		if err != nil {
			t.Fatal(err)
		}
		for i := l.From; i < l.From+most && q.Renew(l.ID, i, 1).Goes(i); i++ {
		}
		q.Progress(l.ID, queue.Progress{Attempts: 1, Busy: time.Millisecond})
		return l
	}
	first := do(1, 1)
	q.Return(first.ID, 1)
	q.Done(first.ID)
	second := do(1, 2)
	third := do(2, 1)
	if active := q.Active(); len(active) != 2 {
		t.Errorf("active %+v", active)
	}
	q.Return(third.ID, third.From+1)
	q.Stop()
	q.Return(second.ID, 3)
	if active := q.Active(); len(active) != 0 {
		t.Errorf("active %+v", active)
	}
	want := []string{
		"leased 1: 0-0 ", "lease_ended 1: 0-0 done", "leased 1: 1-10 ",
		"lease_ended 1: 7-10 stolen", "leased 2: 7-10 ", "lease_ended 2: 7-10 returned", "lease_ended 1: 1-10 cancelled",
	}
	if fmt.Sprint(told) != fmt.Sprint(want) {
		t.Errorf("events\n%q, want\n%q", told, want)
	}
}

func ExampleNewMemory() {
	q := queue.NewMemory(3, 1, queue.DefaultPolicy(), nil)
	for {
		select {
		case <-q.Drained():
			q.Close()
			return
		default:
		}
		l, err := q.Lease(context.Background(), 1)
		if err != nil {
			return
		}
		for i := l.From; q.Renew(l.ID, i, 1).Goes(i); i++ {
			fmt.Println("chunk", i)
			q.Progress(l.ID, queue.Progress{Finished: 1, Attempts: 1, Busy: time.Millisecond})
		}
		q.Return(l.ID, l.To) // nothing goes back to the queue
		q.Done(l.ID)         // all outputs are stored
	}
	// Output:
	// chunk 0
	// chunk 1
	// chunk 2
}
