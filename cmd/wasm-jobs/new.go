package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/sdk"
)

func newCommand(c *console) *cli.Command {
	languages := strings.Join(sdk.Languages(), ", ")
	return &cli.Command{
		Name: "new", Usage: "write a small guest that builds, to start from",
		UsageText: `wasm-jobs new NAME --lang LANGUAGE

Example: wasm-jobs new primes --lang go && cd primes && make test run

The directory NAME gets a source with typed functions exec, aggregate and merge,
the SDK as one file, tests on this machine, vectors for wasm-jobs test, chunks, a
Makefile and a README. Nothing is fetched.`,
		ArgsUsage: "NAME",
		Flags:     []cli.Flag{&cli.StringFlag{Name: "lang", Usage: "`LANGUAGE` of the guest: " + languages}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return refuse("new takes one NAME, and %d arguments are given", ctx.NArg())
			}
			if ctx.String("lang") == "" {
				return refuse("new needs --lang, one of %s", languages)
			}
			return newProject(c, ctx.Args().First(), ctx.String("lang"))
		},
	}
}

// projectName is what can be a directory, a Go module and a file everywhere.
// Of those, Go or Windows mean something else by the reserved ones.
var (
	projectName  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`) })
	reservedName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(vendor|con|prn|aux|nul|com[0-9]|lpt[0-9])$`) })
)

func newProject(c *console, name, language string) error {
	if !projectName().MatchString(name) {
		return refuse("%q is no name for a project: it is 1 to 64 of a-z, 0-9, - and _, of which the first is a letter", name)
	}
	if reservedName().MatchString(name) {
		return refuse("%q is no name for a project: Go or Windows means something else by it", name)
	}
	if !slices.Contains(sdk.Languages(), language) {
		return refuse("--lang %q is none of %s", language, strings.Join(sdk.Languages(), ", "))
	}
	files, err := sdk.Project(language, name)
	if err != nil {
		return err
	}
	if err := os.Mkdir(name, 0o777); err != nil {
		if os.IsExist(err) {
			return refuse("%s exists: choose another name, or remove it", name)
		}
		return refuse("%w", err)
	}
	if err := writeProject(name, files); err != nil {
		_ = os.RemoveAll(name) // it is ours, and incomplete
		return written(err)
	}
	_, err = fmt.Fprintf(c.out, "%s: a guest in %s, of %d files; make test builds and tests it\n", name, language, len(files))
	return written(err)
}

func writeProject(dir string, files []sdk.File) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(path, f.Content, 0o666); err != nil {
			return err
		}
	}
	return nil
}
