// Package progress shows the progress of a job to people, and writes its events.
package progress

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/dustin/go-humanize/english"
	"github.com/schollz/progressbar/v3"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/event"
)

// Every is the time between two lines of progress, if there is no terminal for a bar,
// and between two lines about failures of one kind.
const Every = 5 * time.Second

// Config configures a Display.
type Config struct {
	Out      io.Writer // usually a terminal
	Mode     string    // auto, bar, plain or none
	LogLevel int32     // the lowest level of guest messages that are printed
	Lines    bool      // each chunk is one line of a text: --chunk-lines would change that
	Events   io.Writer // gets events as JSON lines; nil = none
	// Message rewrites the message of a failure for the command's users; nil = unchanged.
	Message func(class abi.Class, message string) string
}

// Display shows a job to people, and writes its events to a file. It is safe for
// concurrent use: the scheduler and the callers of the store share it.
type Display struct {
	mu       sync.Mutex // guards drawing: bar, phase, start, last
	err      io.Writer
	mode     string // bar, plain or none
	logLevel int32
	bar      *progressbar.ProgressBar
	start    time.Time // when phase began
	phase    string
	last     time.Time // when the last line of progress was printed
	events   *bufio.Writer
	message  func(class abi.Class, message string) string
	failures groups
	warned   bool      // that all chunks failed
	lines    bool      // each chunk is one line
	more     time.Time // when failures were last printed
	colours  terminal.Colours
}

// New returns a Display. The mode auto is bar if Out is a terminal, and plain
// otherwise.
func New(c Config) *Display {
	d := &Display{err: c.Out, mode: c.Mode, logLevel: c.LogLevel, lines: c.Lines, last: time.Now(), message: c.Message, colours: terminal.ColoursOf(c.Out)}
	if d.message == nil {
		d.message = func(_ abi.Class, message string) string { return message }
	}
	if d.mode == "auto" {
		d.mode = "plain"
		if terminal.Is(c.Out) {
			d.mode = "bar"
		}
	}
	if c.Events != nil {
		d.events = bufio.NewWriter(c.Events)
	}
	return d
}

// Say prints a line.
func (d *Display) Say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.line(format, args...)
}

// Write prints whole lines, as Say does.
func (d *Display) Write(lines []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bar != nil {
		_ = d.bar.Clear()
	}
	return d.err.Write(lines)
}

// line is Say for callers that hold mu.
func (d *Display) line(format string, args ...any) {
	if d.bar != nil {
		_ = d.bar.Clear()
	}
	prefix := "wasm-jobs:"
	if strings.HasPrefix(format, "warning: ") {
		prefix = d.colours.In(terminal.Yellow, prefix)
	}
	fmt.Fprintf(d.err, prefix+" "+format+"\n", args...)
}

// Scanned shows the progress of the scan of the chunk file, in bytes. total is 0 if it
// is unknown.
func (d *Display) Scanned(bytes, total int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mode == "none" || time.Since(d.last) < Every {
		return
	}
	d.last = time.Now()
	of := ""
	if total > 0 {
		of = fmt.Sprintf(" of %s", humanize.IBytes(uint64(total)))
	}
	d.line("reading chunks: %s%s", humanize.IBytes(uint64(bytes)), of)
}

// Progress implements [host.Observer].
func (d *Display) Progress(phase string, c host.Counts) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if phase != d.phase {
		d.phase, d.start = phase, time.Now()
		d.clear()
	}
	d.hopeless(c)
	done := c.Succeeded + c.Failed
	switch {
	case d.mode == "none" || phase != "execute" || c.Total == 0:
	case d.mode == "bar":
		if d.bar == nil {
			d.bar = progressbar.NewOptions(c.Total, progressbar.OptionSetWriter(d.err),
				progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("chunks"),
				progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionFullWidth(),
				progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false), progressbar.OptionClearOnFinish())
		}
		d.bar.Describe(barWords(c, time.Since(d.start)))
		_ = d.bar.Set(done) // ignore that a bar cannot be drawn
	case time.Since(d.last) >= Every:
		d.last = time.Now()
		elapsed := time.Since(d.start)
		rate := float64(done-c.Reused) / elapsed.Seconds()
		eta := "unknown"
		if left, ok := timeLeft(c, elapsed); ok {
			eta = left.Round(time.Second).String()
		}
		d.line("%d/%d chunks (%d%%), %.0f/s, %d failed, ETA %s", done, c.Total, done*100/c.Total, rate, c.Failed, eta)
	}
}

