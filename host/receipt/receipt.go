// Package receipt defines receipts. A receipt describes a finished job and its
// results, without times, hosts and paths, so that anybody with the module and the
// chunks can compute it again and get the same bytes.
//
// docs/receipt.md describes the format for programs in other languages.
package receipt

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// Version is the version of the format.
const Version = 1

// MaxSize is the limit of a receipt, in bytes. The receipt of a job without
// arguments and environment has less than a thousand.
const MaxSize = 16 << 20

// Receipt describes a finished job. Its fields are in the order of their JSON
// names, which is the order of the format.
type Receipt struct {
	Aggregate *Digest  `json:"aggregate,omitempty"` // of the bytes; nil if the module has no aggregate
	Chunks    uint64   `json:"chunks"`              // number of chunks, and of outputs
	Engine    Engine   `json:"engine"`
	Fuel      uint64   `json:"fuel"`  // of the calls that gave the outputs and the aggregate
	Input     Digest   `json:"input"` // Merkle tree hash over [id, chunk] in id order
	Module    Digest   `json:"module"`
	Outputs   Digest   `json:"outputs"` // Merkle tree hash over [id, output] in id order
	Settings  Settings `json:"settings"`
	Version   int      `json:"version"`
}

// Engine describes the engine that ran the job. No part of it should change an
// output.
type Engine struct {
	ABI      int    `json:"abi"`
	Fixes    int    `json:"fixes,omitempty"` // version of the compiler fixes that concern the module; 0 = none does
	Metering int    `json:"metering"`        // version of the costs that fuel counts
	Wazero   string `json:"wazero"`          // a version as Go writes it, or "unknown"
}

// Settings are the settings that can change a result. Limits that can only make a
// job fail are not included.
type Settings struct {
	Args     []string `json:"args,omitempty"`    // of a WASI command, after the first
	Context  *Digest  `json:"context,omitempty"` // of the item that setup gets; nil if it is null
	Dirs     []Dir    `json:"dirs,omitempty"`    // directories that the command may read
	Env      []string `json:"env,omitempty"`     // KEY=VALUE, in order
	Memory   uint64   `json:"memory"`            // limit, in bytes
	Metering bool     `json:"metering"`
	NaNs     NaNs     `json:"nans"`
	Seed     uint64   `json:"seed"`
	Stack    uint64   `json:"stack,omitempty"` // limit of nested calls, in bytes; 0 = [spec.DefaultStack]
	Stdin    string   `json:"stdin,omitempty"` // [StdinCBOR], or empty for the contents of strings
}

// StdinCBOR means that a WASI command reads the bytes of chunks of any kind.
const StdinCBOR = "cbor"

// Dir is a directory that guests read, and their name for it.
type Dir struct {
	Digest Digest `json:"digest"` // of its tree: see docs/receipt.md
	Guest  string `json:"guest"`
}

// NaNs selects the bits of NaNs.
type NaNs string

// The kinds of [NaNs].
const (
	CanonicalNaNs NaNs = "canonical" // the same on every machine
	NativeNaNs    NaNs = "native"    // as the machine makes them
)

// Digest is a SHA-256. As a text it is "sha256:" and 64 lower-case hex digits.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// String returns the digest as a text.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// MarshalText returns the digest as [Digest.String] does.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), digestPrefix)
	if b, err := hex.DecodeString(digits); ok && err == nil && len(b) == len(d) && digits == strings.ToLower(digits) {
		*d = Digest(b)
		return nil
	}
	return fmt.Errorf("invalid digest %.80q: want sha256: and 64 lower-case hex digits", text)
}

// Marshal returns the only valid encoding of a receipt: JSON (RFC 8259) in UTF-8,
// two spaces for each level, one key or element on each line, keys in bytewise
// order, a newline at the end. In strings, the characters <, >, &, U+2028 and
// U+2029 are escaped as \u and four lower-case hex digits, in addition to those
// that JSON requires.
func (r *Receipt) Marshal() ([]byte, error) {
	b, err := encode(r, MaxSize)
	if err != nil {
		return nil, fmt.Errorf("receipt: %w", err)
	}
	return b, nil
}

func (r *Receipt) check() error {
	switch {
	case r.Version != Version:
		return fmt.Errorf("unsupported version %d: want %d", r.Version, Version)
	case r.Engine.ABI < 1 || r.Engine.Metering < 1:
		return errors.New("invalid engine: want versions of at least 1")
	case r.Engine.Fixes < 0:
		return fmt.Errorf("invalid engine.fixes %d: want a version, or no field", r.Engine.Fixes)
	case !isVersion(r.Engine.Wazero):
		return fmt.Errorf("invalid engine.wazero %.40q: want a version", r.Engine.Wazero)
	case !r.Settings.Metering && r.Fuel != 0:
		return fmt.Errorf("invalid fuel %d without metering: want 0", r.Fuel)
	}
	return r.Settings.Check()
}

