package attest

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// Limits of an envelope.
const (
	MaxEnvelope   = 1 << 20 // bytes
	maxSignatures = 64
)

// Envelope is a DSSE envelope; its JSON is the content of an envelope file.
type Envelope = dsse.Envelope

// Sign returns an envelope with a signed statement.
func Sign(ctx context.Context, s *Statement, key *PrivateKey) (*Envelope, error) {
	payload, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(signer{key})
	if err != nil {
		return nil, err
	}
	return signer.SignPayload(ctx, PayloadType, payload)
}

// signer adapts a key to package dsse.
type signer struct{ *PrivateKey }

func (s signer) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.key, data), nil
}

func (s signer) KeyID() (string, error) { return s.Public().ID(), nil }

// ParseEnvelope reads the content of an envelope file. A duplicate key in an
// object, and a key that differs from a DSSE key only in case, are refused; keys
// unknown to DSSE are ignored. The error is an [Error].
func ParseEnvelope(text []byte) (*Envelope, error) {
	e := &Envelope{}
	d := json.NewDecoder(bytes.NewReader(text))
	if err := d.Decode(e); err != nil {
		return nil, errorf("invalid envelope: %s", whyNotJSON(text, err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, Error("invalid envelope: more data after it")
	}
	if other := otherTool(text); other != "" {
		return nil, errorf("invalid envelope: %s", other)
	}
	if err := notation.CheckNames(text, e); err != nil {
		return nil, errorf("invalid envelope: %s", err)
	}
	switch {
	case e.Payload == "" || len(e.Signatures) == 0:
		return nil, Error("invalid envelope: missing payload or signatures")
	case len(e.Signatures) > maxSignatures:
		return nil, errorf("too many signatures: %d, want at most %d", len(e.Signatures), maxSignatures)
	}
	return e, nil
}

// whyNotJSON explains why a text is not an envelope's JSON.
func whyNotJSON(text []byte, err error) string {
	if _, syntax := errors.AsType[*json.SyntaxError](err); syntax {
		if foreign := notation.Foreign(text); foreign != "" {
			return foreign
		}
		if bytes.HasPrefix(bytes.TrimSpace(text), []byte("-----BEGIN")) {
			return "PEM, such as a key"
		}
	}
	return notJSON(err)
}

// formats are formats of other tools that people may take for an envelope, with the
// keys that all of their files have.
var formats = []struct {
	keys []string
	what string
}{
	{[]string{"mediaType", "dsseEnvelope"}, "a Sigstore bundle; use the envelope under its key dsseEnvelope"},
	{[]string{"mediaType", "messageSignature"}, "a Sigstore bundle with the signature of a file"},
	{[]string{"mediaType", "verificationMaterial"}, "a Sigstore bundle"},
	{[]string{"base64Signature"}, "a bundle of cosign with the signature of a file"},
	{[]string{"attestations"}, "a list of attestations; use the envelope in one of them"},
	{[]string{"signed", "signatures"}, "signed metadata of TUF or of in-toto before DSSE"},
	{[]string{"protected", "signature"}, "a JSON Web Signature"},
	{[]string{"_type", "predicateType"}, "an unsigned statement"},
	{[]string{"module", "outputs", "settings"}, "an unsigned receipt"},
}

// otherTool describes the format of a JSON object of another tool, or returns "".
func otherTool(text []byte) string {
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		return ""
	}
	for _, format := range formats {
		all := true
		for _, key := range format.keys {
			all = all && object[key] != nil
		}
		if all {
			return format.what
		}
	}
	return ""
}

// decodeBase64 decodes the encodings that DSSE allows: base64 and base64url, with
// padding.
func decodeBase64(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return base64.URLEncoding.DecodeString(text)
	}
	return b, nil
}