// barWords returns the text of the bar: the time since the phase began, the time that is
// left, and the failed chunks.
func barWords(c host.Counts, elapsed time.Duration) string {
	words := shortTime(elapsed)
	if left, ok := timeLeft(c, elapsed); ok {
		words += ", " + shortTime(left) + " left"
	}
	if c.Failed > 0 {
		words += fmt.Sprintf(", %d failed", c.Failed)
	}
	return words
}

// timeLeft estimates the time until all chunks are done. Reused chunks take none.
func timeLeft(c host.Counts, elapsed time.Duration) (left time.Duration, ok bool) {
	done := c.Succeeded + c.Failed
	executed := done - c.Reused
	if executed < 1 || elapsed <= 0 {
		return 0, false
	}
	return time.Duration(float64(c.Total-done) / float64(executed) * float64(elapsed)), true
}

// shortTime returns a time in seconds, such as 12 s or 1m44s.
func shortTime(d time.Duration) string {
	if d = d.Round(time.Second); d < time.Minute {
		return fmt.Sprintf("%d s", int(d.Seconds()))
	}
	return d.String()
}

// clear removes the bar. The caller holds mu.
func (d *Display) clear() {
	if d.bar != nil {
		_ = d.bar.Clear()
		d.bar = nil
	}
}

// Wants implements [host.Observer].
func (d *Display) Wants() event.Detail {
	if d.events != nil || d.logLevel < 127 {
		return event.Chunks
	}
	if d.mode != "none" {
		return event.Attempts
	}
	return event.ProgressOnly
}

// Observe implements [host.Observer].
func (d *Display) Observe(events []host.Event) {
	for _, e := range events {
		switch {
		case e.Kind == event.KindLog && e.Level >= d.logLevel:
			d.Say("guest, chunk %v: %s", e.ID, e.Message)
		case e.Kind == event.KindFailed && e.ID != nil && e.Failure != nil:
			d.mu.Lock()
			d.failed(*e.ID, e.Attempt, e.Failure)
			d.mu.Unlock()
		}
		if d.events != nil {
			line, _ := json.Marshal(e.Plain())
			d.events.Write(line)
			d.events.WriteByte('\n')
		}
	}
	if d.events != nil {
		d.events.Flush() // for readers of a pipe; Finish returns the error
	}
}

// Finish prints the result of the job, and returns the first error of writing events.
func (d *Display) Finish(result *host.Result) error {
	d.Close()
	d.summarize(result)
	if d.events == nil {
		return nil
	}
	return d.events.Flush()
}

func (d *Display) summarize(result *host.Result) {
	r := &result.Report
	d.mu.Lock()
	d.finished(r.Failures)
	d.mu.Unlock()
	if d.mode == "none" {
		return
	}
	c := r.Chunks
	pending := ""
	if left := c.Total - c.Succeeded - c.Failed; left > 0 {
		pending = fmt.Sprintf(", %d not run", left)
	}
	if r.Skipped != nil {
		pending += fmt.Sprintf(", %s skipped", plural(*r.Skipped, "malformed record"))
	}
	seconds := r.Phases.Compile + r.Phases.Prepare + r.Phases.Execute + r.Phases.Fold
	d.Say("%s: %d succeeded (%d reused), %d failed%s; %s, %s, %.3gs",
		plural(c.Total, "chunk"), c.Succeeded, c.Reused, c.Failed, pending,
		plural(r.Attempts, "attempt"), plural(r.Workers, "worker"), seconds)
	if hint := costly(r); d.lines && hint != "" {
		d.Say("%s", hint)
	}
}

// plural returns a number with its noun.
func plural(n int, noun string) string {
	return fmt.Sprintf("%d %s", n, english.PluralWord(n, noun, ""))
}

// Close removes the bar.
func (d *Display) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clear()
}
