package event_test

import (
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/event"
)

type heard struct {
	detail event.Detail
	kinds  []event.Kind
	phases int
}

func (h *heard) Progress(string, event.Counts) { h.phases++ }
func (h *heard) Wants() event.Detail           { return h.detail }
func (h *heard) Observe(events []event.Event) {
	for _, e := range events {
		h.kinds = append(h.kinds, e.Kind)
	}
}

func TestMulti(t *testing.T) {
	if event.Multi() != nil || event.Multi(nil, nil) != nil {
		t.Error("Multi of no observers is not nil")
	}
	little, some, much := &heard{}, &heard{detail: event.Attempts}, &heard{detail: event.Outputs}
	m := event.Multi(little, nil, event.Multi(some, much))
	if m.Wants() != event.Outputs {
		t.Errorf("wants %d", m.Wants())
	}
	m.Progress("execute", event.Counts{})
	m.Observe([]event.Event{{Kind: event.KindSucceeded}, {Kind: event.KindFailed}, {Kind: event.KindLog}})
	m.Observe([]event.Event{{Kind: event.KindReused}})
	if little.kinds != nil || little.phases != 1 {
		t.Errorf("events %v, want only progress", little.kinds)
	}
	if !slices.Equal(some.kinds, []event.Kind{event.KindFailed}) {
		t.Errorf("events %v", some.kinds)
	}
	if !slices.Equal(much.kinds, []event.Kind{event.KindSucceeded, event.KindFailed, event.KindLog, event.KindReused}) {
		t.Errorf("events %v", much.kinds)
	}
}
