package attest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/wasm-jobs/wasm-jobs/host/attest"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

const receiptPath = "../../testdata/receipts/square.receipt.json"

func parsed() (*receipt.Receipt, error) {
	b, err := os.ReadFile(receiptPath)
	if err != nil {
		return nil, err
	}
	return receipt.Parse(b)
}

// key returns a pair of keys made from one byte.
func key(t testing.TB, of byte) *attest.PrivateKey {
	t.Helper()
	k, err := attest.GenerateKey(bytes.NewReader(bytes.Repeat([]byte{of}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// envelope is signed by key 1.
func envelope(t testing.TB) (*receipt.Receipt, *attest.Envelope) {
	t.Helper()
	r, err := parsed()
	if err != nil {
		t.Fatal(err)
	}
	s, err := attest.NewStatement(r, attest.NewRun("https://ci.example.org/1"))
	if err != nil {
		t.Fatal(err)
	}
	e, err := attest.Sign(t.Context(), s, key(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	return r, e
}

func Example() {
	r, err := parsed()
	if err != nil {
		fmt.Println(err)
		return
	}
	key, err := attest.GenerateKey(bytes.NewReader(make([]byte, 32))) // rand.Reader in real programs
	if err != nil {
		fmt.Println(err)
		return
	}
	statement, err := attest.NewStatement(r, attest.NewRun("https://ci.example.org/release"))
	if err != nil {
		fmt.Println(err)
		return
	}
	envelope, err := attest.Sign(context.Background(), statement, key)
	if err != nil {
		fmt.Println(err)
		return
	}
	statement, err = attest.Check{Key: key.Public(), Receipt: r}.Verify(envelope)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(statement.Predicate.Run.Builder.ID)
	// Output: https://ci.example.org/release
}

func TestVerify(t *testing.T) {
	r, good := envelope(t)
	other := *r
	other.Settings.Seed++
	flip := func(e *attest.Envelope) {
		b, _ := base64.StdEncoding.DecodeString(e.Signatures[0].Sig)
		b[3] ^= 1
		e.Signatures[0].Sig = base64.StdEncoding.EncodeToString(b)
	}
	for _, tt := range []struct {
		name   string
		change func(c *attest.Check, e *attest.Envelope)
		want   attest.Reason // 0 means good
	}{
		{"nothing", func(*attest.Check, *attest.Envelope) {}, 0},
		{"another key id", func(_ *attest.Check, e *attest.Envelope) { e.Signatures[0].KeyID = "x" }, 0},
		{"no key id", func(_ *attest.Check, e *attest.Envelope) { e.Signatures[0].KeyID = "" }, 0},
		{"base64url", func(_ *attest.Check, e *attest.Envelope) {
			e.Signatures[0].Sig = strings.NewReplacer("+", "-", "/", "_").Replace(e.Signatures[0].Sig)
		}, 0},
		{"behind one that cannot be read", func(_ *attest.Check, e *attest.Envelope) {
			e.Signatures = append([]dsse.Signature{{Sig: "!"}, {Sig: "AAAA"}}, e.Signatures...)
		}, 0},
		{"another key", func(c *attest.Check, _ *attest.Envelope) { c.Key = key(t, 2).Public() }, attest.OtherKeys},
		{"another key, no key id", func(c *attest.Check, e *attest.Envelope) { c.Key, e.Signatures[0].KeyID = key(t, 2).Public(), "" }, attest.NotGood},
		{"a changed signature", func(_ *attest.Check, e *attest.Envelope) { flip(e) }, attest.NotGood},
		{"one that cannot be read", func(_ *attest.Check, e *attest.Envelope) { e.Signatures[0].Sig = "!" }, attest.Unreadable},
		{"a short one", func(_ *attest.Check, e *attest.Envelope) { e.Signatures[0].Sig = "AAAA" }, attest.Unreadable},
		{"another type", func(_ *attest.Check, e *attest.Envelope) { e.PayloadType = "text/plain" }, attest.OtherType},
		{"a payload without base64", func(_ *attest.Check, e *attest.Envelope) { e.Payload = "!" }, attest.PayloadNotBase64},
		{"another payload", func(_ *attest.Check, e *attest.Envelope) { e.Payload = "e30=" }, attest.NoStatement},
		{"another builder", func(c *attest.Check, _ *attest.Envelope) { c.Builder = "https://evil.example" }, attest.OtherBuilder},
		{"another receipt", func(c *attest.Check, _ *attest.Envelope) { c.Receipt = &other }, attest.OtherReceipt},
	} {
		e := *good
		e.Signatures = append([]dsse.Signature{}, good.Signatures...)
		c := attest.Check{Key: key(t, 1).Public(), Receipt: r, Builder: "https://ci.example.org/1"}
		tt.change(&c, &e)
		s, err := c.Verify(&e)
		m, _ := errors.AsType[*attest.Mismatch](err)
		switch {
		case tt.want == 0 && (err != nil || s == nil):
			t.Errorf("%s: %v", tt.name, err)
		case tt.want != 0 && (m == nil || m.Reason != tt.want || s != nil || strings.Contains(err.Error(), "\n")):
			t.Errorf("%s: %v, want reason %d", tt.name, err, tt.want)
		}
	}
	changed := *good
	changed.Signatures = append([]dsse.Signature{}, good.Signatures...)
	flip(&changed)
	_, err := attest.Check{Key: key(t, 1).Public(), Receipt: r}.Verify(&changed)
	if m, ok := errors.AsType[*attest.Mismatch](err); !ok || !m.About {
		t.Errorf("the payload describes the receipt, and the error %v has About = false", err)
	}
}

// wide returns a text in UTF-16.
func wide(text string, mark string, big bool) []byte {
	b := []byte(mark)
	for _, u := range utf16.Encode([]rune(text)) {
		lo, hi := byte(u), byte(u>>8)
		if big {
			lo, hi = hi, lo
		}
		b = append(b, lo, hi)
	}
	return b
}

func TestParseEnvelopeRefuses(t *testing.T) {
	_, e := envelope(t)
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "invalid envelope: empty"},
		{"half", good[:len(good)/2], "invalid envelope: truncated"},
		{"two", good + good, "more data after it"},
		{"a byte order mark", "\xef\xbb\xbf" + good, "a byte order mark"},
		{"UTF-16", string(wide(good, "\xff\xfe", false)), "invalid envelope: UTF-16"},
		{"UTF-16, big end first", string(wide(good, "\xfe\xff", true)), "invalid envelope: UTF-16"},
		{"UTF-16 without a mark", string(wide(good, "", false)), "invalid envelope: UTF-16"},
		{"a key twice", strings.Replace(good, `"payload":`, `"payload":"e30=","payload":`, 1), `duplicate key "payload"`},
		{"a key twice in a signature", strings.Replace(good, `"sig":`, `"sig":"AAAA","sig":`, 1), `duplicate key "sig"`},
		{"another spelling", strings.Replace(good, `"payload":`, `"Payload":`, 1), `unknown key "Payload": want "payload"`},
		{"another spelling in addition", strings.Replace(good, `"payloadType":`, `"payloadtype":"x","payloadType":`, 1), `unknown key "payloadtype": want "payloadType"`},
		{"another spelling in a signature", strings.Replace(good, `"keyid":`, `"keyID":`, 1), `unknown key "keyID": want "keyid"`},
		{"a Sigstore bundle", `{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","verificationMaterial":{},"dsseEnvelope":` + good + `}`, "invalid envelope: a Sigstore bundle"},
		{"a bundle of cosign", `{"base64Signature":"AAAA","cert":"","rekorBundle":{}}`, "a bundle of cosign"},
		{"a web signature", `{"payload":"e30","protected":"e30","signature":"AAAA"}`, "JSON Web Signature"},
		{"metadata of in-toto", `{"signed":{},"signatures":[]}`, "TUF or of in-toto"},
		{"a statement", `{"_type":"https://in-toto.io/Statement/v1","predicateType":"x"}`, "an unsigned statement"},
		{"PEM", "-----BEGIN PUBLIC KEY-----\n", "invalid envelope: PEM"},
		{"a list", "[]", "cannot unmarshal array"},
	} {
		_, err := attest.ParseEnvelope([]byte(tt.text))
		if _, ok := errors.AsType[attest.Error](err); !ok || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	for name, text := range map[string]string{
		"as it is": good, "CR and LF": strings.ReplaceAll(good, ",", ",\r\n") + "\r\n", "a key more": strings.Replace(good, "{", `{"note":"hi",`, 1),
	} {
		if _, err := attest.ParseEnvelope([]byte(text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signed statement with a duplicate key, or a key in another spelling, is
// refused.
func TestParseStatementIsStrict(t *testing.T) {
	_, e := envelope(t)
	b, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	good := string(b)
	if _, err := attest.ParseStatement(b); err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{`"seed":`, `"seed":1,"seed":`}, {`"seed":`, `"Seed":`}, {`"_type":`, `"_Type":`}, {`"sha256":`, `"sha256":"00","sha256":`}} {
		text := strings.Replace(good, change[0], change[1], 1)
		if _, err := attest.ParseStatement([]byte(text)); text == good || err == nil || strings.Contains(err.Error(), "\n") {
			t.Errorf("with %s: %v", change[1], err)
		}
	}
}

func TestKeys(t *testing.T) {
	k := key(t, 1)
	private, public := string(k.PEM()), string(k.Public().PEM())
	if again, err := attest.ParsePrivateKey([]byte(strings.ReplaceAll(private, "\n", "\r\n"))); err != nil || again.Public().ID() != k.Public().ID() {
		t.Errorf("a private key with CR and LF: %v", err)
	}
	if again, err := attest.ParsePublicKey([]byte(strings.ReplaceAll(public, "\n", "\r\n"))); err != nil || again.ID() != k.Public().ID() {
		t.Errorf("a public key with CR and LF: %v", err)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "", "invalid key: want PEM that begins"},
		{"a public key", public, "invalid private key: this is the public key"},
		{"two keys", private + private, "more than one key"},
		{"a byte order mark", "\xef\xbb\xbf" + private, "invalid key: a byte order mark"},
		{"UTF-16", string(wide(private, "\xff\xfe", false)), "invalid key: UTF-16"},
		{"UTF-16 without a mark", string(wide(private, "", true)), "invalid key: UTF-16"},
		{"OpenSSH", "ssh-ed25519 AAAA me", "an OpenSSH public key"},
		{"minisign", "untrusted comment: minisign public key\nAAAA", "a key of minisign"},
		{"DER", "\x30\x2e\x02", "a key in DER"},
		{"OpenSSH's private key", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", `invalid PEM block "OPENSSH PRIVATE KEY"`},
	} {
		_, err := attest.ParsePrivateKey([]byte(tt.text))
		if _, ok := errors.AsType[attest.Error](err); !ok || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, err := attest.ParsePublicKey([]byte(private)); err == nil || !strings.Contains(err.Error(), "invalid public key: this is the private key") {
		t.Errorf("a private key for a public one: %v", err)
	}
}
