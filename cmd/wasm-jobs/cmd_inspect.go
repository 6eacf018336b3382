package main

import (
	"io"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func inspectCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "show a module's exports and imports, and whether it is accepted",
		UsageText: "wasm-jobs inspect [--json] MODULE\n\nExample: wasm-jobs inspect square.wasm\n\nThe module is neither compiled nor called. check does both, and also finds invalid\ncode.",
		ArgsUsage: "MODULE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "print JSON"}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usageErrorf("inspect takes one MODULE, got %s", plural(ctx.NArg(), "argument"))
			}
			return inspect(c, ctx.Args().First(), ctx.Bool("json"))
		},
	}
}

func inspect(c *console, path string, asJSON bool) error {
	wasm, err := readModule(path)
	if err != nil {
		return err
	}
	d := runtime.Inspect(wasm)
	if asJSON {
		err = writeJSON(c.out, d)
	} else {
		err = printDescription(c.out, path, d)
	}
	if err == nil && !d.Accepted {
		return &exitError{exitRefused, nil}
	}
	return outputError(err)
}

func printDescription(out io.Writer, path string, d *runtime.Description) error {
	t := newTable(out)
	row := t.field
	row("module", "%s", path)
	row("sha256", "%s", d.SHA256)
	row("size", "%s", humanize.IBytes(uint64(d.Size)))
	if d.Memory != nil {
		limit := "no maximum"
		if d.Memory.Max > 0 {
			limit = "at most " + humanize.IBytes(d.Memory.Max)
		}
		row("memory", "%s, %s", humanize.IBytes(d.Memory.Min), limit)
	}
	row("functions", "%d, %s of code, %s of data", d.Functions, humanize.IBytes(uint64(d.CodeSize)), humanize.IBytes(uint64(d.DataSize)))
	if d.Command {
		row("kind", "WASI command: %s runs it on a chunk", abi.ExportStart)
	}
	for _, p := range d.Producers {
		row("made by", "%s", p)
	}
	for _, e := range d.Exports {
		t.row("export", e.Name, e.Kind+" "+e.Type)
	}
	for _, i := range d.Imports {
		t.row("import", i.Module+"."+i.Name, i.Kind+" "+i.Type)
	}
	if d.Isolation != "" {
		row("isolation", "%s", d.Isolation)
	}
	for _, reason := range d.NotResettable {
		row("", "a reset cannot undo %s", reason)
	}
	for _, p := range d.Problems {
		row("problem", "%s", p)
	}
	for _, n := range d.Notes {
		row("note", "%s", n)
	}
	verdict := "yes"
	if !d.Accepted {
		verdict = "no"
	}
	row("accepted", "%s", verdict)
	return t.flush()
}
