package runtime

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite/linetable"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// unreachable is the smallest module that traps: its start function is one
// unreachable instruction.
var unreachable = []byte("\x00asm\x01\x00\x00\x00" +
	"\x01\x04\x01\x60\x00\x00" + // type () -> ()
	"\x03\x02\x01\x00" + // function 0 of it
	"\x08\x01\x00" + // start
	"\x0a\x05\x01\x03\x00\x00\x0b") // body: unreachable, end

// trapType returns the type of the engine's traps, which is not exported, or
// nil if the engine does not trap.
func trapType(engine wazero.Runtime) (trap reflect.Type) {
	_, err := engine.InstantiateWithConfig(context.Background(), unreachable, wazero.NewModuleConfig().WithName(""))
	for ; err != nil; err = errors.Unwrap(err) {
		trap = reflect.TypeOf(err)
	}
	return trap
}

// failure returns the failure of a call that the engine ended with err.
func (m *Module) failure(err error, i *instance) *abi.Failure {
	message, frames := splitTrap(err, m.frame)
	if stop, ok := errors.AsType[*stopError](err); ok {
		switch f := stop.failure; {
		case f == nil:
			return abi.Failf(abi.ClassRequeued, "cancelled")
		case f.Class == abi.ClassTrap:
			return m.trapped(f.Message, frames, i)
		default:
			return f
		}
	}
	if exit, ok := errors.AsType[*wasi.ExitError](err); ok {
		f := abi.Failf(abi.ClassExit, "the guest called proc_exit(%d)", exit.Code)
		if said := i.log.words.message(); said != "" {
			f.Message += ": " + said
		}
		return f
	}
	f := abi.Failf(abi.ClassHost, "%s", message)
	for e := err; e != nil; e = errors.Unwrap(e) {
		if reflect.TypeOf(e) != m.runtime.trap() {
			continue
		}
		// The interpreter's limit does not depend on the guest.
		if message != stackOverflow || !i.code.interpreted {
			return m.trapped(strings.TrimPrefix(firstLine(e), "wasm error: "), frames, i)
		}
		break
	}
	f.Stack = m.stacks.shared(bounded(frames, frame.engine))
	return f
}

// trapNote starts the note about a module after the message of a trap.
const trapNote = "; note: "

// WithoutNote returns the message of a failure without the module's note that
// traps have. It is for callers that show the notes of the description anyway.
func (d *Description) WithoutNote(message string) string {
	if len(d.Notes) == 0 {
		return message
	}
	return strings.TrimSuffix(message, trapNote+d.Notes[0])
}

// unreachableTrap is the message of the trap with which a panic ends.
const unreachableTrap = "unreachable"

// trapped returns the failure of a trap. The words of the guest replace those of the
// engine if they say more.
func (m *Module) trapped(message string, frames []frame, i *instance) *abi.Failure {
	engine := m.trapOf(message, i)
	engine.Stack = m.stacks.shared(bounded(frames, frame.engine))
	f := *engine
	if said := i.log.words.message(); message == unreachableTrap && said != "" {
		f = *m.trapOf(said, i)
	}
	stack := i.log.words.trace.stack()
	if len(stack) == 0 {
		stack = bounded(frames, frame.readable)
	}
	f.Stack = m.stacks.shared(own(stack))
	if f.Message != engine.Message || !slices.Equal(f.Stack, engine.Stack) {
		f.Engine = engine
	}
	return &f
}

// trapOf returns the failure of a trap, without its stack. If the module was not
// made to be called in this way, the message includes a note.
func (m *Module) trapOf(message string, i *instance) *abi.Failure {
	if len(m.description.Notes) > 0 && message != stackOverflow {
		message += trapNote + m.description.Notes[0]
	}
	if i.memory.Denied() {
		return abi.Failf(abi.ClassMemory, "%s after a growth beyond the limit of %d bytes was denied", message, i.limit)
	}
	return abi.Failf(abi.ClassTrap, "%s", message)
}

// Bounds of the stack of a failure: names come from the guest, and a job can
// have very many failures. The innermost frames are kept.
const (
	maxFrames = 64
	maxFrame  = 256     // bytes of one frame
	maxStack  = 4 << 10 // bytes of all frames
)

