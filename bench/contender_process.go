package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

const (
	ourCommand = "github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs"
	ourRunner  = modulePath + "/runner"
)

// processSides run a process for each chunk, one at a time, as the other sides run
// chunks. Compiled code is cached on disk.
func processSides() []side {
	command := func(w *work) []string {
		return []string{"run", "--no-store", "--progress", "none", "-j", "1", "-f", "cbor", w.file("module")}
	}
	small := func(w *work) []string { return []string{"-cache", w.file("cache"), w.file("module")} }
	return []side{
		launching("xargs-command", "xargs starts wasm-jobs run for each chunk, in a file of its own", openProcess(xargs, ourCommand, command, entry)),
		launching("xargs-runner", "xargs starts a small runner for each chunk: plain wazero, a compilation cache, one call", openProcess(xargs, ourRunner, small, bytes.Clone)),
		launching("parallel-command", "the same as xargs-command with GNU parallel", openProcess(parallel, ourCommand, command, entry)),
		launching("parallel-runner", "the same as xargs-runner with GNU parallel", openProcess(parallel, ourRunner, small, bytes.Clone)),
	}
}

// launcher is a program that starts a process for each line of its input.
type launcher struct {
	name string
	args []string
	is   string // how the output of --version begins
}

var (
	xargs    = launcher{"xargs", []string{"-n", "1"}, ""}
	parallel = launcher{"parallel", []string{"--will-cite", "-j", "1"}, "GNU parallel"}
)

// version returns the first line of the launcher's --version.
func (l launcher) version() (string, error) {
	if err := have(l.name); err != nil {
		return "", err
	}
	output, err := exec.Command(l.name, "--version").Output()
	line, _, _ := strings.Cut(string(output), "\n")
	if l.is != "" && !strings.HasPrefix(line, l.is) {
		return "", unavailable("unsupported " + l.name + ": want " + l.is)
	}
	if err != nil || line == "" {
		line = "the system's, without a version"
	}
	return line, nil
}

// entry returns an output as wasm-jobs run prints it: as the map of an outputs file.
func entry(output []byte) []byte {
	head := abi.AppendHead(nil, abi.MajorMap, 2)
	head = append(abi.AppendHead(head, abi.MajorText, 2), "id"...)
	head = abi.AppendHead(head, abi.MajorUint, 0)
	head = append(abi.AppendHead(head, abi.MajorText, 6), "output"...)
	return append(head, output...)
}

// file returns the path of a file of the work, which openProcess writes. It has no
// spaces unless the directory for temporary files has.
func (w *work) file(kind string) string { return filepath.Join(w.tools.dir, w.name+"."+kind) }

// processes starts one process per chunk.
type processes struct {
	work     *work
	launcher launcher
	args     []string
	printed  []byte // by one process
	output   bytes.Buffer
}

func openProcess(l launcher, pkg string, args func(*work) []string, printed func([]byte) []byte) opener {
	return func(ctx context.Context, w *work) (runner, error) {
		if _, err := l.version(); err != nil {
			return nil, err
		}
		if strings.ContainsAny(w.tools.dir, " \t\n'\"\\") {
			return nil, unavailable("invalid temporary directory " + w.tools.dir + ", which xargs would split: set TMPDIR to a path without spaces and quotes")
		}
		binary, err := w.tools.binary(ctx, pkg)
		if err != nil {
			return nil, err
		}
		for name, b := range map[string][]byte{"module": w.modules.abi, "chunk": w.chunk} {
			if err := os.WriteFile(w.file(name), b, 0o600); err != nil {
				return nil, err
			}
		}
		all := append(append(append([]string{}, l.args...), binary), args(w)...)
		return &processes{work: w, launcher: l, args: all, printed: printed(w.want)}, nil
	}
}

// run compares the outputs of all processes, which takes a small part of their time.
func (r *processes) run(ctx context.Context, n int) ([]byte, error) {
	cmd := exec.CommandContext(ctx, r.launcher.name, r.args...)
	cmd.Env = append(os.Environ(), "XDG_CACHE_HOME="+r.work.tools.dir)
	cmd.Stdin = strings.NewReader(strings.Repeat(r.work.file("chunk")+"\n", n))
	r.output.Reset()
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &r.output, &messages
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", r.launcher.name, err, lastLine(messages.Bytes()))
	}
	if !bytes.Equal(r.output.Bytes(), bytes.Repeat(r.printed, n)) {
		return nil, fmt.Errorf("wrong output: %d processes printed %d bytes in all, want the expected %d bytes from each", n, r.output.Len(), len(r.printed))
	}
	return r.work.want, nil
}

func (r *processes) close() error { return nil }
