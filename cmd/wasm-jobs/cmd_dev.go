package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/project"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
)

func devCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "dev", Usage: "build and try a guest project, again on each change of its files",
		UsageText: `wasm-jobs dev [flags] [DIR]

Example: wasm-jobs new primes --lang go && wasm-jobs dev primes

DIR (default: the working directory) is a project that wasm-jobs new made, or one like
it: the first target of its Makefile builds the module, and its targets test and run
call $(WASM_JOBS). dev builds the module, tests the vectors of the target test, and
runs the first chunks of the target run, without a store. A build that fails shows its
first error. After each run, dev shows the outputs that are not those of the run before.

A change of a file below DIR ends what runs and starts again. Names that begin with a
dot and directories of what builds make (build, node_modules, target, ...) do not
count. Ctrl-C ends dev and all processes that it started.

With --json, each round that is not cut short is one line.

Exit codes: 0 ended by Ctrl-C; 2 invalid usage, or DIR has no Makefile or was
removed.`,
		ArgsUsage: "[DIR]",
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "limit", Value: 10, Usage: "run only the first `N` chunks, unless the target run has its own --limit"},
			jsonFlag(),
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 1); err != nil {
				return err
			}
			if ctx.Int("limit") < 1 {
				return usageErrorf("invalid --limit %d: want 1 or more", ctx.Int("limit"))
			}
			dir := ctx.Args().First()
			if ctx.NArg() == 0 {
				dir = "."
			}
			return dev(ctx.Context, c, dir, ctx.Int("limit"), ctx.Bool("json"))
		},
	}
}

// dev tries the project until ctx ends.
func dev(ctx context.Context, c *console, dir string, limit int, asJSON bool) error {
	p, err := openProject(dir)
	if err != nil {
		return err
	}
	watcher, err := p.Watch()
	if err != nil {
		return usageErrorf("%s cannot be watched: %w", dir, err)
	}
	defer watcher.Close()
	temporary, err := os.MkdirTemp("", "wasm-jobs-dev-")
	if err != nil {
		return outputError(err)
	}
	remove := func() { _ = os.RemoveAll(temporary) }
	defer remove()
	c.signals.Cleanup(remove)
	c.signals.Drain() // the processes of a round end before this one
	fmt.Fprintf(c.err, "wasm-jobs: watching %s; Ctrl-C ends it\n", dir)
	t := &trial{project: p, watcher: watcher, limit: limit, dir: temporary, screen: &screen{out: c.out, colours: terminal.ColoursOf(c.out)}}
	if asJSON {
		t.json, t.screen.out = json.NewEncoder(c.out), io.Discard
		t.json.SetEscapeHTML(false)
	}
	switch err := t.repeat(ctx); {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, project.ErrRemoved):
		return usageErrorf("%s was removed while it was watched: start wasm-jobs dev again where the project is now", dir)
	default:
		return err
	}
}

// openProject opens a project, and checks that it can be built.
func openProject(dir string) (*project.Project, error) {
	for _, tool := range []string{"make", "sh"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, usageErrorf("dev needs %s, which is not in the path: install it", tool)
		}
	}
	self, err := ownPath()
	if err != nil {
		return nil, err
	}
	p, err := project.Open(dir, self)
	switch {
	case errors.Is(err, project.ErrNoMakefile):
		return nil, usageErrorf("%s has no Makefile: want a project as wasm-jobs new NAME --lang LANGUAGE makes it", dir)
	case errors.Is(err, fs.ErrNotExist):
		return nil, usageErrorf("%s does not exist: wasm-jobs new NAME --lang LANGUAGE makes a project", dir)
	case err != nil:
		return nil, usageErrorf("%s: %s", dir, withoutPath(err))
	}
	return p, nil
}

// ownPath returns the path by which this program was started, so that a link keeps its
// name.
func ownPath() (string, error) {
	if path, err := exec.LookPath(os.Args[0]); err == nil {
		return filepath.Abs(path)
	}
	return os.Executable()
}

// repeat tries the project, and tries it again after each change. It ends with ctx, or
// with an error of watching or writing.
func (t *trial) repeat(ctx context.Context) error {
	watching, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var changed []string
	for {
		round, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() { // until stop
			defer close(ended)
			if err := t.round(round, changed); err != nil && round.Err() == nil {
				fail(err)
			}
		}()
		next, err := t.watcher.Next(watching)
		stop()
		<-ended
		if watching.Err() != nil {
			return context.Cause(watching)
		}
		if err != nil {
			return err
		}
		changed = next
	}
}
