package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// Command has the inputs of a WASI command in addition to its chunk. The zero
// Command is enough for most. It must be zero for other modules.
type Command struct {
	Args  []string // after "command", which is the first argument
	Env   []string // "KEY=VALUE", in this order; no duplicate keys
	Stdin Stdin    // "" = raw
	Dirs  []wasi.Dir
}

// Stdin defines how a chunk becomes the standard input of a command.
type Stdin string

const (
	// StdinRaw is the content of a byte or text string; other chunks fail.
	StdinRaw Stdin = "raw"
	// StdinCBOR is the chunk's own bytes.
	StdinCBOR Stdin = "cbor"
)

// given returns the setting of the first nonzero field of c, or "".
func (c *Command) given() Setting {
	switch {
	case len(c.Args) > 0:
		return SettingArgs
	case len(c.Env) > 0:
		return SettingEnv
	case c.Stdin == StdinCBOR:
		return SettingStdin
	case len(c.Dirs) > 0:
		return SettingDirs
	}
	return ""
}

// config returns the WASI configuration for c.
func (c *Command) config() (w wasi.Config, err error) {
	if w.Args, err = wasi.NewStrings(append([]string{"command"}, c.Args...)...); err != nil {
		return w, fmt.Errorf("the arguments: %w", err)
	}
	if w.Env, err = wasi.NewStrings(c.Env...); err != nil {
		return w, fmt.Errorf("the environment: %w", err)
	}
	w.Dirs = c.Dirs
	return w, c.check()
}

// check returns the first problem of c, except for strings that contain a NUL.
func (c *Command) check() error {
	if c.Stdin != "" && c.Stdin != StdinRaw && c.Stdin != StdinCBOR {
		return fmt.Errorf("invalid standard input %q: want raw or cbor", c.Stdin)
	}
	keys := map[string]bool{}
	for _, pair := range c.Env {
		key, _, ok := strings.Cut(pair, "=")
		if !ok || key == "" {
			return fmt.Errorf("invalid variable %q: want KEY=VALUE", pair)
		}
		if keys[key] {
			return fmt.Errorf("duplicate variable %q", key)
		}
		keys[key] = true
	}
	names := map[string]bool{}
	for _, d := range c.Dirs {
		switch {
		case d.Guest == "" || !utf8.ValidString(d.Guest) || strings.IndexByte(d.Guest, 0) >= 0 || len(d.Guest) > maxText:
			return fmt.Errorf("invalid directory name %.64q: want UTF-8 without NUL", d.Guest)
		case names[d.Guest]:
			return fmt.Errorf("duplicate directory %q", d.Guest)
		case d.Tree == nil:
			return fmt.Errorf("missing tree of directory %q", d.Guest)
		}
		names[d.Guest] = true
	}
	return nil
}

// fitsCommand returns a *[RefusedError] if c does not fit the module.
func (m *Module) fitsCommand(c *Command) error {
	if m.description.Command {
		if _, err := c.config(); err != nil {
			return &RefusedError{Problems: []string{err.Error()}}
		}
		return nil
	}
	if given := c.given(); given != "" {
		return refusedFor(given, string(given)+` is only for WASI commands, but the module exports "exec"`)
	}
	return nil
}

// isCommand reports whether a module is a WASI command: it exports _start and
// not exec.
func isCommand(m *binary.Module) bool {
	_, hasExec := m.Export(abi.ExportExec)
	_, hasStart := m.Export(abi.ExportStart)
	return hasStart && !hasExec
}

// Bounds of a command's output and of its standard error.
const (
	// outputHead is the size of the longest head of a byte string.
	outputHead = 9
	// keptOutput is the maximum size of an output buffer that an instance keeps
	// between calls, in bytes.
	keptOutput = 1 << 20
	// lastWords is the number of bytes from the end of standard error in a
	// failure. Escaped, they fit in maxText.
	lastWords = 960
)

// commandOutput collects the standard output of a command. It ends the call if
// the output is too large.
type commandOutput struct {
	b     []byte // starts with room for the head
	limit uint64 // of the output with its head
}

func (o *commandOutput) start(limit uint64) {
	if cap(o.b) > keptOutput {
		o.b = nil
	}
	o.b, o.limit = append(o.b[:0], make([]byte, outputHead)...), limit
}

