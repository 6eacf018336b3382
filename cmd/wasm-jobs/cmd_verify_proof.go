package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

func verifyProofCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "verify-proof", Usage: "check a proof that an output is part of a receipt's job",
		UsageText: `wasm-jobs verify-proof [flags] RECEIPT PROOF

Nothing else is needed, and nothing is executed. It prints the output in PROOF, or
the beginning of a long one. As in verify, a receipt with more memory or stack than
--memory and --stack, or without metering, is refused; --no-metering accepts it.

Example: wasm-jobs verify-proof receipt.json proof.json

Exit codes:
   0    the proof holds
   2    invalid usage, receipt or proof
   5    the proof does not hold`,
		ArgsUsage: "RECEIPT PROOF",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Value: "256MiB", Usage: "refuse a receipt with a larger memory limit"},
			stackFlag("refuse a receipt with a larger stack limit"),
			&cli.BoolFlag{Name: "no-metering", Usage: "accept a receipt without metering"},
			jsonFlag(),
		},
		Action: func(ctx *cli.Context) error {
			if err := twoArguments(ctx, "RECEIPT and PROOF"); err != nil {
				return err
			}
			limits, err := parseReaderLimits(ctx)
			if err != nil {
				return err
			}
			return verifyProof(c, ctx.Args().Get(0), ctx.Args().Get(1), limits, ctx.Bool("json"))
		},
	}
}

// provedJSON is the result of verify-proof, as JSON.
type provedJSON struct {
	Holds bool   `json:"holds"`
	ID    abi.ID `json:"id"`
	Error string `json:"error,omitempty"`
}

// parseReaderLimits reads the reader's limits for receipts of others.
func parseReaderLimits(ctx *cli.Context) (l verify.Limits, err error) {
	l.Unmetered = ctx.Bool("no-metering")
	if l.Stack, err = parseStack(ctx); err != nil {
		return l, err
	}
	l.Memory, err = parseSize[uint64](ctx, "memory")
	return l, err
}

func verifyProof(c *console, receiptPath, proofPath string, limits verify.Limits, asJSON bool) error {
	b, err := readBounded(receiptPath, receipt.MaxSize, "a receipt")
	if err != nil {
		return err
	}
	if isOfFlow(b) {
		return verifyFlowProof(c, receiptPath, b, proofPath, asJSON)
	}
	r, err := parseReceipt(receiptPath, b)
	if err != nil {
		return err
	}
	if err := checkLimits(r, limits); err != nil {
		return err
	}
	b, err = readBounded(proofPath, receipt.MaxProofSize, "a proof")
	if err != nil {
		return err
	}
	p, err := receipt.ParseProof(b)
	if err != nil {
		return usageErrorf("%s: %w", proofPath, err)
	}
	proved := p.Verify(r)
	if asJSON {
		if err := writeJSON(c.out, provedJSON{proved == nil, p.ID, errorText(proved)}); err != nil {
			return outputError(err)
		}
	}
	if errors.Is(proved, receipt.ErrNotProved) {
		return &exitError{exitDiffers, proved}
	}
	if proved != nil || asJSON {
		return proved
	}
	_, err = fmt.Fprintf(c.out, "the proof holds: chunk %v gave %s\n", p.ID, notation.Brief(p.Output, 0))
	return outputError(err)
}

// isOfFlow reports whether a receipt is of a flow.
func isOfFlow(b []byte) bool {
	var of struct {
		Kind string `json:"kind"`
	}
	return json.Unmarshal(b, &of) == nil && of.Kind == "flow"
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
