// Package project builds a guest project with its own Makefile, and watches its files.
package project

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Errors of [Open].
var (
	ErrNoDirectory = errors.New("not a directory")
	ErrNoMakefile  = errors.New("no Makefile")
)

// ErrNoCall is the error of [Project.Call] if the target does not call the command.
var ErrNoCall = errors.New("the target does not call $(WASM_JOBS)")

// Project is the directory of a guest, as wasm-jobs new makes it. The first target of
// its Makefile builds the module; the targets test and run call $(WASM_JOBS). All
// methods are safe for concurrent use. Their error is the context's if that ended
// first, and then no process that they have started is left.
type Project struct {
	dir     string // absolute
	command string // what $(WASM_JOBS) is, quoted for a shell
}

// Open returns the project in dir. command is the path of the program that the Makefile
// calls as $(WASM_JOBS). The error is [ErrNoDirectory], [ErrNoMakefile] or one of the
// system.
func Open(dir, command string) (*Project, error) {
	path, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	stat, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !stat.IsDir() {
		return nil, ErrNoDirectory
	}
	if !slices.ContainsFunc([]string{"GNUmakefile", "makefile", "Makefile"}, func(name string) bool {
		file, err := os.Stat(filepath.Join(path, name))
		return err == nil && file.Mode().IsRegular()
	}) {
		return nil, ErrNoMakefile
	}
	return &Project{path, "'" + strings.ReplaceAll(command, "'", `'\''`) + "'"}, nil
}

// Build makes the first target. It returns the first mebibyte of what make and the
// compiler print, and how make failed.
func (p *Project) Build(ctx context.Context) (output string, err error) {
	var b head
	err = p.execute(ctx, &b, &b, "make", "-s", "WASM_JOBS="+p.command)
	return b.held.String(), err
}

// Call returns the shell command with which a target calls $(WASM_JOBS) and the verb
// that has the target's name. It builds nothing. The error is [ErrNoCall], or what make
// says.
func (p *Project) Call(ctx context.Context, target string) (string, error) {
	var out, errs head
	if err := p.execute(ctx, &out, &errs, "make", "-n", target, "WASM_JOBS="+p.command); err != nil {
		if said, _, _ := strings.Cut(strings.TrimSpace(errs.held.String()), "\n"); said != "" && ctx.Err() == nil {
			return "", errors.New(said)
		}
		return "", err
	}
	for line := range strings.Lines(strings.ReplaceAll(out.held.String(), "\\\n", " ")) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, p.command+" "+target+" ") {
			return line, nil
		}
	}
	return "", ErrNoCall
}

// Run runs a shell command that [Project.Call] returned, with more arguments.
func (p *Project) Run(ctx context.Context, call string, arguments []string, stdout, stderr io.Writer) error {
	return p.execute(ctx, stdout, stderr, "sh", append([]string{"-c", call + ` "$@"`, "sh"}, arguments...)...)
}

// Fault returns the output of a failed build from its first line that reports an error
// on: compilers print warnings and headings before it.
func Fault(output string) []string {
	lines := strings.Split(strings.TrimSpace(output), "\n")
	return lines[max(0, slices.IndexFunc(lines, reportsError)):]
}

var (
	// faultPattern matches "error" as a word, and places such as main.go:3:5 before text.
	faultPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\berror\b|:[0-9]+(:[0-9]+)?: \S`) })
	minorPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\b(warning|note)\b`) })
)

func reportsError(line string) bool {
	return faultPattern().MatchString(line) && !minorPattern().MatchString(line)
}
