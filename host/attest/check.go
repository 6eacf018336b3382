package attest

import (
	"crypto/ed25519"
	"fmt"
	"strings"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Check holds the claims that an envelope must prove.
type Check struct {
	Key     *PublicKey
	Receipt *receipt.Receipt // the receipt that the statement must be about; nil means any
	Builder string           // the builder's URI; "" means any
}

// Reason is the reason why an envelope fails a check.
type Reason int

// Reasons, in the order of the checks.
const (
	// OtherType: by its type, the payload is not a statement. Have is the type.
	OtherType Reason = iota + 1
	// PayloadNotBase64: the payload is not base64.
	PayloadNotBase64
	// OtherKeys: no signature is valid for the key, and all have ids of other keys.
	// Others has these ids.
	OtherKeys
	// Unreadable: no signature that may be the key's is 64 bytes in base64.
	Unreadable
	// NotGood: no signature is valid for the key. About tells more if a receipt is
	// given.
	NotGood
	// NoStatement: the payload is not a statement about a receipt. Err is the
	// reason, and Signed reports whether the key signed it.
	NoStatement
	// OtherBuilder: Have is the builder.
	OtherBuilder
	// OtherReceipt: the statement is about another receipt. Have is the SHA-256 of
	// that receipt's file, in hex.
	OtherReceipt
)

// Mismatch describes why an envelope fails a check. The comments of the reasons
// name the fields that are set.
type Mismatch struct {
	Reason Reason
	Have   string
	Others []string // the first few key ids
	About  bool     // except for the builder and the times, the payload describes the receipt
	Signed bool
	Err    error
}

func (m *Mismatch) Error() string {
	switch m.Reason {
	case OtherType:
		return fmt.Sprintf("unsupported payload type %.100q: want %s", m.Have, PayloadType)
	case PayloadNotBase64:
		return "the payload was changed: it is not base64"
	case OtherKeys:
		return fmt.Sprintf("signed with other keys (%s)", strings.Join(m.Others, ", "))
	case Unreadable:
		return fmt.Sprintf("invalid signature: want %d bytes in base64", ed25519.SignatureSize)
	case NotGood:
		return "the signature is not valid for the key: the payload or the signature was changed"
	case NoStatement:
		return m.Err.Error()
	case OtherBuilder:
		return fmt.Sprintf("the builder is %.200q", m.Have)
	}
	return fmt.Sprintf("the envelope is about another receipt, of SHA-256 %s", m.Have)
}

func (m *Mismatch) Unwrap() error { return m.Err }

// Verify returns the statement of an envelope that has a signature of the key. Key
// ids are not authenticated: the key is tried with every signature, and unreadable
// signatures are skipped. The error is a *[Mismatch].
func (c Check) Verify(e *Envelope) (*Statement, error) {
	if e.PayloadType != PayloadType {
		return nil, &Mismatch{Reason: OtherType, Have: e.PayloadType}
	}
	payload, err := decodeBase64(e.Payload)
	if err != nil {
		return nil, &Mismatch{Reason: PayloadNotBase64, Err: err}
	}
	if !c.signed(e, payload) {
		return nil, c.why(e, payload)
	}
	s, err := ParseStatement(payload)
	if err != nil {
		return nil, &Mismatch{Reason: NoStatement, Signed: true, Err: err}
	}
	if have := s.Predicate.Run.Builder.ID; c.Builder != "" && have != c.Builder {
		return nil, &Mismatch{Reason: OtherBuilder, Have: have}
	}
	if c.Receipt == nil {
		return s, nil
	}
	if same, err := s.About(c.Receipt); err != nil || !same {
		return nil, &Mismatch{Reason: OtherReceipt, Have: s.receipt(), Err: err}
	}
	return s, nil
}

// signed reports whether a signature is valid for the key.
func (c Check) signed(e *Envelope, payload []byte) bool {
	encoded := dsse.PAE(e.PayloadType, payload)
	for _, s := range e.Signatures {
		if signature, ok := readable(s); ok && ed25519.Verify(c.Key.key, encoded, signature) {
			return true
		}
	}
	return false
}

func readable(s dsse.Signature) ([]byte, bool) {
	b, err := decodeBase64(s.Sig)
	return b, err == nil && len(b) == ed25519.SignatureSize
}

// why returns the reason why no signature is valid. A signature shows only that
// something was changed; a comparison with the receipt tells more.
func (c Check) why(e *Envelope, payload []byte) error {
	own, read := 0, 0
	var others []string
	for _, s := range e.Signatures {
		if s.KeyID != c.Key.ID() && s.KeyID != "" {
			others = append(others, fmt.Sprintf("%.64s", s.KeyID))
			continue
		}
		own++
		if _, ok := readable(s); ok {
			read++
		}
	}
	switch {
	case own == 0:
		return &Mismatch{Reason: OtherKeys, Others: others[:min(len(others), 3)]}
	case read == 0:
		return &Mismatch{Reason: Unreadable}
	}
	s, err := ParseStatement(payload)
	if err != nil {
		return &Mismatch{Reason: NoStatement, Err: err}
	}
	m := &Mismatch{Reason: NotGood}
	if c.Receipt != nil {
		same, err := s.About(c.Receipt)
		m.About = err == nil && same
	}
	return m
}
