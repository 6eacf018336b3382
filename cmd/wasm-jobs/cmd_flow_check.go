package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/flow/definition"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

func flowCheckCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "check", Usage: "list all errors in a definition, and the doubts",
		UsageText: "wasm-jobs flow check [--json] FILE\n\nIts modules are checked too. Nothing is executed.\n\nExit codes:\n   0    no problems\n   1    only warnings\n   2    invalid definition",
		ArgsUsage: "FILE",
		Flags:     []cli.Flag{jsonFlag()},
		Action: func(ctx *cli.Context) error {
			path, err := oneDefinition(ctx)
			if err != nil {
				return err
			}
			return checkFlow(ctx.Context, c, path, ctx.Bool("json"))
		},
	}
}

func oneDefinition(ctx *cli.Context) (string, error) {
	if ctx.NArg() != 1 {
		return "", usageErrorf("%s takes one FILE, got %s", ctx.Command.Name, plural(ctx.NArg(), "argument"))
	}
	return ctx.Args().First(), nil
}

// checkedFlow is the output of check --json.
type checkedFlow struct {
	File     string               `json:"file"`
	Problems []definition.Problem `json:"problems"`
	Warnings []definition.Problem `json:"warnings"`
}

func checkFlow(ctx context.Context, c *console, path string, asJSON bool) error {
	checked := checkedFlow{File: path, Problems: []definition.Problem{}, Warnings: []definition.Problem{}}
	b, err := readBounded(path, definition.MaxSize, "a definition")
	if err != nil {
		return err
	}
	d, err := definition.Parse(path, b)
	if err == nil {
		var engineErr error
		checked.Warnings, err, engineErr = checkModules(ctx, d)
		if engineErr != nil {
			return engineErr
		}
	}
	problems, err := problemsOf(err)
	if err != nil {
		return err
	}
	checked.Problems = append(checked.Problems, problems...)
	return checked.tell(c, asJSON)
}

// checkModules binds the modules of a definition, and allows every effect.
func checkModules(ctx context.Context, d *definition.Definition) (doubts []definition.Problem, wrong, err error) {
	engine, err := openEngine(ctx, compiler)
	if err != nil {
		return nil, nil, err
	}
	defer engine.Close(context.WithoutCancel(ctx))
	_, doubts, wrong = bind(ctx, engine, d, flowDefaults(), func(s *definition.State) (flow.Executor, error) { return newEffect(s) })
	if doubts == nil {
		doubts = []definition.Problem{}
	}
	return doubts, wrong, nil
}

// problemsOf returns the problems in an error, or any other error.
func problemsOf(err error) ([]definition.Problem, error) {
	if invalid, ok := asInvalid(err); ok {
		return invalid.Problems, nil
	}
	return nil, err
}

func (f *checkedFlow) tell(c *console, asJSON bool) error {
	var err error
	if asJSON {
		err = writeJSON(c.out, f)
	} else {
		for i := range f.Problems {
			fmt.Fprintln(c.out, printable(f.Problems[i].Error()))
		}
		for i := range f.Warnings {
			fmt.Fprintln(c.out, "warning: "+printable(f.Warnings[i].Error()))
		}
		if len(f.Problems)+len(f.Warnings) == 0 {
			_, err = fmt.Fprintf(c.out, "%s: no problems\n", printable(f.File))
		}
	}
	switch {
	case err != nil:
		return outputError(err)
	case len(f.Problems) > 0:
		return &exitError{exitRefused, nil}
	case len(f.Warnings) > 0:
		return &exitError{exitFailed, nil}
	}
	return nil
}

func flowGraphCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "graph", Usage: "draw a definition",
		UsageText: "wasm-jobs flow graph [--format mermaid|dot|json] FILE",
		ArgsUsage: "FILE",
		Flags:     []cli.Flag{&cli.StringFlag{Name: "format", Aliases: []string{"f"}, Value: "mermaid", Usage: "mermaid, dot or json"}},
		Action: func(ctx *cli.Context) error {
			path, err := oneDefinition(ctx)
			if err != nil {
				return err
			}
			d, err := readDefinition(path, queue.DefaultPolicy())
			if err != nil {
				return err
			}
			var text string
			switch format := ctx.String("format"); format {
			case "mermaid":
				text = d.Mermaid()
			case "dot":
				text = d.DOT()
			case "json":
				b, err := d.JSON()
				if err != nil {
					return err
				}
				text = string(b)
			default:
				return usageErrorf("invalid --format %q: want mermaid, dot or json", format)
			}
			_, err = fmt.Fprint(c.out, text)
			return outputError(err)
		},
	}
}

func flowSchemaCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "schema", Usage: "print the JSON Schema of definitions",
		UsageText: "wasm-jobs flow schema",
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			_, err := c.out.Write(definition.Schema)
			return outputError(err)
		},
	}
}
