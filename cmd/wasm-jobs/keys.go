package main

import (
	"io"
	"io/fs"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/host/attest"
)

func keyFlags(what string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "key", Usage: "`FILE` of the " + what + " key"},
		&cli.StringFlag{Name: "key-env", Usage: "environment variable `NAME` with the " + what + " key"},
	}
}

// keySource names the file or the environment variable with a key.
type keySource struct{ file, env string }

func parseKeySource(ctx *cli.Context, what string) (k keySource, err error) {
	k = keySource{ctx.String("key"), ctx.String("key-env")}
	switch {
	case isKeyText(k.file) || isKeyText(k.env):
		// The key is in the process list already: do not use it, and do not print it.
		return k, usageErrorf("--key takes a file name and --key-env the name of a variable, never the key itself: others can see the arguments of a process; do not use this key again")
	case (k.file == "") == (k.env == ""):
		return k, usageErrorf("missing or duplicate %s key: give either --key FILE or --key-env NAME", what)
	}
	return k, nil
}

func isKeyText(s string) bool { return strings.Contains(s, "-----BEGIN") || strings.Contains(s, "\n") }

// name is the key's name in messages.
func (k keySource) name() string {
	if k.file != "" {
		return k.file
	}
	return "$" + k.env
}

// read returns the text of the key, and the mode of its file; 0 if it is not in a file.
func (k keySource) read() ([]byte, fs.FileMode, error) {
	if k.env != "" {
		text, set := os.LookupEnv(k.env)
		if !set {
			return nil, 0, usageErrorf("missing environment variable %s with the key", k.env)
		}
		if len(text) > attest.MaxKey {
			return nil, 0, usageErrorf("$%s: too large: the limit is %d bytes for a key", k.env, attest.MaxKey)
		}
		return []byte(text), 0, nil
	}
	file, err := os.Open(k.file)
	if err != nil {
		return nil, 0, usageErrorf("%w", err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, 0, usageErrorf("%w", err)
	}
	text, err := io.ReadAll(io.LimitReader(file, attest.MaxKey+1))
	if err != nil {
		return nil, 0, usageErrorf("%w", err)
	}
	if len(text) > attest.MaxKey {
		return nil, 0, usageErrorf("%s: too large: the limit is %d bytes for a key", k.file, attest.MaxKey)
	}
	return text, stat.Mode().Perm(), nil
}

// private reads a private key. Only the owner may be able to read its file.
func (k keySource) private() (*attest.PrivateKey, error) {
	text, mode, err := k.read()
	if err != nil {
		return nil, err
	}
	if mode&0o077 != 0 && goruntime.GOOS != "windows" && !attest.IsPublicKey(text) { // Windows does not use the mode; public keys may be readable
		return nil, usageErrorf("%s: private key can be read or written by others (mode %04o): run chmod 600 %s, or make new keys if somebody may have used it", k.file, mode, k.file)
	}
	key, err := attest.ParsePrivateKey(text)
	if err != nil {
		return nil, usageErrorf("%s: %w", k.name(), err)
	}
	return key, nil
}

func (k keySource) public() (*attest.PublicKey, error) {
	text, _, err := k.read()
	if err != nil {
		return nil, err
	}
	key, err := attest.ParsePublicKey(text)
	if err != nil {
		return nil, usageErrorf("%s: %w", k.name(), err)
	}
	return key, nil
}
