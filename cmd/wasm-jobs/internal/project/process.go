package project

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"
)

const (
	// grace is the time between SIGTERM, on which make removes an unfinished target,
	// and SIGKILL.
	grace = 500 * time.Millisecond
	// maxOutput is how much of a program's output is kept, in bytes.
	maxOutput = 1 << 20
)

// execute runs a program in the directory of the project until it ends or ctx does, in
// a process group that does not outlive it.
func (p *Project) execute(ctx context.Context, stdout, stderr io.Writer, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = p.dir, stdout, stderr, grace
	// A make that has started this process must not change what another make does.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return name == "MAKEFLAGS" || name == "MFLAGS" || name == "MAKELEVEL"
	})
	inGroup(cmd)
	err := cmd.Run()
	killGroup(cmd)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, exec.ErrWaitDelay): // it succeeded, and left a process with its output open
		return nil
	}
	return err
}

// head keeps the first [maxOutput] bytes.
type head struct{ held bytes.Buffer } // not embedded: its ReadFrom knows no bound

func (h *head) Write(p []byte) (int, error) {
	h.held.Write(p[:min(len(p), maxOutput-h.held.Len())])
	return len(p), nil
}
