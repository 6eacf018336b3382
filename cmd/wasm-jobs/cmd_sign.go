package main

import (
	"bufio"
	"net/url"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/host/attest"
)

func signCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "sign", Usage: "sign a receipt",
		UsageText: `wasm-jobs sign RECEIPT --key FILE|--key-env NAME --builder URI [-o FILE]

Example: wasm-jobs keygen -o release
         wasm-jobs sign receipt.json --key release --builder https://ci.example.org/release -o receipt.sig.json
         wasm-jobs verify-signature receipt.sig.json --key release.pub --receipt receipt.json

It writes an in-toto statement with SLSA provenance, in a DSSE envelope. The same
receipt, key, builder and times give the same bytes. Keys are Ed25519:
private keys in PKCS #8, public keys in PKIX, as PEM. A key is never an argument,
because others could see it.`,
		ArgsUsage: "RECEIPT",
		Flags: append(keyFlags("private"),
			&cli.StringFlag{Name: "builder", Usage: "`URI` that identifies who ran the job to those who verify it", Required: true},
			&cli.StringFlag{Name: "started-on", Usage: "`TIME` when the run began, such as 2026-01-31T12:00:00Z; optional"},
			&cli.StringFlag{Name: "finished-on", Usage: "`TIME` when the run ended; optional"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "-", Usage: "write the envelope to `FILE` (- = stdout)"},
		),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return usageErrorf("sign takes one RECEIPT, got %s", plural(ctx.NArg(), "argument"))
			}
			return sign(ctx, c)
		},
	}
}

func sign(ctx *cli.Context, c *console) error {
	source, err := parseKeySource(ctx, "private")
	if err != nil {
		return err
	}
	for _, path := range []string{ctx.Args().First(), source.file} {
		if path != "" && atomicfile.Resolve(path) == atomicfile.Resolve(ctx.String("output")) {
			return usageErrorf("--output %s would replace the receipt or the key: give another name", ctx.String("output"))
		}
	}
	details, err := parseRunDetails(ctx)
	if err != nil {
		return err
	}
	key, err := source.private()
	if err != nil {
		return err
	}
	r, err := readReceipt(ctx.Args().First())
	if err != nil {
		return err
	}
	statement, err := attest.NewStatement(r, details)
	if err != nil {
		return err
	}
	envelope, err := attest.Sign(ctx.Context, statement, key)
	if err != nil {
		return err
	}
	files := resultFiles{result: ctx.String("output")}
	if err := files.open(c.out); err != nil {
		return err
	}
	defer files.discard()
	return outputError(files.targets[files.result].Write(func(w *bufio.Writer) error { return writeJSON(w, envelope) }))
}

func parseRunDetails(ctx *cli.Context) (d attest.Run, err error) {
	d.Builder.ID = ctx.String("builder")
	if u, err := url.Parse(d.Builder.ID); err != nil || !u.IsAbs() || len(d.Builder.ID) > 2048 {
		return d, usageErrorf("invalid --builder %.100q: want a URI such as https://ci.example.org/release", d.Builder.ID)
	}
	times := &attest.RunMetadata{}
	for name, to := range map[string]**time.Time{"started-on": &times.StartedOn, "finished-on": &times.FinishedOn} {
		if !isSet(ctx, name) {
			continue
		}
		at, err := time.Parse(time.RFC3339, ctx.String(name))
		if err != nil {
			return d, usageErrorf("invalid --%s %q: want a time such as 2026-01-31T12:00:00Z", name, ctx.String(name))
		}
		at = at.UTC()
		*to = &at
	}
	if *times != (attest.RunMetadata{}) {
		d.Metadata = times
	}
	if times.StartedOn != nil && times.FinishedOn != nil && times.FinishedOn.Before(*times.StartedOn) {
		return d, usageErrorf("--finished-on is before --started-on")
	}
	return d, nil
}
