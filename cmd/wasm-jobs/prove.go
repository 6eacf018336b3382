package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

func proveCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "prove", Usage: "write a proof that a chunk's output is in the job that a receipt is of",
		UsageText: `wasm-jobs prove [flags] RECEIPT ID

ID is a chunk's id; a text that looks like a number is written in double quotes.

Example: wasm-jobs prove receipt.json 17 --outputs outputs.cbor > proof.json
         wasm-jobs verify-proof receipt.json proof.json`,
		ArgsUsage: "RECEIPT ID",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "outputs", Usage: "all outputs of the job, a `FILE` of run --outputs; without it, those in the store"},
			storeFlag(),
		},
		Action: func(ctx *cli.Context) error {
			if err := twoArguments(ctx, "RECEIPT and ID"); err != nil {
				return err
			}
			id, err := abi.ParseID(ctx.Args().Get(1))
			if err != nil {
				return refuse("%w", err)
			}
			return prove(ctx, c, ctx.Args().First(), id)
		},
	}
}

func twoArguments(ctx *cli.Context, what string) error {
	if ctx.NArg() != 2 {
		return refuse("%s takes %s, and %d arguments are given", ctx.Command.Name, what, ctx.NArg())
	}
	return nil
}

func prove(ctx *cli.Context, c *console, path string, id abi.ID) error {
	r, err := readReceipt(path)
	if err != nil {
		return err
	}
	dir, err := claimsDir(ctx)
	if err != nil {
		return err
	}
	claimed, err := claimsOf(ctx, c, dir, r)
	if err != nil {
		return err
	}
	defer claimed.close()
	proof, err := proofOf(ctx.Context, claimed, r, id)
	if err != nil {
		return err
	}
	b, err := proof.Marshal()
	if err != nil {
		return err
	}
	_, err = c.out.Write(b)
	return written(err)
}

// claimsOf opens the outputs of --outputs, or those in a store's directory.
func claimsOf(ctx *cli.Context, c *console, dir string, r *receipt.Receipt) (*claims, error) {
	if dir == "" {
		return fileClaims(ctx.String("outputs"))
	}
	claimed, err := storeClaims(ctx.Context, c, dir, r)
	if claimed == nil && err == nil {
		err = refuse("the store has no job that the receipt is of: --store DIR of the run, or --outputs FILE")
	}
	return claimed, err
}

// proofOf goes through all outputs.
func proofOf(ctx context.Context, claimed *claims, r *receipt.Receipt, id abi.ID) (*receipt.Proof, error) {
	var prover merkle.Prover
	var output []byte
	index := uint64(0)
	err := claimed.each(ctx, func(has abi.ID, its []byte) error {
		if has == id {
			prover.Keep()
			index, output = prover.Len(), append([]byte{}, its...)
		}
		prover.AddEntry(has, its)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if root := receipt.Digest(prover.Root()); root != r.Outputs {
		return nil, &exitError{exitDiffers, fmt.Errorf("the outputs in %s are not those of the receipt, and prove nothing: they have %v, and the receipt %v", claimed.name, root, r.Outputs)}
	}
	if output == nil {
		return nil, refuse("the receipt's job has no chunk %v", id)
	}
	p, err := prover.Proof(index)
	if err != nil {
		return nil, err
	}
	return receipt.NewProof(id, output, p), nil
}

func verifyProofCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "verify-proof", Usage: "check a proof that a chunk's output is in the job that a receipt is of",
		UsageText: `wasm-jobs verify-proof [--json] RECEIPT PROOF

Nothing else is needed, and nothing is executed. It prints the output, of which
PROOF has all the bytes, or where it is long, a part.

Example: wasm-jobs verify-proof receipt.json proof.json

Exit codes:
   0    the proof holds
   2    one of the files is no receipt, or no proof
   5    the proof does not hold`,
		ArgsUsage: "RECEIPT PROOF",
		Flags:     []cli.Flag{jsonFlag()},
		Action: func(ctx *cli.Context) error {
			if err := twoArguments(ctx, "RECEIPT and PROOF"); err != nil {
				return err
			}
			return verifyProof(c, ctx.Args().Get(0), ctx.Args().Get(1), ctx.Bool("json"))
		},
	}
}

// provedJSON is what verify-proof says to other programs.
type provedJSON struct {
	Holds bool   `json:"holds"`
	ID    abi.ID `json:"id"`
	Error string `json:"error,omitempty"`
}

func verifyProof(c *console, receiptPath, proofPath string, asJSON bool) error {
	r, err := readReceipt(receiptPath)
	if err != nil {
		return err
	}
	b, err := readBounded(proofPath, receipt.MaxProofSize, "a proof")
	if err != nil {
		return err
	}
	p, err := receipt.ParseProof(b)
	if err != nil {
		return refuse("%s: %w", proofPath, err)
	}
	proved := p.Verify(r)
	if asJSON {
		if err := writeJSON(c.out, provedJSON{proved == nil, p.ID, errorText(proved)}); err != nil {
			return written(err)
		}
	}
	if errors.Is(proved, receipt.ErrNotProved) {
		return &exitError{exitDiffers, proved}
	}
	if proved != nil || asJSON {
		return proved
	}
	_, err = fmt.Fprintf(c.out, "the proof holds: chunk %v gave %s\n", p.ID, notation(p.Output, 0))
	return written(err)
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
