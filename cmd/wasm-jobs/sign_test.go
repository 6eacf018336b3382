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
	"reflect"
	"strings"
	"testing"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// signingCase is a folder with a receipt, its envelope and the keys.
type signingCase struct {
	dir      string
	public   ed25519.PublicKey
	envelope dsse.Envelope
}

func (c *signingCase) path(name string) string { return filepath.Join(c.dir, name) }

func newSigningCase(t *testing.T) *signingCase {
	t.Helper()
	private := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	c := &signingCase{dir: t.TempDir(), public: private.Public().(ed25519.PublicKey)}
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
	c.write(t, "key", pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: pkcs8}))
	c.write(t, "key.pub", pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: pkix}))
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

// printedBy runs a command, and returns its exit code with all that it printed.
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

// TestEnvelope takes an envelope apart by the specifications, without the
// library that made it.
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
	encoded := fmt.Sprintf("DSSEv1 %d %s %d %s", len(payloadType), payloadType, len(payload), payload)
	if !ed25519.Verify(c.public, []byte(encoded), signature) {
		t.Error("the signature is not that of the pre-authentication encoding")
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
		t.Errorf("the payload is\n%s\nexpected\n%s", sorted, wanted)
	}
}

// TestTampered changes one thing at a time, and expects to be told which.
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
		{"signature", "receipt.json", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = flipped(e.Signatures[0].Sig) }, exitDiffers, "it was changed, or the builder or a time in the payload was; all else in the payload is what"},
		{"signature, no receipt", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = flipped(e.Signatures[0].Sig) }, exitDiffers, "the payload or the signature was changed"},
		{"short signature", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = "AAAA" }, exitDiffers, "the signature was changed: it is not 64 bytes"},
		{"signature without base64", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].Sig = "!" }, exitDiffers, "the signature was changed: it is not 64 bytes"},
		{"key id", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures[0].KeyID = "beef" }, exitDiffers, "it is signed with other keys (beef)"},
		{"no signatures", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures = nil }, exitRefused, "no payload or no signatures"},
		{"many signatures", "", func(_ *signingCase, e *dsse.Envelope) { e.Signatures = make([]dsse.Signature, 65) }, exitRefused, "65 signatures, of which 64 are allowed"},
		{"another signature first", "receipt.json", func(_ *signingCase, e *dsse.Envelope) {
			e.Signatures = append([]dsse.Signature{{KeyID: "beef", Sig: "AAAA"}}, e.Signatures...)
		}, exitOK, "about"},
		{"payload", "receipt.json", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"seed":0`, `"seed":9`) }, exitDiffers, "the payload was changed, it is not what"},
		{"payload, no receipt", "", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"seed":0`, `"seed":9`) }, exitDiffers, "the payload or the signature was changed"},
		{"payload that is no statement", "", func(c *signingCase, e *dsse.Envelope) { e.Payload = c.payload(t, `"_type"`, `"type"`) }, exitDiffers, "the payload was changed: "},
		{"payload without base64", "", func(_ *signingCase, e *dsse.Envelope) { e.Payload = "!" }, exitDiffers, "the payload was changed: it is no base64"},
		{"payload type", "", func(_ *signingCase, e *dsse.Envelope) { e.PayloadType = "text/plain" }, exitDiffers, `the payload's type is "text/plain"`},
		{"receipt", "other.json", func(*signingCase, *dsse.Envelope) {}, exitDiffers, "other.json: this is not the receipt that"},
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
				t.Errorf("code %d and\n%s\nexpected %d and %q", code, printed, test.code, test.want)
			}
		})
	}
}

// TestForeignStatements refuses what the key signed, and is no statement about a
// receipt.
func TestForeignStatements(t *testing.T) {
	c := newSigningCase(t)
	key, err := keySource{file: c.path("key")}.private()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := dsse.NewEnvelopeSigner(key)
	if err != nil {
		t.Fatal(err)
	}
	own, _ := base64.StdEncoding.DecodeString(c.envelope.Payload)
	for name, payload := range map[string]string{
		"empty":          "",
		"other JSON":     `{"a":1}`,
		"no subject":     strings.Replace(string(own), `"name":"receipt"`, `"name":"other"`, 1),
		"other type":     strings.Replace(string(own), "Statement/v1", "Statement/v9", 1),
		"two statements": string(own) + string(own),
	} {
		e, err := signer.SignPayload(t.Context(), payloadType, []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(e)
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

// TestKeys refuses what is no Ed25519 key, in one line.
func TestKeys(t *testing.T) {
	c := newSigningCase(t)
	for name, test := range map[string]struct{ text, want string }{
		"empty":     {"", "no key in PEM"},
		"encrypted": {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", "is encrypted"},
		"other":     {"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", `a PEM block "CERTIFICATE"`},
		"damaged":   {"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "the private key is damaged"},
		"large":     {strings.Repeat("a", maxKey+1), "larger than"},
	} {
		c.write(t, "bad", []byte(test.text))
		code, printed := printedBy(t, "sign", c.path("receipt.json"), "--key", c.path("bad"), "--builder", "https://b.example")
		if code != exitRefused || !strings.Contains(printed, test.want) || strings.Count(printed, "\n") != 1 {
			t.Errorf("%s: code %d and\n%s\nexpected %q", name, code, printed, test.want)
		}
	}
}

// TestStatements holds what is read of a payload to be written again as the
// same statement, and errors to be of one line: of every committed receipt, and
// of one with every byte of the payload changed or cut off.
func TestStatements(t *testing.T) {
	receipts, err := filepath.Glob("../../testdata/receipts/*.receipt.json")
	if err != nil || len(receipts) == 0 {
		t.Fatalf("%d receipts, %v", len(receipts), err)
	}
	for _, path := range receipts {
		r, err := readReceipt(path)
		if err != nil {
			t.Fatal(err)
		}
		command := strings.Contains(path, "command")
		if command {
			r.Settings.Dirs = []receipt.Dir{{Digest: r.Module, Guest: "/data"}}
		}
		s, err := newStatement(r, runDetails{})
		if err != nil {
			t.Fatal(err)
		}
		want := resource{"directory /data", digestSet{dirDigest: hexOf(r.Module)}}
		if all := s.Predicate.Definition.Dependency; command && !reflect.DeepEqual(all[len(all)-1], want) {
			t.Errorf("the last dependency of a command with a directory is %v, expected %v", all[len(all)-1], want)
		}
		payload, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseStatement(payload); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s: got %+v, %v; expected %+v", path, got, err, s)
		}
		if !strings.Contains(path, "context") { // of one of them, which has no fewer fields but an aggregate
			continue
		}
		for i := range payload {
			checkStatement(t, payload[:i])
			for _, by := range []byte{1, '"' ^ payload[i], '}' ^ payload[i], 0xff} {
				changed := bytes.Clone(payload)
				changed[i] ^= by
				checkStatement(t, changed)
			}
		}
	}
}

func checkStatement(t *testing.T, payload []byte) {
	t.Helper()
	s, err := parseStatement(payload)
	if err != nil {
		if strings.Contains(err.Error(), "\n") {
			t.Errorf("an error of several lines: %q", err)
		}
		return
	}
	again, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := parseStatement(again); err != nil || !reflect.DeepEqual(got, s) {
		t.Errorf("got %+v, %v; expected %+v", got, err, s)
	}
}
