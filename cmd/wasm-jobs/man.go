package main

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/help"
)

// manWord is the hidden verb that writes the manual pages: make man calls it.
const manWord = "__man"

// writeMan writes the manual pages of all verbs to the directory that the words name.
func writeMan(app *cli.App, words []string) error {
	if len(words) != 1 {
		return usageErrorf("%s takes one DIR, got %s", manWord, plural(len(words), "argument"))
	}
	dir := words[0]
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return outputError(err)
	}
	version := "wasm-jobs " + readVersion().Version
	top := appPage(app)
	all := verbPages([]string{app.Name}, app.Commands)
	names := pageNames(all)
	err := writeManPage(dir, top, version, names)
	for _, p := range all {
		err = errors.Join(err, writeManPage(dir, p, version, []string{help.ManName(top.Name)}))
	}
	return outputError(err)
}

// verbPages returns the pages of commands and of what is below them.
func verbPages(words []string, commands []*cli.Command) (pages []*help.Page) {
	for _, c := range commands {
		below := append(append([]string{}, words...), c.Name)
		pages = append(pages, pageOf(below, c, true))
		pages = append(pages, verbPages(below, c.Subcommands)...)
	}
	return pages
}

func pageNames(pages []*help.Page) (names []string) {
	for _, p := range pages {
		names = append(names, help.ManName(p.Name))
	}
	return names
}

func writeManPage(dir string, p *help.Page, version string, also []string) error {
	file, err := atomicfile.Create(filepath.Join(dir, help.ManName(p.Name)+"."+strconv.Itoa(help.Section)))
	if err != nil {
		return err
	}
	defer file.Discard()
	return file.Write(func(w *bufio.Writer) error { return p.WriteMan(w, version, also) })
}
