package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	goruntime "runtime"
	"strings"

	"github.com/urfave/cli/v2"
)

// Types of PEM blocks (RFC 7468): a private key in PKCS #8, a public one in
// PKIX.
const (
	pemPrivate   = "PRIVATE KEY"
	pemPublic    = "PUBLIC KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"
)

// maxKey bounds the file of a key, in bytes.
const maxKey = 64 << 10

func keyFlags(what string) []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "key", Usage: "the " + what + " key is in `FILE`"},
		&cli.StringFlag{Name: "key-env", Usage: "the " + what + " key is in the environment variable `NAME`"},
	}
}

// keySource names where a key is.
type keySource struct{ file, env string }

func parseKeySource(ctx *cli.Context, what string) (k keySource, err error) {
	k = keySource{ctx.String("key"), ctx.String("key-env")}
	switch {
	case isKeyText(k.file) || isKeyText(k.env):
		// It is in the process list already: neither print it nor take it.
		return k, refuse("--key takes the name of a file and --key-env that of a variable, never a key itself: others can see the arguments of a process; do not use this key again")
	case (k.file == "") == (k.env == ""):
		return k, refuse("the %s key is missing, or given twice: --key FILE or --key-env NAME says where it is", what)
	}
	return k, nil
}

func isKeyText(s string) bool { return strings.Contains(s, "-----BEGIN") || strings.Contains(s, "\n") }

// name is how messages call the key.
func (k keySource) name() string {
	if k.file != "" {
		return k.file
	}
	return "$" + k.env
}

// read returns the text of the key. A private one must be readable by its
// owner alone.
func (k keySource) read(private bool) ([]byte, error) {
	if k.env != "" {
		text, set := os.LookupEnv(k.env)
		if !set {
			return nil, refuse("the environment has no variable %s, which is to hold the key", k.env)
		}
		if len(text) > maxKey {
			return nil, refuse("$%s: larger than %d bytes, the limit for a key", k.env, maxKey)
		}
		return []byte(text), nil
	}
	file, err := os.Open(k.file)
	if err != nil {
		return nil, refuse("%w", err)
	}
	defer file.Close()
	stat, err := file.Stat()
	if err != nil {
		return nil, refuse("%w", err)
	}
	if mode := stat.Mode().Perm(); private && mode&0o077 != 0 && goruntime.GOOS != "windows" { // whose modes say nothing
		return nil, refuse("%s: a private key that others may read or write (mode %04o): chmod 600 %s, or make a new pair where they may have done so", k.file, mode, k.file)
	}
	text, err := io.ReadAll(io.LimitReader(file, maxKey+1))
	if err != nil {
		return nil, refuse("%w", err)
	}
	if len(text) > maxKey {
		return nil, refuse("%s: larger than %d bytes, the limit for a key", k.file, maxKey)
	}
	return text, nil
}

// block returns what the one PEM block of a key holds, which must be of a type.
func (k keySource) block(want string) ([]byte, error) {
	text, err := k.read(want == pemPrivate)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	switch {
	case block == nil:
		return nil, refuse("%s: no key in PEM, which begins with -----BEGIN %s-----", k.name(), want)
	case block.Type == pemEncrypted:
		return nil, refuse("%s: the private key is encrypted, and one that is not is needed", k.name())
	case block.Type == pemPrivate && want == pemPublic:
		return nil, refuse("%s: this is a private key, and the public one of its pair is needed", k.name())
	case block.Type == pemPublic && want == pemPrivate:
		return nil, refuse("%s: this is a public key, and the private one of its pair is needed", k.name())
	case block.Type != want:
		return nil, refuse("%s: a PEM block %.40q, expected %s", k.name(), block.Type, want)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, refuse("%s: more than one key", k.name())
	}
	return block.Bytes, nil
}

func (k keySource) private() (*signingKey, error) {
	der, err := k.block(pemPrivate)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, refuse("%s: the private key is damaged, or of a kind that is not known: Ed25519 in PKCS #8 is needed", k.name()) // not what err says of its bytes
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse("%s: a private key of another kind (%T), and Ed25519 is needed", k.name(), key)
	}
	public, err := newPublicKey(private.Public().(ed25519.PublicKey))
	return &signingKey{private, public}, err
}

func (k keySource) public() (*publicKey, error) {
	der, err := k.block(pemPublic)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, refuse("%s: the public key is damaged: %w", k.name(), err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, refuse("%s: a public key of another kind (%T), and Ed25519 is needed", k.name(), key)
	}
	return newPublicKey(public)
}

// publicKey is a public key with its name: the SHA-256 of its PKIX form in DER,
// in hex.
type publicKey struct {
	key ed25519.PublicKey
	id  string
}

func newPublicKey(key ed25519.PublicKey) (*publicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &publicKey{key, hex.EncodeToString(sum[:])}, nil
}

var errSignature = errors.New("the signature is not that of this key over these bytes")

// Verify implements [dsse.Verifier].
func (k *publicKey) Verify(_ context.Context, data, signature []byte) error {
	if !ed25519.Verify(k.key, data, signature) {
		return errSignature
	}
	return nil
}

// KeyID implements [dsse.Verifier].
func (k *publicKey) KeyID() (string, error) { return k.id, nil }

// Public implements [dsse.Verifier].
func (k *publicKey) Public() crypto.PublicKey { return k.key }

// signingKey is a pair of keys.
type signingKey struct {
	private ed25519.PrivateKey
	*publicKey
}

// Sign implements [dsse.Signer].
func (k *signingKey) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(k.private, data), nil
}

func keygenCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "keygen", Usage: "make a pair of keys to sign receipts with",
		UsageText: `wasm-jobs keygen -o NAME

Example: wasm-jobs keygen -o release

It writes the private key to NAME, which its owner alone may read, and the public
one to NAME.pub: Ed25519, in PKCS #8 and PKIX, as PEM. Files that exist are left
as they are, and refused.`,
		Flags: []cli.Flag{&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the keys to `NAME` and NAME.pub", Required: true}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() > 0 {
				return refuse("keygen takes no arguments, and %d are given", ctx.NArg())
			}
			if ctx.String("output") == "-" {
				return refuse("--output - : a private key goes to a file that its owner alone may read, and not to stdout")
			}
			return keygen(c, ctx.String("output"))
		},
	}
}

func keygen(c *console, name string) error {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return err
	}
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return err
	}
	if err := writeNew(name, 0o600, pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: pkcs8})); err != nil {
		return err
	}
	if err := writeNew(name+".pub", 0o644, pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: pkix})); err != nil {
		return errors.Join(err, os.Remove(name)) // half a pair is of no use
	}
	sum := sha256.Sum256(pkix)
	_, err = fmt.Fprintf(c.out, "key      %x\nprivate  %s\npublic   %s.pub\n", sum, name, name)
	return written(err)
}

// writeNew writes a file that must not exist yet, or leaves none.
func writeNew(path string, mode os.FileMode, contents []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if errors.Is(err, os.ErrExist) {
		return refuse("%s exists, and a key is not overwritten: give another name", path)
	}
	if err != nil {
		return refuse("%w", err)
	}
	_, err = file.Write(contents)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return written(errors.Join(err, os.Remove(path)))
	}
	return nil
}
