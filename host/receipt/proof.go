package receipt

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// MaxProofSize is the limit of a proof, in bytes. It contains an output in hex.
const MaxProofSize = 256 << 20

// Proof shows that one output belongs to the job of a receipt. Its fields are in
// the order of their JSON names.
type Proof struct {
	ID      abi.ID     `json:"id"`
	Index   uint64     `json:"index"`  // of the chunk in id order, from 0
	Output  Hex        `json:"output"` // one CBOR item
	Path    []HashText `json:"path"`   // RFC 6962, section 2.1.1, from the leaf up
	Size    uint64     `json:"size"`   // number of chunks of the job
	Version int        `json:"version"`
}

// Hex is bytes; in JSON they are lower-case hex digits.
type Hex []byte

// MarshalText returns the digits.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText is the inverse of MarshalText.
func (h *Hex) UnmarshalText(text []byte) (err error) {
	*h, err = hex.AppendDecode(nil, text)
	return err
}

// HashText is the hash of a node of the tree; in JSON it is 64 lower-case hex
// digits.
type HashText [sha256.Size]byte

// MarshalText returns the digits.
func (h HashText) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h[:]), nil }

// UnmarshalText is the inverse of MarshalText.
func (h *HashText) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	if err != nil || len(b) != len(h) {
		return fmt.Errorf("invalid hash %.80q: want 64 lower-case hex digits", text)
	}
	*h = HashText(b)
	return nil
}

// NewProof returns the proof of an output with an audit path.
func NewProof(id abi.ID, output []byte, p merkle.Proof) *Proof {
	path := make([]HashText, len(p.Path))
	for i, sum := range p.Path {
		path[i] = sum
	}
	return &Proof{ID: id, Index: p.Index, Output: output, Path: path, Size: p.Size, Version: Version}
}

// Marshal returns the only valid encoding of a proof, in the form of
// [Receipt.Marshal]. An id may be any UTF-8: the characters <, >, &, U+2028 and
// U+2029 in it are escaped as \u and four lower-case hex digits, in addition to
// those that JSON requires.
func (p *Proof) Marshal() ([]byte, error) {
	b, err := encode(p, MaxProofSize)
	if err != nil {
		return nil, fmt.Errorf("proof: %w", err)
	}
	return b, nil
}

func (p *Proof) check() error {
	if p.Version != Version {
		return fmt.Errorf("unsupported version %d: want %d", p.Version, Version)
	}
	if p.Path == nil {
		return errors.New("missing path")
	}
	if len(p.Path) > merkle.MaxPath {
		return fmt.Errorf("path too large: %d hashes, want at most %d", len(p.Path), merkle.MaxPath)
	}
	if err := abi.CheckItem(p.Output); err != nil {
		return fmt.Errorf("the output is not a CBOR item: %w", err)
	}
	return nil
}

// ErrProofForm reports bytes that are not a proof, or not in the canonical form of
// proofs.
var ErrProofForm = errors.New("invalid proof")

// ParseProof reads the bytes of a proof. Bytes other than those that
// [Proof.Marshal] returns are refused with [ErrProofForm].
func ParseProof(b []byte) (*Proof, error) {
	p := new(Proof)
	if err := decode(b, p, MaxProofSize, ErrProofForm); err != nil {
		return nil, err
	}
	return p, nil
}

// ErrNotProved reports a proof that does not show its output to belong to a
// receipt's job.
var ErrNotProved = errors.New("the proof does not hold")

// Verify returns nil if the receipt's job gave the proof's output for the chunk
// with its id. Nothing else is needed for that, and nothing is executed. The error
// is [ErrNotProved].
func (p *Proof) Verify(r *Receipt) error {
	if p.Size != r.Chunks {
		return fmt.Errorf("%w: its job has %d chunks, the receipt's job has %d", ErrNotProved, p.Size, r.Chunks)
	}
	path := make([][sha256.Size]byte, len(p.Path))
	for i, sum := range p.Path {
		path[i] = sum
	}
	m := merkle.Proof{Index: p.Index, Size: p.Size, Path: path}
	root, err := m.Root(merkle.HashEntry(p.ID, p.Output))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNotProved, err)
	}
	if root != r.Outputs {
		return fmt.Errorf("%w: its id, output and path give the outputs digest %v, want %v as in the receipt", ErrNotProved, Digest(root), r.Outputs)
	}
	return nil
}