// Check returns nil if a receipt can have the settings.
func (s *Settings) Check() error {
	switch {
	case s.NaNs != CanonicalNaNs && s.NaNs != NativeNaNs:
		return fmt.Errorf("invalid settings.nans %.40q: want canonical or native", s.NaNs)
	case s.Stdin != "" && s.Stdin != StdinCBOR:
		return fmt.Errorf("invalid settings.stdin %.40q: want cbor or none", s.Stdin)
	case !s.validText():
		return errors.New("an argument, a variable or the name of a directory is not UTF-8")
	case s.Memory == 0:
		return errors.New("invalid settings.memory 0: want a limit in bytes")
	case s.Stack == spec.DefaultStack:
		return fmt.Errorf("invalid settings.stack %d: the default is left out", s.Stack)
	case s.Stack != 0 && !s.Metering:
		return fmt.Errorf("invalid settings.stack %d without metering: want no field", s.Stack)
	}
	return nil
}

func (s *Settings) validText() bool {
	for _, d := range s.Dirs {
		if !utf8.ValidString(d.Guest) {
			return false
		}
	}
	return !slices.ContainsFunc(slices.Concat(s.Args, s.Env), func(s string) bool { return !utf8.ValidString(s) })
}

// isVersion reports whether s consists of characters of Go module versions.
func isVersion(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(".-+", c))
	})
}

// ErrForm reports bytes that are not a receipt, or not in the canonical form of
// receipts.
var ErrForm = errors.New("invalid receipt")

// Parse reads the bytes of a receipt. Bytes other than those that [Receipt.Marshal]
// returns, even if they are the same JSON, are refused with [ErrForm].
func Parse(b []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := decode(b, r, MaxSize, ErrForm); err != nil {
		return nil, err
	}
	return r, nil
}

// Difference is a field in which two receipts differ.
type Difference struct {
	Field string `json:"field"` // such as settings.seed
	A     string `json:"a"`     // empty if the field is missing
	B     string `json:"b"`
}

// Result reports whether the field is a result of the job, rather than a property
// of the job or of the engine.
func (d *Difference) Result() bool {
	return d.Field == "outputs" || d.Field == "aggregate" || d.Field == "fuel"
}

// Engine reports whether the field describes the engine.
func (d *Difference) Engine() bool { return strings.HasPrefix(d.Field, "engine.") }

func (d *Difference) String() string {
	or := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	return fmt.Sprintf("%s: %s and %s", d.Field, or(d.A), or(d.B))
}

// Compare returns the fields in which a and b differ: first the properties of the
// job, then the engine, then the results.
func Compare(a, b *Receipt) (found []Difference) {
	x, y := a.Fields(), b.Fields()
	for i := range x {
		if x[i].Value != y[i].Value {
			found = append(found, Difference{x[i].Name, x[i].Value, y[i].Value})
		}
	}
	return found
}

// list returns a list as JSON, or "" if it is empty.
func list[T any](elements []T) string {
	if len(elements) == 0 {
		return ""
	}
	b, _ := json.Marshal(elements) // texts can always be encoded
	return string(b)
}

// unlessZero returns a number as text, or nothing for 0.
func unlessZero(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

// Field is a field of a receipt as a text; Value is empty if the field is missing.
type Field struct{ Name, Value string }

// Fields returns all fields, in the order of [Compare].
func (r *Receipt) Fields() []Field {
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	optional := func(d *Digest) string {
		if d == nil {
			return ""
		}
		return d.String()
	}
	s, e := &r.Settings, &r.Engine
	return []Field{
		{"version", strconv.Itoa(r.Version)}, {"module", r.Module.String()},
		{"chunks", number(r.Chunks)}, {"input", r.Input.String()},
		{"settings.args", list(s.Args)}, {"settings.context", optional(s.Context)},
		{"settings.dirs", list(s.Dirs)}, {"settings.env", list(s.Env)}, {"settings.memory", number(s.Memory)},
		{"settings.metering", strconv.FormatBool(s.Metering)}, {"settings.nans", string(s.NaNs)}, {"settings.seed", number(s.Seed)},
		{"settings.stack", unlessZero(s.Stack)}, {"settings.stdin", s.Stdin},
		{"engine.abi", strconv.Itoa(e.ABI)}, {"engine.fixes", unlessZero(uint64(e.Fixes))}, {"engine.metering", strconv.Itoa(e.Metering)}, {"engine.wazero", e.Wazero},
		{"outputs", r.Outputs.String()}, {"aggregate", optional(r.Aggregate)}, {"fuel", number(r.Fuel)},
	}
}
