package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

// flowScreen shows the progress of a run: on a terminal a line for each state, which
// is drawn again and again, and plain lines every few seconds elsewhere.
type flowScreen struct {
	out   io.Writer
	mode  string // plain, draw or none
	mu    sync.Mutex
	drawn int // lines
	said  time.Time
	width int
}

func newFlowScreen(c *console, mode string) *flowScreen {
	s := &flowScreen{out: c.err, mode: mode}
	file, isFile := c.err.(*os.File)
	if mode == "auto" {
		s.mode = "plain"
		if isFile && term.IsTerminal(int(file.Fd())) {
			s.mode = "draw"
			s.width, _, _ = term.GetSize(int(file.Fd()))
		}
	}
	return s
}

// say prints a line.
func (s *flowScreen) say(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	fmt.Fprintln(s.out, "wasm-jobs: "+printable(fmt.Sprintf(format, args...)))
}

// clear removes the drawing. mu is held.
func (s *flowScreen) clear() {
	if s.drawn > 0 {
		fmt.Fprintf(s.out, "\x1b[%dA\x1b[J", s.drawn)
		s.drawn = 0
	}
}

func (s *flowScreen) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
}

// observer returns the function that shows reports of a run; nil if none are shown.
func (s *flowScreen) observer() func(*flow.Report) {
	switch s.mode {
	case "draw":
		return s.draw
	case "plain":
		return s.plain
	}
	return nil
}

// everyLine is the interval of plain lines.
const everyLine = 5 * time.Second

func (s *flowScreen) plain(r *flow.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.said.IsZero() {
		s.said = time.Now()
	}
	if time.Since(s.said) < everyLine {
		return
	}
	s.said = time.Now()
	fmt.Fprintln(s.out, "wasm-jobs: "+itemsLine(r))
	for i := range r.States {
		fmt.Fprintln(s.out, "wasm-jobs:   "+stateLine(&r.States[i]))
	}
}

func (s *flowScreen) draw(r *flow.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clear()
	lines := []string{itemsLine(r)}
	for i := range r.States {
		st := &r.States[i]
		lines = append(lines, barOf(st.Left+st.Failed, st.Entered)+" "+stateLine(st))
	}
	for _, line := range lines {
		if s.width > 0 && len(line) > s.width {
			line = line[:s.width]
		}
		fmt.Fprintln(s.out, line)
	}
	s.drawn = len(lines)
}

func barOf(done, all int) string {
	const width = 20
	n := 0
	if all > 0 {
		n = done * width / all
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(" ", width-n) + "]"
}

func itemsLine(r *flow.Report) string {
	i := &r.Items
	line := fmt.Sprintf("%s: %d ended, %d failed, %d live", plural(i.Total, "item"), i.Ended, i.Failed, i.Live)
	if i.Held > 0 {
		line += fmt.Sprintf(", %d held", i.Held)
	}
	return line
}

func stateLine(s *flow.StateReport) string {
	return fmt.Sprintf("%s: %d entered, %d left, %d failed, %d waiting, %d executing, %d limited, %d retrying",
		s.Name, s.Entered, s.Left, s.Failed, s.Waiting, s.Executing, s.Limited, s.Retrying)
}

// finish prints the end of the run.
func (s *flowScreen) finish(r *flow.Report) {
	if s.mode == "none" {
		return
	}
	s.say("flow %s %s in %s: %s, %s", r.Run, r.State, time.Duration(r.Seconds*float64(time.Second)).Round(time.Millisecond), itemsLine(r), plural(r.Items.Steps, "step"))
	if b := r.Bottleneck; b != nil && b.Share > 0.1 {
		s.say("bottleneck: state %s, %s, for %.0f %% of the time", b.State, b.Cause, b.Share*100)
	}
}
