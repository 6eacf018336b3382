package main

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/attest"
)

func verifySignatureCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "verify-signature", Usage: "check the signature of a receipt",
		UsageText: `wasm-jobs verify-signature ENVELOPE --key PUBLIC|--key-env NAME [--receipt FILE]

Example: wasm-jobs verify-signature receipt.sig.json --key release.pub --receipt receipt.json

It checks that the envelope is signed with the key, and is about the receipt. A
signature tells who vouches for a receipt, not that the receipt is right: wasm-jobs
verify checks that.

Exit codes:
   0    signed with this key, and about this receipt
   2    invalid usage, key or file
   4    the answer could not be written
   5    not signed with this key, changed since, or about another receipt`,
		ArgsUsage: "ENVELOPE",
		Flags: append(keyFlags("public"),
			&cli.StringFlag{Name: "receipt", Usage: "`FILE` of the receipt, which must be the signed one"},
			&cli.StringFlag{Name: "builder", Usage: "`URI` that the builder must have"},
			&cli.BoolFlag{Name: "json", Usage: "print the statement as JSON"},
		),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usageErrorf("verify-signature takes one ENVELOPE, got %s", plural(ctx.NArg(), "argument"))
			}
			return verifySignature(ctx, c)
		},
	}
}

// differs returns an error of something that does not match.
func differs(format string, args ...any) error {
	return &exitError{exitDiffers, fmt.Errorf(format, args...)}
}

func verifySignature(ctx *cli.Context, c *console) error {
	source, err := parseKeySource(ctx, "public")
	if err != nil {
		return err
	}
	key, err := source.public()
	if err != nil {
		return err
	}
	v := &signatureCheck{path: ctx.Args().First(), keyName: source.name(), receiptPath: ctx.String("receipt")}
	v.Key, v.Builder = key, ctx.String("builder")
	envelope, err := readEnvelope(v.path)
	if err != nil {
		return err
	}
	if v.receiptPath != "" {
		if v.Receipt, err = readReceipt(v.receiptPath); err != nil {
			return err
		}
	}
	s, err := v.Verify(envelope)
	if err != nil {
		return v.explain(err)
	}
	if ctx.Bool("json") {
		return outputError(writeJSON(c.out, s))
	}
	return outputError(v.print(c.out, s))
}

func readEnvelope(path string) (*attest.Envelope, error) {
	text, err := readBounded(path, attest.MaxEnvelope, "an envelope")
	if err != nil {
		return nil, err
	}
	e, err := attest.ParseEnvelope(text)
	if err != nil {
		return nil, usageErrorf("%s: %w", path, err)
	}
	return e, nil
}

// signatureCheck is one check of verify-signature.
type signatureCheck struct {
	path, keyName, receiptPath string
	attest.Check
}

// explain adds the names of the files to an error.
func (v *signatureCheck) explain(err error) error {
	m, ok := errors.AsType[*attest.Mismatch](err)
	if !ok {
		return err
	}
	switch m.Reason {
	case attest.OtherKeys:
		return differs("%s: %w, not with %s, which is key %s", v.path, m, v.keyName, v.Key.ID())
	case attest.NotGood:
		return differs("%s: %s", v.path, v.notGood(m))
	case attest.NoStatement:
		if !m.Signed {
			return differs("%s: the payload was changed: %w", v.path, m)
		}
	case attest.OtherBuilder:
		return differs("%s: %w, want %s", v.path, m, v.Builder)
	case attest.OtherReceipt:
		return differs("%s: not the receipt that %s is about: want SHA-256 %s", v.receiptPath, v.path, m.Have)
	}
	return differs("%s: %w", v.path, m)
}

// notGood explains an invalid signature as far as possible.
func (v *signatureCheck) notGood(m *attest.Mismatch) string {
	switch {
	case v.Receipt == nil:
		return fmt.Sprintf("invalid signature for key %s: the payload or the signature was changed; --receipt FILE tells more", v.Key.ID())
	case m.About:
		return fmt.Sprintf("invalid signature for key %s: the signature was changed, or the builder or a time in the payload; all else in the payload agrees with %s", v.Key.ID(), v.receiptPath)
	}
	return fmt.Sprintf("invalid signature for key %s: the payload was changed and does not agree with %s, or that is another receipt", v.Key.ID(), v.receiptPath)
}

func (v *signatureCheck) print(out io.Writer, s *attest.Statement) error {
	t := newTable(out)
	row := t.field
	row("signed with", "%s, key %s", v.keyName, v.Key.ID())
	row("builder", "%s", s.Predicate.Run.Builder.ID)
	if m := s.Predicate.Run.Metadata; m != nil {
		if m.StartedOn != nil {
			row("started on", "%s", m.StartedOn.Format(time.RFC3339))
		}
		if m.FinishedOn != nil {
			row("finished on", "%s", m.FinishedOn.Format(time.RFC3339))
		}
	}
	show := func(all []attest.Resource) {
		for _, r := range all {
			for _, algorithm := range []string{attest.PlainDigest, attest.TreeDigest, attest.DirDigest} {
				if digest := r.Digest[algorithm]; digest != "" {
					row(r.Name, "%s %s", algorithm, digest)
				}
			}
		}
	}
	show(s.Predicate.Definition.Dependency)
	show(s.Subject)
	if v.Receipt != nil {
		row("about", "%s", v.receiptPath)
	}
	return t.flush()
}
