package runtime

import (
	"bytes"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// maxWords is the number of log lines that a failure has.
const maxWords = 8

// words keep what a guest said last in a call: its last log lines, the message of
// its panic, and the stack that its runtime printed. They are kept in buffers that
// the calls of an instance share, because nearly no call fails.
type words struct {
	lines [maxWords][]byte // a ring
	n     int              // number of lines so far
	said  []byte           // the message of a panic; empty = none
	open  bool             // the next line of standard error continues said
	trace traceback
}

func (w *words) start() {
	w.n, w.said, w.open = 0, w.said[:0], false
	w.trace.reset()
}

func (w *words) keep(line []byte) {
	slot := &w.lines[w.n%maxWords]
	*slot = append((*slot)[:0], cutBytes(line, maxText)...)
	w.n++
}

// logged keeps a line of a log. If a call ends in a trap right after a line of level
// error, the line says why: this is how SDKs report a panic.
func (w *words) logged(level int32, line []byte) {
	w.keep(line)
	w.said, w.open = w.said[:0], false
	if level >= abi.LogError {
		w.said = append(w.said, cutBytes(line, maxText)...)
	}
}

// printed keeps a line of standard output or error. Runtimes print why they give up.
func (w *words) printed(line []byte) {
	if len(bytes.TrimSpace(line)) == 0 {
		w.trace.end()
		return
	}
	if w.trace.add(line) {
		return
	}
	w.keep(line)
	switch {
	case isPanic(line):
		w.said = append(w.said[:0], cutBytes(line, maxText)...)
		w.open = bytes.HasSuffix(line, []byte{':'}) // Rust prints the place first
	case w.open:
		w.said, w.open = append(append(w.said, ' '), cutBytes(line, maxText)...), false
	}
}

// isPanic reports whether a line starts the last message of a program in Go, Rust or
// C.
func isPanic(line []byte) bool {
	return bytes.HasPrefix(line, []byte("panic: ")) || bytes.HasPrefix(line, []byte("fatal error: ")) ||
		bytes.HasPrefix(line, []byte("thread '")) && bytes.Contains(line, []byte("panicked at ")) ||
		bytes.HasPrefix(line, []byte("Assertion failed"))
}

// last returns the last lines, in order.
func (w *words) last() (lines []string) {
	for i := max(0, w.n-maxWords); i < w.n; i++ {
		lines = append(lines, plainText(w.lines[i%maxWords]))
	}
	return lines
}

// message returns the message of a panic as one line, or "". Go says the same panic
// several times, and with words about its own runtime.
func (w *words) message() string {
	text := strings.Join(strings.FieldsFunc(string(w.said), func(r rune) bool { return r == '\n' || r == '\r' }), " ")
	text = strings.TrimSuffix(strings.TrimSuffix(text, " [recovered, repanicked]"), " [recovered]")
	if rest, ok := strings.CutPrefix(text, "panic: runtime error: "); ok {
		text = "panic: " + rest
	}
	return plainText([]byte(strings.TrimSpace(text)))
}

// traceback reads the first stack that Go's runtime prints:
//
//	goroutine 1 [running]:
//	main.pick({0x2ede18, 0x3, 0x3}, 0x5)
//		example.com/guest/main.go:25 +0x4
//
// The stack of the engine has the same functions, but no lines.
type traceback struct {
	state  int
	frames []frame
	call   string // of a function whose line comes next
}

// The states of a traceback.
const (
	beforeTrace = iota
	inTrace
	afterTrace
)

func (t *traceback) reset() { t.state, t.frames, t.call = beforeTrace, t.frames[:0], "" }

func (t *traceback) end() {
	if t.state == inTrace {
		t.state = afterTrace
	}
}

// add reads a line, and reports whether it is part of a traceback.
func (t *traceback) add(line []byte) bool {
	if t.state == beforeTrace && bytes.HasPrefix(line, []byte("goroutine ")) && bytes.HasSuffix(line, []byte("]:")) {
		t.state = inTrace
		return true
	}
	if t.state != inTrace {
		return t.state == afterTrace && (line[0] == '\t' || bytes.HasPrefix(line, []byte("goroutine ")))
	}
	place, isPlace := bytes.CutPrefix(line, []byte{'\t'})
	switch {
	case !isPlace:
		t.call = plainText(cutBytes(withoutArguments(line), maxFrame))
	case t.call != "" && len(t.frames) < maxFrames:
		place, _, _ = bytes.Cut(place, []byte(" +0x"))
		t.frames = append(t.frames, frame{t.call, plainText(cutBytes(place, maxFrame))})
		t.call = ""
	}
	return true
}

// withoutArguments returns the name of the function in a call.
func withoutArguments(call []byte) []byte {
	if at := bytes.LastIndexByte(call, '('); at > 0 && bytes.HasSuffix(call, []byte{')'}) {
		return call[:at]
	}
	return call
}

// stack returns the frames, innermost first; none if there was no traceback.
func (t *traceback) stack() []string { return bounded(t.frames, frame.readable) }
