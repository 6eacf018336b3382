package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

const flowExitHelp = `Exit codes:
   0    all items ended, and the results were written; or items are held, as requested
   1    items failed, or warnings of check
   2    refused before anything ran: usage, definition, module or input
   3    _initialize, setup, aggregate or merge failed
   4    the store failed, or results could not be written
   5    an execution, a proof or a journal of effects does not give the expected result
   130  interrupted; the same command continues the run`

func flowCommand(c *console) *cli.Command {
	command := &cli.Command{
		Name: "flow", Usage: "move items between many functions, as a file defines",
		UsageText: `wasm-jobs flow run [flags] FILE [CHUNKS]

A flow moves items between states: modules, effects, waits and ends. FILE is YAML
or JSON; the roots are the chunks of CHUNKS. docs/flow.md begins with an example.

` + flowExitHelp,
		Subcommands: []*cli.Command{
			flowRunCommand(c), flowCheckCommand(c), flowGraphCommand(c), flowSchemaCommand(c),
			flowListCommand(c), flowStatusCommand(c), flowItemsCommand(c), flowInfoCommand(c), flowRedriveCommand(c), flowDeleteCommand(c), flowVerifyCommand(c), flowProveCommand(c),
		},
	}
	for _, verb := range command.Subcommands {
		verb.OnUsageError = onUsageError
		limitWorkers(verb)
	}
	return command
}

// flowExitCode returns the exit code for an error of a flow.
func flowExitCode(err error) (code int, ok bool) {
	if _, ok := errors.AsType[*flow.StoreError](err); ok {
		return exitStore, true
	}
	if _, ok := errors.AsType[*flow.MissingEffectError](err); ok {
		return exitDiffers, true
	}
	if _, ok := errors.AsType[*flow.FoldError](err); ok {
		return exitFold, true
	}
	if errors.Is(err, flow.ErrInterrupted) {
		return exitInterrupted, true
	}
	return 0, false
}
