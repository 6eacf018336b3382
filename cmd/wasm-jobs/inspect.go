package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os"

	"github.com/dustin/go-humanize"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

const abiVersion = abi.Version

func inspectCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "inspect", Usage: "say what a module exports, imports and needs, and whether it is accepted",
		UsageText: "wasm-jobs inspect [--json] MODULE\n\nExample: wasm-jobs inspect square.wasm",
		ArgsUsage: "MODULE",
		Flags:     []cli.Flag{&cli.BoolFlag{Name: "json", Usage: "as JSON"}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return refuse("inspect takes one MODULE, and %d arguments are given", ctx.NArg())
			}
			return inspect(ctx, c, ctx.Args().First(), ctx.Bool("json"))
		},
	}
}

func inspect(ctx *cli.Context, c *console, path string, asJSON bool) error {
	wasm, err := readModule(path)
	if err != nil {
		return err
	}
	d := runtime.Inspect(wasm)
	if d.Accepted { // what only the engine can find
		r, err := runtime.New(ctx.Context, runtime.Config{CacheDir: compiledDir()})
		if err != nil {
			return err
		}
		defer r.Close(ctx.Context)
		if _, err := r.Compile(ctx.Context, wasm, runtime.Options{}); err != nil {
			d.Accepted, d.Problems = false, []string{err.Error()}
		}
	}
	if asJSON {
		err = writeJSON(c.out, d)
	} else {
		err = printDescription(c.out, path, d)
	}
	if err == nil && !d.Accepted {
		return &exitError{exitRefused, nil}
	}
	return written(err)
}

func printDescription(out io.Writer, path string, d *runtime.Description) error {
	t := newTable(out)
	row := t.field
	row("module", "%s", path)
	row("sha256", "%s", d.SHA256)
	row("size", "%s", humanize.IBytes(uint64(d.Size)))
	if d.Memory != nil {
		limit := "no limit of its own"
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
	for _, reason := range d.Lasting {
		row("", "no reset undoes %s", reason)
	}
	for _, p := range d.Problems {
		row("problem", "%s", p)
	}
	verdict := "yes"
	if !d.Accepted {
		verdict = "no"
	}
	row("accepted", "%s", verdict)
	return t.flush()
}

// readModule reads a module's file, of which no more than the limit is held.
func readModule(path string) ([]byte, error) {
	return readBounded(path, binary.MaxModuleSize, "a module")
}

func readBounded(path string, limit int64, what string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, refuse("%w", err)
	}
	defer file.Close()
	var b bytes.Buffer
	if stat, err := file.Stat(); err == nil {
		if stat.IsDir() {
			return nil, refuse("%s is a directory, and %s is needed", path, what)
		}
		b.Grow(int(min(stat.Size(), limit)) + bytes.MinRead) // a file of megabytes is then read in one go
	}
	if _, err := b.ReadFrom(io.LimitReader(file, limit+1)); err != nil {
		return nil, refuse("%w", err)
	}
	if int64(b.Len()) > limit {
		return nil, refuse("%s: larger than %d bytes, the limit for %s", path, limit, what)
	}
	return b.Bytes(), nil
}

func writeJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// maxContext is the limit of a context, in bytes: that of a chunk.
const maxContext = chunks.DefaultMaxChunk
