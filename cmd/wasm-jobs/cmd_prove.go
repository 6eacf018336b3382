package main

import (
	"errors"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

func proveCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "prove", Usage: "write a proof that an output is part of a receipt's job",
		UsageText: `wasm-jobs prove [flags] RECEIPT ID

ID is a chunk's id; put a text that looks like a number in double quotes.

Example: wasm-jobs prove receipt.json 17 --outputs outputs.cbor > proof.json
         wasm-jobs verify-proof receipt.json proof.json`,
		ArgsUsage: "RECEIPT ID",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "outputs", Usage: "read all outputs of the job from `FILE`, made by run --outputs, instead of the store"},
			storeFlag(),
		},
		Action: func(ctx *cli.Context) error {
			if err := twoArguments(ctx, "RECEIPT and ID"); err != nil {
				return err
			}
			id, err := abi.ParseID(ctx.Args().Get(1))
			if err != nil {
				return usageErrorf("%w", err)
			}
			return prove(ctx, c, ctx.Args().First(), id)
		},
	}
}

func twoArguments(ctx *cli.Context, what string) error {
	if ctx.NArg() != 2 {
		return usageErrorf("%s takes %s, got %s", ctx.Command.Name, what, plural(ctx.NArg(), "argument"))
	}
	return nil
}

func prove(ctx *cli.Context, c *console, path string, id abi.ID) error {
	r, err := readReceipt(path)
	if err != nil {
		return err
	}
	dir, err := expectedDir(ctx)
	if err != nil {
		return err
	}
	expected, err := expectedOutputs(ctx, c, dir, r)
	if err != nil {
		return err
	}
	defer expected.Close()
	proof, err := verify.Prove(ctx.Context, expected, r, id)
	if _, other := errors.AsType[*verify.OutputsError](err); other {
		return &exitError{exitDiffers, err}
	}
	if err != nil {
		return err
	}
	b, err := proof.Marshal()
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return outputError(err)
}

// expectedOutputs opens the outputs of --outputs, or those of the store.
func expectedOutputs(ctx *cli.Context, c *console, dir string, r *receipt.Receipt) (*verify.Expected, error) {
	if dir == "" {
		return fileOutputs(ctx.Context, ctx.String("outputs"))
	}
	expected, err := storeOutputs(ctx.Context, c, dir, ctx.Bool("insecure"), r)
	if expected == nil && err == nil {
		err = usageErrorf("the store does not have the receipt's job: give the --store DIR of the run, or --outputs FILE")
	}
	return expected, err
}
