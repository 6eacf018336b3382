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
	p, err := readProof(proofPath, receipt.ParseProof)
	if err != nil {
		return err
	}
	return tellProof(c, p.ID, p.Verify(r), asJSON, func() string { return fmt.Sprintf("chunk %v gave %s", p.ID, notation.Brief(p.Output, 0)) })
}

// readProof reads a proof of a job or of a flow.
func readProof[P any](path string, parse func([]byte) (*P, error)) (*P, error) {
	b, err := readBounded(path, receipt.MaxProofSize, "a proof")
	if err != nil {
		return nil, err
	}
	p, err := parse(b)
	if err != nil {
		return nil, usageErrorf("%s: %w", path, err)
	}
	return p, nil
}

// tellProof prints whether the proof for an id holds. proved is nil if it does; fact
// returns what it proves then.
func tellProof(c *console, id abi.ID, proved error, asJSON bool, fact func() string) error {
	if asJSON {
		if err := writeJSON(c.out, provedJSON{proved == nil, id, errorText(proved)}); err != nil {
			return outputError(err)
		}
	}
	if errors.Is(proved, receipt.ErrNotProved) {
		return &exitError{exitDiffers, proved}
	}
	if proved != nil || asJSON {
		return proved
	}
	_, err := fmt.Fprintf(c.out, "the proof holds: %s\n", fact())
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
