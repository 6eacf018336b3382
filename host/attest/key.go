package attest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"io"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// Types of PEM blocks (RFC 7468). A private key is in PKCS #8, a public key in
// PKIX.
const (
	pemPrivate   = "PRIVATE KEY"
	pemPublic    = "PUBLIC KEY"
	pemEncrypted = "ENCRYPTED PRIVATE KEY"
)

// MaxKey is the limit of the text of a key, in bytes.
const MaxKey = 64 << 10

// PublicKey is a key for checking signatures.
type PublicKey struct {
	key ed25519.PublicKey
	id  string
	der []byte // PKIX
}

func newPublicKey(key ed25519.PublicKey) (*PublicKey, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return &PublicKey{key, hex.EncodeToString(sum[:]), der}, nil
}

// ID returns the id of a key: the SHA-256 of its PKIX form in DER, in hex.
func (k *PublicKey) ID() string { return k.id }

// PEM returns the content of the key's file.
func (k *PublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: k.der})
}

// PrivateKey is a pair of keys for signing.
type PrivateKey struct {
	key    ed25519.PrivateKey
	public *PublicKey
	der    []byte // PKCS #8
}

// GenerateKey makes a pair of keys from 32 bytes of a random source, such as
// rand.Reader of package crypto/rand.
func GenerateKey(random io.Reader) (*PrivateKey, error) {
	_, private, err := ed25519.GenerateKey(random)
	if err != nil {
		return nil, err
	}
	return newPrivateKey(private)
}

func newPrivateKey(key ed25519.PrivateKey) (*PrivateKey, error) {
	public, err := newPublicKey(key.Public().(ed25519.PublicKey))
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return &PrivateKey{key, public, der}, err
}

// Public returns the public key of the pair.
func (k *PrivateKey) Public() *PublicKey { return k.public }

// PEM returns the content of the private key's file.
func (k *PrivateKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: k.der})
}

// ParsePrivateKey reads a private key: Ed25519 in PKCS #8, as PEM. The error is an
// [Error] that contains no part of the key.
func ParsePrivateKey(text []byte) (*PrivateKey, error) {
	der, err := block(text, pemPrivate)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, Error("invalid private key: want Ed25519 in PKCS #8") // err may contain bytes of the key
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, errorf("unsupported private key (%T): want Ed25519", key)
	}
	return newPrivateKey(private)
}

// ParsePublicKey reads a public key: Ed25519 in PKIX, as PEM. The error is an
// [Error].
func ParsePublicKey(text []byte) (*PublicKey, error) {
	der, err := block(text, pemPublic)
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, errorf("invalid public key: %s", err)
	}
	public, ok := key.(ed25519.PublicKey)
	if !ok {
		return nil, errorf("unsupported public key (%T): want Ed25519", key)
	}
	return newPublicKey(public)
}

// IsPublicKey reports whether a text begins a PEM block of a public key.
func IsPublicKey(text []byte) bool {
	b, _ := pem.Decode(text)
	return b != nil && b.Type == pemPublic
}

// block returns the contents of the single PEM block of a key, which must have the
// type want.
func block(text []byte, want string) ([]byte, error) {
	b, rest := pem.Decode(text)
	switch {
	case b == nil:
		return nil, noKey(text, want)
	case b.Type == pemEncrypted:
		return nil, Error("unsupported private key: it is encrypted, want it unencrypted")
	case b.Type == pemPrivate && want == pemPublic:
		return nil, Error("invalid public key: this is the private key of a pair, want the public one")
	case b.Type == pemPublic && want == pemPrivate:
		return nil, Error("invalid private key: this is the public key of a pair, want the private one")
	case b.Type != want:
		return nil, errorf("invalid PEM block %.40q: want %s", b.Type, want)
	case len(bytes.TrimSpace(rest)) > 0:
		return nil, Error("more than one key")
	}
	return b.Bytes, nil
}

// others are the keys of other programs, by the start of their files.
var others = []struct{ begins, what string }{
	{"ssh-", "an OpenSSH public key"},
	{"ecdsa-sha2-", "an OpenSSH public key"},
	{"sk-ssh-", "an OpenSSH public key"},
	{"untrusted comment:", "a key of minisign or signify"},
	{"age1", "a public key of age"},
	{"AGE-SECRET-KEY-", "a private key of age"},
	{"{", "JSON"},
}

// noKey describes a text without a PEM block.
func noKey(text []byte, want string) error {
	is := notation.Foreign(text)
	for _, other := range others {
		if is == "" && strings.HasPrefix(string(text[:min(len(text), 32)]), other.begins) {
			is = other.what
		}
	}
	if is == "" && bytes.HasPrefix(text, []byte{0x30}) {
		is = "perhaps a key in DER"
	}
	if is != "" {
		return errorf("invalid key: %s; want PEM that begins with -----BEGIN %s-----", is, want)
	}
	return errorf("invalid key: want PEM that begins with -----BEGIN %s-----", want)
}
