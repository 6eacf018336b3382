package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/attest"
)

func keygenCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "keygen", Usage: "make keys for signing receipts",
		UsageText: `wasm-jobs keygen -o NAME

Example: wasm-jobs keygen -o release

It writes the private key to NAME, which only its owner may read, and the public
key to NAME.pub: Ed25519, in PKCS #8 and PKIX, as PEM. It never overwrites a file.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the keys to `NAME` and NAME.pub", Required: true}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() > 0 {
				return usageErrorf("keygen takes no arguments, got %d", ctx.NArg())
			}
			if ctx.String("output") == "-" {
				return usageErrorf("invalid --output -: a private key is never written to stdout; give a file name")
			}
			return keygen(c, ctx.String("output"))
		},
	}
}

func keygen(c *console, name string) error {
	key, err := attest.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	u := c.newUnfinished()
	defer u.discard() // never leave half a pair
	if err := writeNew(u, name, 0o600, key.PEM()); err != nil {
		return err
	}
	if err := writeNew(u, name+".pub", 0o644, key.Public().PEM()); err != nil {
		return err
	}
	u.finish()
	_, err = fmt.Fprintf(c.out, "key      %s\nprivate  %s\npublic   %s.pub\n", key.Public().ID(), name, name)
	return outputError(err)
}

// writeNew writes a new file, which must not exist.
func writeNew(u *unfinished, path string, mode os.FileMode, contents []byte) error {
	var file *os.File
	err := u.make(path, func() (err error) {
		file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		return err
	})
	if errors.Is(err, os.ErrExist) {
		return usageErrorf("%s exists already, and keys are never overwritten: give another name", path)
	}
	if err != nil {
		return usageErrorf("%w", err)
	}
	_, err = file.Write(contents)
	return outputError(errors.Join(err, file.Sync(), file.Close()))
}
