package main

import (
	"errors"
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
	languages, examples := strings.Join(sdk.Languages(), ", "), strings.Join(sdk.Examples(), ", ")
	return &cli.Command{
		Name: "new", Usage: "create a guest project",
		UsageText: `wasm-jobs new NAME --lang LANGUAGE [--example EXAMPLE]

Example: wasm-jobs new primes --lang go && cd primes && make test run

The new directory NAME has a source with typed functions exec, aggregate and merge,
the SDK as one file, native tests, vectors for wasm-jobs test, an input, a Makefile
and a README. Nothing is downloaded. wasm-jobs doctor says which compilers are missing.`,
		ArgsUsage: "NAME",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lang", Usage: "`LANGUAGE` of the guest: " + languages},
			&cli.StringFlag{Name: "example", Value: sdk.Examples()[0], Usage: "what the guest does at first, an `EXAMPLE`: " + examples},
		},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usageErrorf("new takes one NAME, got %s", plural(ctx.NArg(), "argument"))
			}
			if ctx.String("lang") == "" {
				return usageErrorf("missing --lang: want one of %s", languages)
			}
			return newProject(c, ctx.Args().First(), ctx.String("lang"), ctx.String("example"))
		},
	}
}

// projectName matches names that can be a directory, a Go module and a file on every
// system. reservedName matches those that have another meaning in Go or Windows.
var (
	projectName  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z][a-z0-9_-]{0,63}$`) })
	reservedName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^(vendor|con|prn|aux|nul|com[0-9]|lpt[0-9])$`) })
)

func newProject(c *console, name, language, example string) error {
	if !projectName().MatchString(name) {
		return usageErrorf("invalid NAME %q: want 1 to 64 of a-z, 0-9, - and _, beginning with a letter", name)
	}
	if reservedName().MatchString(name) {
		return usageErrorf("invalid NAME %q: Go or Windows reserves it; choose another name", name)
	}
	if !slices.Contains(sdk.Languages(), language) {
		return usageErrorf("invalid --lang %q: want one of %s", language, strings.Join(sdk.Languages(), ", "))
	}
	if !slices.Contains(sdk.Examples(), example) {
		return usageErrorf("invalid --example %q: want one of %s", example, strings.Join(sdk.Examples(), ", "))
	}
	files, err := sdk.ExampleProject(language, example, name)
	if err != nil {
		return err
	}
	u := c.newUnfinished()
	defer u.discard()
	if err := u.make(name, func() error { return os.Mkdir(name, 0o777) }); err != nil {
		if os.IsExist(err) {
			return usageErrorf("%s exists already: choose another name, or remove it", name)
		}
		return usageErrorf("%w", err)
	}
	if err := writeProject(u, name, files); err != nil {
		return outputError(err)
	}
	u.finish()
	_, err = fmt.Fprintf(c.out, "%s: a guest in %s, of %s; make test builds and tests it\n", name, language, plural(len(files), "file"))
	return outputError(err)
}

func writeProject(u *unfinished, dir string, files []sdk.File) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.Path))
		err := u.make(path, func() error {
			return errors.Join(os.MkdirAll(filepath.Dir(path), 0o777), os.WriteFile(path, f.Content, 0o666))
		})
		if err != nil {
			return err
		}
	}
	return nil
}
