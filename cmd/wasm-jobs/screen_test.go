package main

import (
	"bytes"
	"io"
	"sync"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// The store speaks from the goroutines of workers, while the scheduler draws.
func TestScreenIsShared(t *testing.T) {
	s := newScreen(&console{err: io.Discard}, &runOptions{progress: "plain"})
	s.mode = "bar"
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 50 {
				s.say("store: an output is damaged")
			}
		})
	}
	for i := range 50 {
		s.Progress("execute", host.Counts{Total: 50, Succeeded: i})
		s.Progress("fold", host.Counts{Total: 50, Succeeded: i})
	}
	all.Wait()
	s.close()
}

// Events can be read as they happen, where they go into a pipe.
func TestEventsAreFlushed(t *testing.T) {
	var out bytes.Buffer
	o := &runOptions{progress: "none", files: resultFiles{events: "-"}}
	if err := o.files.open(&out); err != nil {
		t.Fatal(err)
	}
	s := newScreen(&console{err: io.Discard}, o)
	s.Observe([]host.Event{{Kind: host.KindPhase, Message: "compile"}})
	if !bytes.HasSuffix(out.Bytes(), []byte("}\n")) {
		t.Errorf("after an event there is %q", &out)
	}
}
