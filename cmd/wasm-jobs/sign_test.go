package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/wasm-jobs/wasm-jobs/host/attest"
)

// signingCase is a directory with a receipt, its envelope and the keys.
type signingCase struct {
	dir      string
	private  ed25519.PrivateKey
	public   ed25519.PublicKey
	envelope dsse.Envelope
}

func (c *signingCase) path(name string) string { return filepath.Join(c.dir, name) }

func newSigningCase(t *testing.T) *signingCase {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	c := &signingCase{dir: t.TempDir(), private: private, public: private.Public().(ed25519.PublicKey)}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pkix, err := x509.MarshalPKIXPublicKey(c.public)
	if err != nil {
		t.Fatal(err)
	}
	receipt, err := os.ReadFile("../../testdata/receipts/square.receipt.json")
	if err != nil {
		t.Fatal(err)
	}
	c.write(t, "key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
	c.write(t, "key.pub", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}))
	c.write(t, "receipt.json", receipt)
	c.write(t, "other.json", bytes.Replace(receipt, []byte(`"seed": 0`), []byte(`"seed": 1`), 1))
	code, out := printedBy(t, "sign", c.path("receipt.json"), "--key", c.path("key"), "--builder", "https://ci.example.org/1", "-o", c.path("envelope.json"))
	if code != exitOK {
		t.Fatal(out)
	}
	text, err := os.ReadFile(c.path("envelope.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &c.envelope); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *signingCase) write(t *testing.T, name string, contents []byte) {
	t.Helper()
	if err := os.WriteFile(c.path(name), contents, 0o600); err != nil {
		t.Fatal(err)
	}
}

// printedBy runs a command, and returns its exit code and output.
func printedBy(t *testing.T, args ...string) (code int, printed string) {
	t.Helper()
	var out bytes.Buffer
	code = Main(context.Background(), append([]string{"wasm-jobs"}, args...), strings.NewReader(""), &out, &out)
	return code, out.String()
}

// payload returns the payload changed, as base64.
func (c *signingCase) payload(t *testing.T, from, to string) string {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(c.envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(b), from, to, 1)
	if changed == string(b) {
		t.Fatalf("%q is not in the payload", from)
	}
	return base64.StdEncoding.EncodeToString([]byte(changed))
}

// TestEnvelope decodes an envelope according to the specifications, without the library
// that made it.
func TestEnvelope(t *testing.T) {
	c := newSigningCase(t)
	payload, err := base64.StdEncoding.DecodeString(c.envelope.Payload)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(c.envelope.Signatures[0].Sig)
	if err != nil {
		t.Fatal(err)
	}
	encoded := fmt.Sprintf("DSSEv1 %d %s %d %s", len(attest.PayloadType), attest.PayloadType, len(payload), payload)
	if !ed25519.Verify(c.public, []byte(encoded), signature) {
		t.Error("the signature does not match the pre-authentication encoding")
	}
	receipt, err := os.ReadFile(c.path("receipt.json"))
	if err != nil {
		t.Fatal(err)
	}
	var fields struct {
		Module, Input, Outputs, Aggregate string
	}
	if err := json.Unmarshal(receipt, &fields); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(receipt)
	digits := func(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
	want := map[string]any{
		"_type":         "https://in-toto.io/Statement/v1",
		"predicateType": "https://slsa.dev/provenance/v1",
		"subject": []any{
			map[string]any{"name": "receipt", "digest": map[string]any{"sha256": hex.EncodeToString(sum[:])}},
			map[string]any{"name": "outputs", "digest": map[string]any{"rfc6962Sha256": digits(fields.Outputs)}},
			map[string]any{"name": "aggregate", "digest": map[string]any{"sha256": digits(fields.Aggregate)}},
		},
		"predicate": map[string]any{
			"buildDefinition": map[string]any{
				"buildType": "https://github.com/wasm-jobs/wasm-jobs/receipt/v1",
				"externalParameters": map[string]any{
					"module": fields.Module, "input": fields.Input, "chunks": 302.,
					"settings": map[string]any{"memory": 268435456., "metering": true, "nans": "canonical", "seed": 0.},
				},
				"internalParameters": map[string]any{"engine": map[string]any{"abi": 1., "metering": 1., "wazero": "v1.12.0"}},
				"resolvedDependencies": []any{
					map[string]any{"name": "module", "digest": map[string]any{"sha256": digits(fields.Module)}},
					map[string]any{"name": "input", "digest": map[string]any{"rfc6962Sha256": digits(fields.Input)}},
				},
			},
			"runDetails": map[string]any{"builder": map[string]any{"id": "https://ci.example.org/1"}},
		},
	}
	wanted, err := json.Marshal(want) // keys sorted
	if err != nil {
		t.Fatal(err)
	}
	var got any
	if err := json.Unmarshal(payload, &got); err != nil {
		t.Fatal(err)
	}
	if sorted, _ := json.Marshal(got); !bytes.Equal(sorted, wanted) {
		t.Errorf("the payload is\n%s\nwant\n%s", sorted, wanted)
	}
}

// TestTampered changes one thing at a time, and expects an error that names it.
func TestTampered(t *testing.T) {
	flipped := func(signature string) string {
		b, _ := base64.StdEncoding.DecodeString(signature)
		b[9] ^= 1
		return base64.StdEncoding.EncodeToString(b)
	}
	for _, test := range []struct {
		name    string
		receipt string
		change  func(c *signingCase, e *dsse.Envelope)
		code    int
		want    string
	}{
		{"nothing", "receipt.json", func(*signingCase, *dsse.Envelope) {}, exitOK, "about"},
		{"nothing, no receipt", "", func(*signingCase, *dsse.Envelope) {}, exitOK, "signed with"},
		{"signature", "receipt.json", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = flipped(e.Signatures[0].Sig) }, exitDiffers, "the signature was changed, or the builder or a time in the payload; all else in the payload agrees with"},
		{"signature, no receipt", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = flipped(e.Signatures[0].Sig) }, exitDiffers, "the payload or the signature was changed"},
		{"short signature", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" }, exitDiffers, "invalid signature: want 64 bytes in base64"},
		{"signature without base64", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = "!" }, exitDiffers, "invalid signature: want 64 bytes in base64"},
		{"key id", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].KeyID = "beef" }, exitOK, "signed with"},
		{"key id and signature", "", func(_ *signingCase, e *dsse.Envelope) {
			e.Signatures[0] = dsse.Signature{KeyID: "beef", Sig: flipped(e.Signatures[0].Sig)}
		}, exitDiffers, "signed with other keys (beef)"},
		{"a signature that cannot be read first", "receipt.json", func(_ *signingCase, e *dsse.Envelope) {
			e.Signatures = append([]dsse.Signature{{Sig: "!"}}, e.Signatures...)
		}, exitOK, "about"},
		{"an unreadable signature and an invalid one", "", func(_ *signingCase, e *dsse.Envelope) {
			e.Signatures = []dsse.Signature{{Sig: "!"}, {KeyID: e.Signatures[0].KeyID, Sig: flipped(e.Signatures[0].Sig)}}
		}, exitDiffers, "the payload or the signature was changed"},
		{"no signatures", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures = nil }, exitRefused, "missing payload or signatures"},
		{"many signatures", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures = make([]dsse.Signature, 65) }, exitRefused, "too many signatures: 65, want at most 64"},
		{"another signature first", "receipt.json", func(_ *signingCase, e *dsse.Envelope) {
			e.Signatures = append([]dsse.Signature{{KeyID: "beef", Sig: "AAAA"}}, e.Signatures...)
		}, exitOK, "about"},
		{"payload", "receipt.json", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"seed":0`, `"seed":9`) }, exitDiffers, "the payload was changed and does not agree with"},
		{"payload, no receipt", "", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"seed":0`, `"seed":9`) }, exitDiffers, "the payload or the signature was changed"},
		{"payload that is not a statement", "", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"_type"`, `"type"`) }, exitDiffers, "the payload was changed: "},
		{"payload without base64", "", func(_ *signingCase, e *dsse.Envelope) { e.Payload = "!" }, exitDiffers, "the payload was changed: it is not base64"},
		{"payload type", "", func(_ *signingCase, e *dsse.Envelope) { e.PayloadType = "text/plain" }, exitDiffers, `unsupported payload type "text/plain"`},
		{"receipt", "other.json", func(*signingCase, *dsse.Envelope) {}, exitDiffers, "other.json: not the receipt that"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := newSigningCase(t)
			test.change(c, &c.envelope)
			text, err := json.Marshal(c.envelope)
			if err != nil {
				t.Fatal(err)
			}
			c.write(t, "changed.json", text)
			args := []string{"verify-signature", c.path("changed.json"), "--key", c.path("key.pub")}
			if test.receipt != "" {
				args = append(args, "--receipt", c.path(test.receipt))
			}
			code, printed := printedBy(t, args...)
			if code != test.code || !strings.Contains(printed, test.want) {
				t.Errorf("code %d and\n%s\nwant %d and %q", code, printed, test.code, test.want)
			}
		})
	}
}

// signed is an envelope of a payload, made by the specification.
func (c *signingCase) signed(payload string) *dsse.Envelope {
	encoded := fmt.Sprintf("DSSEv1 %d %s %d %s", len(attest.PayloadType), attest.PayloadType, len(payload), payload)
	return &dsse.Envelope{
		PayloadType: attest.PayloadType, Payload: base64.StdEncoding.EncodeToString([]byte(payload)),
		Signatures: []dsse.Signature{{Sig: base64.StdEncoding.EncodeToString(ed25519.Sign(c.private, []byte(encoded)))}},
	}
}

// TestForeignStatements refuses signed payloads that are not statements about a receipt.
func TestForeignStatements(t *testing.T) {
	c := newSigningCase(t)
	own, _ := base64.StdEncoding.DecodeString(c.envelope.Payload)
	for name, payload := range map[string]string{
		"empty":          "",
		"other JSON":     `{"a":1}`,
		"no subject":     strings.Replace(string(own), `"name":"receipt"`, `"name":"other"`, 1),
		"other type":     strings.Replace(string(own), "Statement/v1", "Statement/v9", 1),
		"two statements": string(own) + string(own),
	} {
		text, err := json.Marshal(c.signed(payload))
		if err != nil {
			t.Fatal(err)
		}
		c.write(t, "foreign.json", text)
		code, printed := printedBy(t, "verify-signature", c.path("foreign.json"), "--key", c.path("key.pub"))
		if code == exitOK || strings.Count(printed, "\n") != 1 {
			t.Errorf("%s: code %d and\n%s", name, code, printed)
		}
	}
}

// TestKeys checks that an invalid Ed25519 key is refused with one line.
func TestKeys(t *testing.T) {
	c := newSigningCase(t)
	for name, test := range map[string]struct{ text, want string }{
		"empty":     {"", "invalid key: want PEM"},
		"encrypted": {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"},
		"other":     {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", `invalid PEM block "CERTIFICATE"`},
		"damaged":   {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "invalid private key: want Ed25519"},
		"large":     {strings.Repeat("a", attest.MaxKey+1), "too large"},
	} {
		c.write(t, "bad", []byte(test.text))
		code, printed := printedBy(t, "sign", c.path("receipt.json"), "--key", c.path("bad"), "--builder", "https://b.example")
		if code != exitRefused || !strings.Contains(printed, test.want) || strings.Count(printed, "\n") != 1 {
			t.Errorf("%s: code %d and\n%s\nwant %q", name, code, printed, test.want)
		}
	}
}
