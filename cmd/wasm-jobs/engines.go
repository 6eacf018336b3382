package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// The engines that execute modules, by the names that flags use. They share no code
// generator.
const (
	compiler    = "compiler"
	interpreter = "interpreter"
	// auto begins with the interpreter while the compiler works.
	auto = "auto"
)

// engineFlag is the flag of commands whose engine makes no difference to results.
func engineFlag() cli.Flag {
	return &cli.StringFlag{Name: "engine", Value: auto, Usage: "auto, compiler or interpreter: auto starts large modules on the interpreter until they are compiled; results and fuel are the same"}
}

// parseAnyEngine reads [engineFlag].
func parseAnyEngine(ctx *cli.Context) (string, error) {
	name := ctx.String("engine")
	if !slices.Contains([]string{auto, compiler, interpreter}, name) {
		return "", usageErrorf("invalid --engine %q: want auto, compiler or interpreter", name)
	}
	return name, nil
}

// parseEngine reads a flag that names an engine.
func parseEngine(ctx *cli.Context, flag string) (string, error) {
	name := ctx.String(flag)
	if !slices.Contains([]string{compiler, interpreter}, name) {
		return "", usageErrorf("invalid --%s %q: want compiler or interpreter", flag, name)
	}
	return name, nil
}

// engineConfig returns the configuration of an engine, which uses the user's cache of
// compiled modules.
func engineConfig(name string) runtime.Config {
	return runtime.Config{CacheDir: compiledDir(), Interpreter: name == interpreter, Auto: name == auto}
}

// openEngine opens the engine with the given name. The caller closes it.
func openEngine(ctx context.Context, name string) (*runtime.Runtime, error) {
	return runtime.New(ctx, engineConfig(name))
}