// Write implements [io.Writer]. It does not return if the output is too large.
func (o *commandOutput) Write(b []byte) (int, error) {
	size := len(o.b) - outputHead + len(b)
	if head := abi.AppendHead(o.b[:0], abi.MajorBytes, uint64(size)); uint64(len(head)+size) > o.limit {
		panic(&stopError{abi.Failf(abi.ClassABI, "the output has more than %d bytes, the limit"+raiseMaxOutput, o.limit)})
	}
	o.b = append(o.b, b...)
	return len(b), nil
}

// item returns the output, one CBOR byte string, which is valid until start.
func (o *commandOutput) item() []byte {
	var room [outputHead]byte
	head := abi.AppendHead(room[:0], abi.MajorBytes, uint64(len(o.b)-outputHead))
	item := o.b[outputHead-len(head):]
	copy(item, head)
	return item
}

// commandErrors receives the standard error of a command: it logs the lines and
// keeps the end.
type commandErrors struct {
	log  *logger
	tail []byte
	cut  bool // there was more before the tail
}

func (e *commandErrors) start(log *logger) { e.log, e.tail, e.cut = log, e.tail[:0], false }

// Write implements [io.Writer]. It never fails.
func (e *commandErrors) Write(b []byte) (int, error) {
	e.tail = append(e.tail, b[max(0, len(b)-lastWords):]...)
	if over := len(e.tail) - lastWords; over > 0 || len(b) > lastWords {
		e.tail, e.cut = append(e.tail[:0], e.tail[max(0, over):]...), true
	}
	return e.log.Write(b)
}

// words returns the end of standard error as part of a message, or "".
func (e *commandErrors) words() string {
	tail, dots := e.tail, ""
	if e.cut {
		dots = "..."
		for n := 0; n < utf8.UTFMax && len(tail) > 0 && !utf8.RuneStart(tail[0]); n++ {
			tail = tail[1:]
		}
	}
	text := strings.TrimSpace(string(tail))
	if text == "" {
		return ""
	}
	return ": " + dots + plainText([]byte(text))
}

// command runs a WASI command on one chunk. It returns a view of the output,
// which is valid until the next call of the instance.
func (i *instance) command(ctx context.Context, s *Settings, chunk []byte) ([]byte, *abi.Failure) {
	stdin := chunk
	if s.Command.Stdin != StdinCBOR {
		var failure *abi.Failure
		if stdin, failure = i.content(chunk); failure != nil {
			return nil, failure
		}
	}
	i.out.start(s.MaxOutput)
	i.errors.start(&i.log)
	i.wasi.Reset(wasi.Call{Phase: "call", Seed: s.Seed, Input: chunk, Stdin: stdin, Stdout: &i.out, Stderr: &i.errors})
	err := i.invoke(ctx, abi.ExportStart, 0, 0)
	if err == nil {
		return i.out.item(), nil
	}
	if exit, ok := errors.AsType[*wasi.ExitError](err); ok {
		if exit.Code == 0 {
			return i.out.item(), nil
		}
		return nil, abi.Failf(abi.ClassGuest, "exit code %d%s", exit.Code, i.errors.words())
	}
	failure := i.failureOf(abi.ExportStart, err)
	if failure.Class == abi.ClassTrap || failure.Class == abi.ClassMemory { // a panic writes its reason before it traps
		failure.Message += i.errors.words()
	}
	return nil, failure
}

// content returns the content of a string chunk: a view of it, or, if it comes
// in parts, of a buffer of the instance.
func (i *instance) content(chunk []byte) ([]byte, *abi.Failure) {
	h, err := abi.ReadHead(chunk)
	if err != nil {
		return nil, abi.Failf(abi.ClassABI, "the chunk is not one CBOR item: %v", err)
	}
	if h.Major != abi.MajorBytes && h.Major != abi.MajorText {
		return nil, abi.Failf(abi.ClassABI, "the chunk is %s, and a command reads byte or text strings"+giveCBOR, majorName(h.Major))
	}
	rest := chunk[h.Size:]
	if !h.Indefinite {
		return rest, nil
	}
	i.joined = i.joined[:0]
	for {
		part, err := abi.ReadHead(rest)
		if err != nil || part.Major != h.Major || uint64(len(rest)-part.Size) < part.Arg {
			return i.joined, nil // the break: the chunk was checked
		}
		rest = rest[part.Size:]
		i.joined = append(i.joined, rest[:part.Arg]...)
		rest = rest[part.Arg:]
	}
}

// majorName returns the name of the items of a major type.
func majorName(major byte) string {
	return [...]string{"an integer", "an integer", "a byte string", "a text", "an array", "a map", "a tagged item", "a simple value or a float"}[major]
}
