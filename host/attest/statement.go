package attest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// PayloadType is the type of the payload in envelopes of [Sign], an in-toto
// Statement whose predicate is SLSA provenance, both of version 1.
const PayloadType = "application/vnd.in-toto+json"

const (
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "https://github.com/wasm-jobs/wasm-jobs/receipt/v1"
)

// Algorithms of a DigestSet. The second is the Merkle tree hash of RFC 6962,
// section 2.1, over entries of outputs or chunks. The third is the digest of a
// directory that docs/receipt.md defines. Neither is the SHA-256 of a file.
const (
	PlainDigest = "sha256"
	TreeDigest  = "rfc6962Sha256"
	DirDigest   = "wasmJobsDir"
)

// DigestSet holds digests in hex, by algorithm.
type DigestSet map[string]string

// Resource is a ResourceDescriptor of in-toto, reduced to a few fields.
type Resource struct {
	Name   string    `json:"name"`
	Digest DigestSet `json:"digest"`
}

// Statement is an in-toto Statement about one receipt.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Provenance `json:"predicate"`
}

// Provenance is the provenance predicate of SLSA.
type Provenance struct {
	Definition struct {
		BuildType  string     `json:"buildType"`
		External   External   `json:"externalParameters"`
		Internal   Internal   `json:"internalParameters"`
		Dependency []Resource `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Run Run `json:"runDetails"`
}

// External describes the job.
type External struct {
	Module   receipt.Digest   `json:"module"`
	Input    receipt.Digest   `json:"input"`
	Chunks   uint64           `json:"chunks"`
	Settings receipt.Settings `json:"settings"`
}

// Internal describes the engine.
type Internal struct {
	Engine receipt.Engine `json:"engine"`
}

// Run holds the signer's claims about the run; a receipt has nothing about it.
type Run struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	Metadata *RunMetadata `json:"metadata,omitempty"` // nil without times
}

// NewRun returns a run by a builder, whose name is a URI, without times.
func NewRun(builder string) (r Run) {
	r.Builder.ID = builder
	return r
}

// RunMetadata holds the times of a run.
type RunMetadata struct {
	StartedOn  *time.Time `json:"startedOn,omitempty"`
	FinishedOn *time.Time `json:"finishedOn,omitempty"`
}

// NewStatement returns a statement of the contents of a receipt and the signer's
// details of the run.
func NewStatement(r *receipt.Receipt, details Run) (*Statement, error) {
	file, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	s := &Statement{Type: statementType, PredicateType: predicateType}
	s.Subject = []Resource{
		{"receipt", DigestSet{PlainDigest: hexOf(sha256.Sum256(file))}},
		{"outputs", DigestSet{TreeDigest: hexOf(r.Outputs)}},
	}
	if r.Aggregate != nil {
		s.Subject = append(s.Subject, Resource{"aggregate", DigestSet{PlainDigest: hexOf(*r.Aggregate)}})
	}
	d := &s.Predicate.Definition
	d.BuildType = buildType
	d.External = External{r.Module, r.Input, r.Chunks, r.Settings}
	d.Internal = Internal{r.Engine}
	d.Dependency = []Resource{
		{"module", DigestSet{PlainDigest: hexOf(r.Module)}},
		{"input", DigestSet{TreeDigest: hexOf(r.Input)}},
	}
	if c := r.Settings.Context; c != nil {
		d.Dependency = append(d.Dependency, Resource{"context", DigestSet{PlainDigest: hexOf(*c)}})
	}
	for _, dir := range r.Settings.Dirs {
		d.Dependency = append(d.Dependency, Resource{"directory " + dir.Guest, DigestSet{DirDigest: hexOf(dir.Digest)}})
	}
	s.Predicate.Run = details
	return s, nil
}

func hexOf[D ~[sha256.Size]byte](digest D) string { return hex.EncodeToString(digest[:]) }

// ParseStatement reads a payload without checking its signature. The error is an
// [Error].
func ParseStatement(payload []byte) (*Statement, error) {
	s := &Statement{}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, errorf("the payload is not a statement about a receipt: %s", notJSON(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, Error("the payload has more than one statement")
	}
	if err := notation.CheckNames(payload, s); err != nil {
		return nil, errorf("the payload is not a statement about a receipt: %s", err)
	}
	for _, test := range []struct{ what, got, want string }{
		{"type", s.Type, statementType}, {"predicate type", s.PredicateType, predicateType}, {"build type", s.Predicate.Definition.BuildType, buildType},
	} {
		if test.got != test.want {
			return nil, errorf("the payload is not a statement about a receipt: unsupported %s %.100q, want %s", test.what, test.got, test.want)
		}
	}
	if s.receipt() == "" {
		return nil, Error("the payload is not a statement about a receipt: its first subject is not a receipt")
	}
	return s, nil
}

// notJSON explains in one line why a text is not the expected JSON.
func notJSON(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	}
	return err.Error()
}

// receipt returns the SHA-256 of the receipt's file in hex, or "".
func (s *Statement) receipt() string {
	if len(s.Subject) == 0 || s.Subject[0].Name != "receipt" {
		return ""
	}
	return s.Subject[0].Digest[PlainDigest]
}

// About reports whether s is the statement that [NewStatement] makes from a
// receipt.
func (s *Statement) About(r *receipt.Receipt) (bool, error) {
	own, err := NewStatement(r, s.Predicate.Run)
	return reflect.DeepEqual(own, s), err
}
