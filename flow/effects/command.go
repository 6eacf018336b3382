package effects

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Command is an executor: each step runs a program, without a shell. The output
// is {"exit", "stdout", "stderr"}.
type Command struct {
	// Args is the program and its arguments. {key} in an argument is replaced by the
	// value of the key in the data's top level, a text or an unsigned integer; the
	// result is always one argument.
	Args      []string
	Env       []string // names of the variables that it gets, in addition to WASM_JOBS_STEP, the key of the step
	Stdin     string   // none (or ""), raw, cbor or json
	Dir       string   // working directory; "" = the one of this program
	RetryExit []int    // exit codes that are retried
	Timeout   time.Duration
	Grace     time.Duration // from SIGTERM to SIGKILL; 0 = 5s
	MaxOutput int           // of stdout, and of stderr; 0 = 16 MiB
}

// Kind implements [flow.Executor].
func (c *Command) Kind() string { return "command" }

// Action implements [flow.Executor].
func (c *Command) Action() (store.Action, bool) { return store.Action{}, false }

// Open implements [flow.Executor].
func (c *Command) Open(context.Context) (flow.Pool, error) {
	own := *c
	if own.Grace == 0 {
		own.Grace = 5 * time.Second
	}
	if own.MaxOutput == 0 {
		own.MaxOutput = 16 << 20
	}
	return &pool{call: own.perform}, nil
}

var placeholder = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{[A-Za-z0-9_.-]+\}`) })

// args returns the arguments, with values of the data in place of {key}.
func (c *Command) args(data []byte) (args []string, err error) {
	for _, arg := range c.Args[1:] {
		filled := placeholder().ReplaceAllStringFunc(arg, func(p string) string {
			value, ok := flow.Field(data, p[1:len(p)-1])
			if !ok && err == nil {
				err = abi.Failf(flow.ClassEffect, "missing %s in the data: want a text or an unsigned integer", p)
			}
			return value
		})
		if strings.ContainsRune(filled, 0) {
			err = abi.Failf(flow.ClassEffect, "invalid argument: want one without zero bytes")
		}
		args = append(args, filled)
	}
	return args, err
}

func (c *Command) stdin(data []byte) (io.Reader, error) {
	switch c.Stdin {
	case "raw":
		contents, _, ok := notation.Contents(data)
		if !ok {
			return nil, abi.Failf(flow.ClassEffect, "invalid data: want a byte or text string, since standard input is raw")
		}
		return bytes.NewReader(contents), nil
	case "cbor":
		return bytes.NewReader(data), nil
	case "json":
		var b bytes.Buffer
		w := bufio.NewWriter(&b)
		if err := notation.WriteJSON(w, data); err != nil {
			return nil, abi.Failf(flow.ClassEffect, "invalid data: want data that JSON can hold: %v", err)
		}
		w.Flush()
		return &b, nil
	}
	return nil, nil
}

func (c *Command) perform(ctx context.Context, key [32]byte, data []byte) ([]byte, error) {
	args, err := c.args(data)
	if err != nil {
		return nil, err
	}
	stop, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.Timeout > 0 {
		stop, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	cmd := exec.CommandContext(stop, c.Args[0], args...)
	stdout, stderr := &bounded{most: c.MaxOutput, full: cancel}, &bounded{most: c.MaxOutput, full: cancel}
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.WaitDelay = stdout, stderr, c.Dir, c.Grace
	cmd.Env = []string{"WASM_JOBS_STEP=" + hex.EncodeToString(key[:])}
	for _, name := range c.Env {
		if value, set := os.LookupEnv(name); set {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
	}
	if cmd.Stdin, err = c.stdin(data); err != nil {
		return nil, err
	}
	inGroup(cmd)
	err = cmd.Run()
	killGroup(cmd)
	if err := c.judge(ctx, stop, cmd, err, stdout, stderr); err != nil {
		return nil, err
	}
	b := abi.AppendHead(nil, abi.MajorMap, 3)
	b = abi.AppendHead(abi.AppendText(b, "exit"), abi.MajorUint, 0)
	b = append(abi.AppendHead(abi.AppendText(b, "stdout"), abi.MajorBytes, uint64(stdout.held.Len())), stdout.held.Bytes()...)
	return append(abi.AppendHead(abi.AppendText(b, "stderr"), abi.MajorBytes, uint64(stderr.held.Len())), stderr.held.Bytes()...), nil
}

// judge returns why a command did not succeed; nil if it did.
func (c *Command) judge(ctx, stop context.Context, cmd *exec.Cmd, err error, stdout, stderr *bounded) error {
	exit, ran := errors.AsType[*exec.ExitError](err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case stdout.over || stderr.over:
		return abi.Failf(flow.ClassEffect, "it wrote more than %d bytes", c.MaxOutput)
	case errors.Is(stop.Err(), context.DeadlineExceeded):
		return abi.Failf(abi.ClassTimeout, "it ran longer than %v", c.Timeout)
	case ran && slices.Contains(c.RetryExit, exit.ExitCode()):
		return abi.Failf(abi.ClassGuestRetryable, "exit %d: %s", exit.ExitCode(), tail(stderr.held.Bytes()))
	case ran:
		return abi.Failf(abi.ClassExit, "%s: %s", exit.ProcessState, tail(stderr.held.Bytes()))
	case err != nil && !errors.Is(err, exec.ErrWaitDelay):
		return abi.Failf(flow.ClassEffect, "%v", err)
	}
	return nil
}

// tail returns the end of a command's output, for a message.
func tail(b []byte) string {
	const most = 400
	s := strings.ToValidUTF8(string(b[max(0, len(b)-most):]), "")
	return strings.TrimSpace(s)
}

// bounded keeps up to most bytes, and calls full when more are written.
type bounded struct {
	held bytes.Buffer // not embedded: its ReadFrom knows no bound
	most int
	over bool
	full func()
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.held.Len()+len(p) > b.most {
		b.over = true
		b.full()
		return len(p), nil
	}
	return b.held.Write(p)
}
