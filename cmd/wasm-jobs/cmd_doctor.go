package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/toolchain"
)

func doctorCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "doctor", Usage: "check which compilers of guests are installed, and say how to install the others",
		UsageText: `wasm-jobs doctor [--lang LANGUAGE] [--json]

Example: wasm-jobs doctor --lang rust

For each tool that a language needs, it prints the version that is installed, or the
command that installs it on this system. It changes nothing.

Exit codes: 0 the language, or without --lang at least one, has all of its tools; 1 it
lacks one; 2 invalid usage.`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "lang", Usage: "check only `LANGUAGE`: " + strings.Join(toolchain.Languages(), ", ")},
			jsonFlag(),
		},
		Action: func(ctx *cli.Context) error {
			if err := arguments(ctx, 0); err != nil {
				return err
			}
			languages := toolchain.Languages()
			if isSet(ctx, "lang") {
				if !slices.Contains(languages, ctx.String("lang")) {
					return usageErrorf("invalid --lang %q: want one of %s", ctx.String("lang"), strings.Join(languages, ", "))
				}
				languages = []string{ctx.String("lang")}
			}
			return doctor(ctx.Context, c, languages, ctx.Bool("json"))
		},
	}
}

// checkedLanguage is a language with its tools.
type checkedLanguage struct {
	Language string           `json:"language"`
	Ready    bool             `json:"ready"` // all tools are there
	Tools    []toolchain.Tool `json:"tools"`
}

func doctor(ctx context.Context, c *console, languages []string, asJSON bool) error {
	all, ready := []checkedLanguage{}, false
	for _, name := range languages {
		l := checkedLanguage{Language: name, Ready: true, Tools: toolchain.Find(ctx, name)}
		for _, t := range l.Tools {
			l.Ready = l.Ready && t.State == toolchain.OK
		}
		all, ready = append(all, l), ready || l.Ready
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	print := printDoctor
	if asJSON {
		print = func(c *console, all []checkedLanguage) error { return writeJSON(c.out, all) }
	}
	if err := print(c, all); err != nil {
		return outputError(err)
	}
	if !ready {
		return &exitError{exitFailed, nil}
	}
	return nil
}

func printDoctor(c *console, all []checkedLanguage) error {
	t := newTable(c.out)
	t.header("LANGUAGE", "TOOL", "STATE", "VERSION", "NEEDED")
	for _, l := range all {
		for _, tool := range l.Tools {
			needed := "any"
			if tool.Minimum != "" {
				needed = tool.Minimum + " or later"
			}
			t.row(l.Language, tool.Name, toolState(tool.State), cmp.Or(tool.Version, "-"), needed)
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	return printInstalls(c, all)
}

// printInstalls prints how to get the tools that are not as they should be, each once.
func printInstalls(c *console, all []checkedLanguage) error {
	said := map[string]bool{}
	for _, l := range all {
		for _, tool := range l.Tools {
			line := fmt.Sprintf("%s is %s: %s", tool.Name, tool.State, tool.Install)
			if tool.State == toolchain.Lacking {
				line = fmt.Sprintf("%s has no libraries for WebAssembly: %s", tool.Path, tool.Install)
			}
			if tool.State == toolchain.OK || said[line] {
				continue
			}
			said[line] = true
			if _, err := fmt.Fprintln(c.out, printable(line)); err != nil {
				return err
			}
		}
	}
	return nil
}

func toolState(s toolchain.State) cell {
	if s == toolchain.OK {
		return cell{string(s), terminal.Green}
	}
	return cell{string(s), terminal.Red}
}