// frame is a frame of the engine's stack trace.
type frame struct {
	name  string // and the types, with indices of the original module
	place string // FILE:LINE, or "" if it is not known
}

func (f frame) engine() string { return f.name }

func (f frame) readable() string { return placed(readable(f.name), f.place) }

// splitTrap splits the engine's text of an error into its first line and the
// frames after "wasm stack trace:". rename changes each frame, and removes it
// by returning "".
func splitTrap(err error, rename func(frame string) string) (message string, frames []frame) {
	text, trace, _ := strings.Cut(err.Error(), "\nwasm stack trace:\n")
	message = strings.TrimSuffix(strings.TrimPrefix(text, "wasm error: "), " (recovered by wazero)")
	kept := false // the last frame
	for line := range strings.Lines(trace) {
		name, isFrame := strings.CutPrefix(strings.TrimRight(line, "\n"), "\t")
		if !isFrame {
			break
		}
		if place, isPlace := strings.CutPrefix(name, "\t"); isPlace {
			if last := len(frames) - 1; kept && frames[last].place == "" {
				frames[last].place = placeOf(place)
			}
			continue
		}
		name = rename(strings.TrimPrefix(name, "."))
		if kept = name != ""; kept {
			frames = append(frames, frame{name: name})
		}
	}
	message, _, _ = strings.Cut(message, "\n")
	return cutText(message, maxText), frames
}

// placeOf returns the place in the engine's text "0x2a: FILE:LINE".
func placeOf(text string) string {
	_, place, _ := strings.Cut(text, ": ")
	file, _, found := strings.Cut(place, ":")
	if !found || linetable.IsUnknown(file) {
		return ""
	}
	return place
}

// bounded returns the texts of frames. If they do not fit, the last one is "...".
func bounded(frames []frame, text func(frame) string) (stack []string) {
	left := maxStack
	for _, f := range frames {
		line := shorten(text(f), maxFrame)
		if left -= len(line); left < 0 || len(stack) == maxFrames {
			return append(stack, "...")
		}
		stack = append(stack, line)
	}
	return stack
}

// stackTable lets equal stacks share memory: if one chunk fails, thousands may
// fail in the same place. It is safe for concurrent use; its zero value works.
type stackTable struct {
	mu    sync.Mutex
	known map[string][]string
}

// maxStacks bounds the number of stacks in a table. A full table is cleared.
const maxStacks = 64

// shared returns a stack that is equal to the given one. Nobody may change it.
func (t *stackTable) shared(stack []string) []string {
	if len(stack) == 0 {
		return nil
	}
	key := strings.Join(stack, "\n")
	t.mu.Lock()
	defer t.mu.Unlock()
	if known := t.known[key]; known != nil {
		return known
	}
	if t.known == nil || len(t.known) == maxStacks {
		t.known = make(map[string][]string)
	}
	stack = slices.Clip(stack)
	t.known[key] = stack
	return stack
}

// frame gives a function without a name, such as "$3(i32) i32", its index in
// the file: metering adds one imported function before all functions that the
// module defines. For injected functions it returns "".
func (m *Module) frame(frame string) string {
	name, signature, called := strings.Cut(frame, "(")
	if m.depth != 0 && isInjected(name) {
		return ""
	}
	number, unnamed := strings.CutPrefix(name, "$")
	index, err := strconv.Atoi(number)
	if !unnamed || !called || err != nil || m.description.Names {
		return frame
	}
	index = m.original(index)
	if index < 0 || index >= m.description.importedFunctions()+m.description.Functions {
		return ""
	}
	return fmt.Sprintf("$%d(%s", index, signature)
}

// isInjected reports whether a function was injected by the rewriter, or is the
// host function that these call. The module's name may precede its name.
func isInjected(name string) bool {
	for _, injected := range rewrite.Injected {
		if rest, ok := strings.CutSuffix(name, injected); ok && (rest == "" || strings.HasSuffix(rest, ".")) {
			return true
		}
	}
	return false
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return cutText(line, maxText)
}
