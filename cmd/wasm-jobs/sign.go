package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"
	"time"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"
	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Bounds of an envelope.
const (
	maxEnvelope   = 1 << 20 // bytes
	maxSignatures = 64
)

func signCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "sign", Usage: "sign a receipt: an in-toto statement with SLSA provenance, in a DSSE envelope",
		UsageText: `wasm-jobs sign RECEIPT --key FILE|--key-env NAME --builder URI [-o FILE]

Example: wasm-jobs keygen -o release
         wasm-jobs sign receipt.json --key release --builder https://ci.example.org/release -o receipt.sig.json
         wasm-jobs verify-signature receipt.sig.json --key release.pub --receipt receipt.json

The same receipt, key, builder and times give the same bytes. Keys are Ed25519:
private ones in PKCS #8, public ones in PKIX, as PEM. A key is never given as an
argument, which others could see.`,
		ArgsUsage: "RECEIPT",
		Flags: append(keyFlags("private"),
			&cli.StringFlag{Name: "builder", Usage: "`URI` that names who ran the job, as those who verify know it", Required: true},
			&cli.StringFlag{Name: "started-on", Usage: "`TIME` when the run began, as in 2026-01-31T12:00:00Z; none is stated otherwise"},
			&cli.StringFlag{Name: "finished-on", Usage: "`TIME` when the run ended"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "-", Usage: "write the envelope to `FILE` (- = stdout)"},
		),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return refuse("sign takes one RECEIPT, and %d arguments are given", ctx.NArg())
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
		if path != "" && resolve(path) == resolve(ctx.String("output")) {
			return refuse("--output %s would replace what is signed, or the key: give another name", ctx.String("output"))
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
	envelope, err := signed(ctx.Context, r, details, key)
	if err != nil {
		return err
	}
	files := resultFiles{result: ctx.String("output")}
	if err := files.open(c.out); err != nil {
		return err
	}
	defer files.discard()
	return written(files.targets[files.result].write(func(w *bufio.Writer) error { return writeJSON(w, envelope) }))
}

func parseRunDetails(ctx *cli.Context) (d runDetails, err error) {
	d.Builder.ID = ctx.String("builder")
	if u, err := url.Parse(d.Builder.ID); err != nil || !u.IsAbs() || len(d.Builder.ID) > 2048 {
		return d, refuse("--builder %.100q is no URI such as https://ci.example.org/release", d.Builder.ID)
	}
	times := &runMetadata{}
	for name, to := range map[string]**time.Time{"started-on": &times.StartedOn, "finished-on": &times.FinishedOn} {
		if !isSet(ctx, name) {
			continue
		}
		at, err := time.Parse(time.RFC3339, ctx.String(name))
		if err != nil {
			return d, refuse("--%s %q is no time such as 2026-01-31T12:00:00Z", name, ctx.String(name))
		}
		at = at.UTC()
		*to = &at
	}
	if *times != (runMetadata{}) {
		d.Metadata = times
	}
	if times.StartedOn != nil && times.FinishedOn != nil && times.FinishedOn.Before(*times.StartedOn) {
		return d, refuse("--finished-on is before --started-on")
	}
	return d, nil
}

func signed(ctx context.Context, r *receipt.Receipt, details runDetails, key *signingKey) (*dsse.Envelope, error) {
	s, err := newStatement(r, details)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(key)
	if err != nil {
		return nil, err
	}
	return signer.SignPayload(ctx, payloadType, payload)
}

func verifySignatureCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "verify-signature", Usage: "say whether an envelope is signed with a key, and is about a receipt",
		UsageText: `wasm-jobs verify-signature ENVELOPE --key PUBLIC|--key-env NAME [--receipt FILE]

Example: wasm-jobs verify-signature receipt.sig.json --key release.pub --receipt receipt.json

It says who vouches for a receipt. That the receipt is right, a run of the same
job tells, which gives the same bytes.

Exit codes:
   0    signed with this key, and about this receipt
   2    refused: usage, a key or a file that cannot be read
   4    the answer could not be written
   5    not signed with this key, changed since, or about another receipt`,
		ArgsUsage: "ENVELOPE",
		Flags: append(keyFlags("public"),
			&cli.StringFlag{Name: "receipt", Usage: "the receipt is in `FILE`, and must be the one that was signed"},
			&cli.StringFlag{Name: "builder", Usage: "`URI` that must be the builder's"},
			&cli.BoolFlag{Name: "json", Usage: "print the statement, as JSON"},
		),
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 1 {
				return refuse("verify-signature takes one ENVELOPE, and %d arguments are given", ctx.NArg())
			}
			return verifySignature(ctx, c)
		},
	}
}

// differs returns the error of something that is not what it is to be.
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
	v := &signatureCheck{path: ctx.Args().First(), key: key, keyName: source.name(), receiptPath: ctx.String("receipt"), builder: ctx.String("builder")}
	if v.envelope, err = readEnvelope(v.path); err != nil {
		return err
	}
	if v.receiptPath != "" {
		if v.receipt, err = readReceipt(v.receiptPath); err != nil {
			return err
		}
	}
	s, err := v.verify(ctx.Context)
	if err != nil {
		return err
	}
	if ctx.Bool("json") {
		return written(writeJSON(c.out, s))
	}
	return written(v.print(c.out, s))
}

