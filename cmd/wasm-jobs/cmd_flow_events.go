package main

import (
	"bufio"
	"encoding/json"
	"io"

	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// flowEvents writes the events of a flow as JSON lines, and shows log lines of guests.
type flowEvents struct {
	screen   *flowScreen
	out      *bufio.Writer // nil = no file
	logLevel int32
}

func newFlowEvents(screen *flowScreen, out io.Writer, logLevel int32) *flowEvents {
	e := &flowEvents{screen: screen, logLevel: logLevel}
	if out != nil {
		e.out = bufio.NewWriter(out)
	}
	return e
}

// observer returns the observer of a run; nil if nothing is to be written or shown.
func (e *flowEvents) observer() event.Observer {
	if e.out == nil && e.logLevel == logOff {
		return nil
	}
	return e
}

// Progress implements [event.Observer].
func (e *flowEvents) Progress(string, event.Counts) {}

// Wants implements [event.Observer].
func (e *flowEvents) Wants() event.Detail { return event.Chunks }

// Observe implements [event.Observer].
func (e *flowEvents) Observe(events []event.Event) {
	for i := range events {
		e.one(&events[i])
	}
	if e.out != nil {
		e.out.Flush() // for readers of a pipe; close returns the error
	}
}

func (e *flowEvents) one(v *event.Event) {
	if v.Kind == event.KindLog && v.Level >= e.logLevel {
		e.screen.say("guest, item %s in state %s: %s", idString(*v.ID), v.State, v.Message)
	}
	if e.out == nil || v.Kind == event.KindLeased || v.Kind == event.KindLeaseEnded { // the file is about steps
		return
	}
	line, _ := json.Marshal(v) // plain data
	e.out.Write(line)
	e.out.WriteByte('\n')
}

// close returns the first error of writing.
func (e *flowEvents) close() error {
	if e.out == nil {
		return nil
	}
	return e.out.Flush()
}
