package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Names of what is signed: an in-toto Statement whose predicate is SLSA
// provenance, version 1 of both.
const (
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "https://github.com/wasm-jobs/wasm-jobs/receipt/v1"
)

// Algorithms of a digestSet. The second is the Merkle tree hash of RFC 6962,
// section 2.1, over entries of outputs or chunks, and the third that of a
// directory, as docs/receipt.md has it: they are the SHA-256 of no file.
const (
	plainDigest = "sha256"
	treeDigest  = "rfc6962Sha256"
	dirDigest   = "wasmJobsDir"
)

// digestSet has digests in hex, by algorithm.
type digestSet map[string]string

// resource is a ResourceDescriptor of in-toto, of which little is used.
type resource struct {
	Name   string    `json:"name"`
	Digest digestSet `json:"digest"`
}

// statement is an in-toto Statement about one receipt.
type statement struct {
	Type          string     `json:"_type"`
	Subject       []resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     provenance `json:"predicate"`
}

// provenance is that of SLSA.
type provenance struct {
	Definition struct {
		BuildType  string             `json:"buildType"`
		External   externalParameters `json:"externalParameters"`
		Internal   internalParameters `json:"internalParameters"`
		Dependency []resource         `json:"resolvedDependencies"`
	} `json:"buildDefinition"`
	Run runDetails `json:"runDetails"`
}

// externalParameters are what the job was.
type externalParameters struct {
	Module   receipt.Digest   `json:"module"`
	Input    receipt.Digest   `json:"input"`
	Chunks   uint64           `json:"chunks"`
	Settings receipt.Settings `json:"settings"`
}

type internalParameters struct {
	Engine receipt.Engine `json:"engine"`
}

// runDetails are what who signs says of the run; a receipt says nothing of it.
type runDetails struct {
	Builder struct {
		ID string `json:"id"`
	} `json:"builder"`
	Metadata *runMetadata `json:"metadata,omitempty"` // nil without times
}

type runMetadata struct {
	StartedOn  *time.Time `json:"startedOn,omitempty"`
	FinishedOn *time.Time `json:"finishedOn,omitempty"`
}

// newStatement says what a receipt says.
func newStatement(r *receipt.Receipt, details runDetails) (*statement, error) {
	file, err := r.Marshal()
	if err != nil {
		return nil, err
	}
	s := &statement{Type: statementType, PredicateType: predicateType}
	s.Subject = []resource{
		{"receipt", digestSet{plainDigest: hexOf(sha256.Sum256(file))}},
		{"outputs", digestSet{treeDigest: hexOf(r.Outputs)}},
	}
	if r.Aggregate != nil {
		s.Subject = append(s.Subject, resource{"aggregate", digestSet{plainDigest: hexOf(*r.Aggregate)}})
	}
	d := &s.Predicate.Definition
	d.BuildType = buildType
	d.External = externalParameters{r.Module, r.Input, r.Chunks, r.Settings}
	d.Internal = internalParameters{r.Engine}
	d.Dependency = []resource{
		{"module", digestSet{plainDigest: hexOf(r.Module)}},
		{"input", digestSet{treeDigest: hexOf(r.Input)}},
	}
	if c := r.Settings.Context; c != nil {
		d.Dependency = append(d.Dependency, resource{"context", digestSet{plainDigest: hexOf(*c)}})
	}
	for _, dir := range r.Settings.Dirs {
		d.Dependency = append(d.Dependency, resource{"directory " + dir.Guest, digestSet{dirDigest: hexOf(dir.Digest)}})
	}
	s.Predicate.Run = details
	return s, nil
}

func hexOf[D ~[sha256.Size]byte](digest D) string { return hex.EncodeToString(digest[:]) }

// parseStatement reads a payload of which the signature is good, or not: the
// error says what is wrong with it.
func parseStatement(payload []byte) (*statement, error) {
	s := &statement{}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		return nil, fmt.Errorf("the payload is no statement about a receipt: %s", notJSON(err))
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("the payload has more than one statement")
	}
	for _, test := range []struct{ what, got, want string }{
		{"type", s.Type, statementType}, {"predicate type", s.PredicateType, predicateType}, {"build type", s.Predicate.Definition.BuildType, buildType},
	} {
		if test.got != test.want {
			return nil, fmt.Errorf("the payload is no statement about a receipt: its %s is %.100q, expected %s", test.what, test.got, test.want)
		}
	}
	if s.receipt() == "" {
		return nil, errors.New("the payload is no statement about a receipt: its first subject is not one")
	}
	return s, nil
}

// receipt returns the SHA-256 of the receipt's file in hex, or "".
func (s *statement) receipt() string {
	if len(s.Subject) == 0 || s.Subject[0].Name != "receipt" {
		return ""
	}
	return s.Subject[0].Digest[plainDigest]
}

// about reports whether s is what newStatement makes of a receipt.
func (s *statement) about(r *receipt.Receipt) (bool, error) {
	own, err := newStatement(r, s.Predicate.Run)
	return reflect.DeepEqual(own, s), err
}