func readEnvelope(path string) (*dsse.Envelope, error) {
	text, err := readBounded(path, maxEnvelope, "an envelope")
	if err != nil {
		return nil, err
	}
	e := &dsse.Envelope{}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(e); err != nil {
		return nil, refuse("%s: this is no envelope: %s", path, notJSON(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, refuse("%s: more than one envelope, or something behind it", path)
	}
	switch {
	case e.Payload == "" || len(e.Signatures) == 0:
		return nil, refuse("%s: this is no envelope: it has no payload or no signatures", path)
	case len(e.Signatures) > maxSignatures:
		return nil, refuse("%s: %d signatures, of which %d are allowed", path, len(e.Signatures), maxSignatures)
	}
	return e, nil
}

// notJSON says in one line why something is no JSON of the kind that is needed.
func notJSON(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends in the middle"
	}
	return printable(err.Error())
}

// signatureCheck is one question of verify-signature.
type signatureCheck struct {
	path, keyName, receiptPath string
	envelope                   *dsse.Envelope
	key                        *publicKey
	receipt                    *receipt.Receipt // nil where none is given
	builder                    string           // "" = any
}

// verify returns the statement, where all is as it is to be.
func (v *signatureCheck) verify(ctx context.Context) (*statement, error) {
	if v.envelope.PayloadType != payloadType {
		return nil, differs("%s: the payload's type is %.100q, expected %s", v.path, v.envelope.PayloadType, payloadType)
	}
	verifier, err := dsse.NewEnvelopeVerifier(v.key)
	if err != nil {
		return nil, err
	}
	_, payload, err := verifier.VerifyAndDecode(ctx, v.envelope)
	if err != nil {
		return nil, differs("%s: %s", v.path, v.why())
	}
	s, err := parseStatement(payload)
	if err != nil {
		return nil, differs("%s: %w", v.path, err)
	}
	if v.builder != "" && s.Predicate.Run.Builder.ID != v.builder {
		return nil, differs("%s: the builder is %.200q, expected %s", v.path, s.Predicate.Run.Builder.ID, v.builder)
	}
	if v.receipt == nil {
		return s, nil
	}
	if same, err := s.about(v.receipt); err != nil || !same {
		return nil, errors.Join(err, differs("%s: this is not the receipt that %s is about: that one has SHA-256 %s", v.receiptPath, v.path, s.receipt()))
	}
	return s, nil
}

// why says what is wrong where no signature is good. A signature proves that
// something was changed, and not what: with the receipt at hand, more is known.
func (v *signatureCheck) why() string {
	payload, err := v.envelope.DecodeB64Payload()
	if err != nil {
		return "the payload was changed: it is no base64"
	}
	signature, others := v.own()
	switch {
	case signature == nil && others != "":
		return fmt.Sprintf("it is signed with other keys (%s), and not with %s, which is key %s", others, v.keyName, v.key.id)
	case !wellFormed(signature.Sig):
		return fmt.Sprintf("the signature was changed: it is not %d bytes in base64", ed25519.SignatureSize)
	}
	s, err := parseStatement(payload)
	if err != nil {
		return "the payload was changed: " + err.Error()
	}
	if v.receipt != nil {
		if same, err := s.about(v.receipt); err == nil && same {
			return fmt.Sprintf("the signature is not good for key %s: it was changed, or the builder or a time in the payload was; all else in the payload is what %s says", v.key.id, v.receiptPath)
		}
		return fmt.Sprintf("the signature is not good for key %s: the payload was changed, it is not what %s says, or that is another receipt", v.key.id, v.receiptPath)
	}
	return fmt.Sprintf("the signature is not good for key %s: the payload or the signature was changed; --receipt FILE tells more", v.key.id)
}

// own returns the signature that says it is of the key, or does not say of
// which; nil where there is none. others are the keys of the rest.
func (v *signatureCheck) own() (own *dsse.Signature, others string) {
	var names []string
	for i := range v.envelope.Signatures {
		s := &v.envelope.Signatures[i]
		if s.KeyID == v.key.id || s.KeyID == "" {
			return s, ""
		}
		names = append(names, printable(fmt.Sprintf("%.64s", s.KeyID)))
	}
	return nil, strings.Join(names[:min(len(names), 3)], ", ")
}

func wellFormed(signature string) bool {
	b, err := base64.StdEncoding.DecodeString(signature)
	return err == nil && len(b) == ed25519.SignatureSize
}

func (v *signatureCheck) print(out io.Writer, s *statement) error {
	t := newTable(out)
	row := t.field
	row("signed with", "%s, key %s", v.keyName, v.key.id)
	row("builder", "%s", s.Predicate.Run.Builder.ID)
	if m := s.Predicate.Run.Metadata; m != nil {
		if m.StartedOn != nil {
			row("started on", "%s", m.StartedOn.Format(time.RFC3339))
		}
		if m.FinishedOn != nil {
			row("finished on", "%s", m.FinishedOn.Format(time.RFC3339))
		}
	}
	show := func(all []resource) {
		for _, r := range all {
			for _, algorithm := range []string{plainDigest, treeDigest, dirDigest} {
				if digest := r.Digest[algorithm]; digest != "" {
					row(r.Name, "%s %s", algorithm, digest)
				}
			}
		}
	}
	show(s.Predicate.Definition.Dependency)
	show(s.Subject)
	if v.receipt != nil {
		row("about", "%s", v.receiptPath)
	}
	return t.flush()
}
