package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"

	"golang.org/x/sys/unix"
)

// Names of samples of pipe, in CPU nanoseconds a request.
const (
	bareCalls = "a loop of resets and calls"
	pipeCalls = "pipe"
)

// pipeRequests is how many requests pipe answers in a round.
const pipeRequests = 200_000

// pipes measures the command pipe, and the bare loop.
type pipes struct {
	command, module string
	file            string // pipeRequests requests
	loop            runner
}

func openPipes(ctx context.Context, t *tools) (*pipes, error) {
	w, err := newWork(ctx, kernels()[0], t)
	if err != nil {
		return nil, err
	}
	p := &pipes{module: filepath.Join("guests", "noop.wasm"), file: filepath.Join(t.dir, "requests.cbor")}
	if p.command, err = t.binary(ctx, ourCommand); err != nil {
		return nil, err
	}
	if err := os.WriteFile(p.file, bytes.Repeat(w.chunk, pipeRequests), 0o600); err != nil {
		return nil, err
	}
	p.loop, err = openOurs(ours{})(ctx, w)
	return p, err
}

func (p *pipes) close() error { return p.loop.close() }

// round returns the CPU nanoseconds of a request in pipe, without those of its start, and
// of a call in the loop.
func (p *pipes) round(ctx context.Context) (pipe, call float64, err error) {
	start, err := p.cpu(ctx, os.DevNull)
	if err != nil {
		return 0, 0, err
	}
	whole, err := p.cpu(ctx, p.file)
	if err != nil {
		return 0, 0, err
	}
	call, err = p.calls(ctx)
	return (whole - start) / pipeRequests, call, err
}

// cpu returns the CPU time of a pipe over a file.
func (p *pipes) cpu(ctx context.Context, file string) (ns float64, err error) {
	in, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	cmd := exec.CommandContext(ctx, p.command, "pipe", p.module)
	cmd.Stdin = in
	var messages bytes.Buffer
	cmd.Stderr = &messages
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("pipe: %w: %s", err, lastLine(messages.Bytes()))
	}
	return float64(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()), nil
}

// calls returns the CPU time of a call in a loop.
func (p *pipes) calls(ctx context.Context) (float64, error) {
	goruntime.LockOSThread()
	defer goruntime.UnlockOSThread()
	var from, to unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &from)
	if _, runErr := p.loop.run(ctx, pipeRequests); runErr != nil {
		return 0, runErr
	}
	err = errors.Join(err, unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &to))
	return float64(to.Nano()-from.Nano()) / pipeRequests, err
}
