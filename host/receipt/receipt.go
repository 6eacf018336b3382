// Package receipt is the format of receipts: what a finished job was and what
// it gave, without times, hosts and paths, so that anybody who has the module
// and the chunks can compute it again and find the same bytes.
//
// docs/receipt.md is the same in words, for programs in other languages.
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
)

// Version is the version of the format.
const Version = 1

// MaxSize is the limit of a receipt, in bytes. One of a job without arguments and
// environment has less than a thousand.
const MaxSize = 16 << 20

// Receipt describes a finished job. Its fields are in the order of their names
// in JSON, which is that of the format.
type Receipt struct {
	Aggregate *Digest  `json:"aggregate,omitempty"` // of the bytes; nil where the module has none
	Chunks    uint64   `json:"chunks"`              // number of them, and of outputs
	Engine    Engine   `json:"engine"`
	Fuel      uint64   `json:"fuel"`  // of the calls that gave the outputs and the aggregate
	Input     Digest   `json:"input"` // Merkle tree hash over [id, chunk] in id order
	Module    Digest   `json:"module"`
	Outputs   Digest   `json:"outputs"` // Merkle tree hash over [id, output] in id order
	Settings  Settings `json:"settings"`
	Version   int      `json:"version"`
}

// Engine says what ran the job. No part of it is to change an output.
type Engine struct {
	ABI      int    `json:"abi"`
	Metering int    `json:"metering"` // what fuel counts
	Wazero   string `json:"wazero"`   // as Go names versions, or unknown
}

// Settings are those that can change a result. Limits that only decide whether
// there is one are none of them.
type Settings struct {
	Args     []string `json:"args,omitempty"`    // of a WASI command, behind the first
	Context  *Digest  `json:"context,omitempty"` // of the item that setup gets; nil where that is null
	Dirs     []Dir    `json:"dirs,omitempty"`    // that it may read
	Env      []string `json:"env,omitempty"`     // KEY=VALUE, in order
	Memory   uint64   `json:"memory"`            // limit, in bytes
	Metering bool     `json:"metering"`
	NaNs     NaNs     `json:"nans"`
	Seed     uint64   `json:"seed"`
	Stdin    string   `json:"stdin,omitempty"` // [StdinCBOR], or empty for the content of strings
}

// StdinCBOR says that a WASI command reads the bytes of chunks of any kind.
const StdinCBOR = "cbor"

// Dir is a directory that guests read, under their name for it.
type Dir struct {
	Digest Digest `json:"digest"` // of its tree: see docs/receipt.md
	Guest  string `json:"guest"`
}

// NaNs says which bits NaNs have.
type NaNs string

// The kinds of [NaNs].
const (
	CanonicalNaNs NaNs = "canonical" // the same on every machine
	NativeNaNs    NaNs = "native"    // those of the machine
)

// Digest is a SHA-256. As a text it is "sha256:" and 64 lower hex digits.
type Digest [sha256.Size]byte

const digestPrefix = "sha256:"

// String returns the digest as a text.
func (d Digest) String() string { return digestPrefix + hex.EncodeToString(d[:]) }

// MarshalText is [Digest.String].
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (d *Digest) UnmarshalText(text []byte) error {
	digits, ok := strings.CutPrefix(string(text), digestPrefix)
	if b, err := hex.DecodeString(digits); ok && err == nil && len(b) == len(d) && digits == strings.ToLower(digits) {
		*d = Digest(b)
		return nil
	}
	return fmt.Errorf("%.80q is no digest: sha256: and 64 lower hex digits are needed", text)
}

// Marshal returns the only bytes that stand for a receipt: JSON (RFC 8259) in
// UTF-8, two spaces for each level, one key or element on each line, keys in
// bytewise order, a newline at the end. In strings, the characters <, >, &, U+2028
// and U+2029 are escaped as \u and four lower hex digits, beside those that must
// be.
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
		return fmt.Errorf("it has version %d, and %d is the one that is known", r.Version, Version)
	case r.Engine.ABI < 1 || r.Engine.Metering < 1:
		return errors.New("engine has a version below 1")
	case !isVersion(r.Engine.Wazero):
		return fmt.Errorf("engine.wazero is %.40q, which is no version", r.Engine.Wazero)
	case !r.Settings.Metering && r.Fuel != 0:
		return fmt.Errorf("fuel is %d without metering, expected 0", r.Fuel)
	}
	return r.Settings.Check()
}

// Check returns nil where a receipt can have the settings.
func (s *Settings) Check() error {
	switch {
	case s.NaNs != CanonicalNaNs && s.NaNs != NativeNaNs:
		return fmt.Errorf("settings.nans is %.40q, expected canonical or native", s.NaNs)
	case s.Stdin != "" && s.Stdin != StdinCBOR:
		return fmt.Errorf("settings.stdin is %.40q, expected cbor or none", s.Stdin)
	case !s.validText():
		return errors.New("an argument, a variable or the name of a directory is not UTF-8")
	case s.Memory == 0:
		return errors.New("settings.memory is 0, expected a limit in bytes")
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

// isVersion reports whether s is made of what versions of Go modules are.
func isVersion(s string) bool {
	return s != "" && len(s) <= 128 && !strings.ContainsFunc(s, func(c rune) bool {
		return !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(".-+", c))
	})
}

// ErrForm says that something is no receipt, or not in the one form of receipts.
var ErrForm = errors.New("this is no receipt")

// Parse reads the bytes of a receipt. Others than those that [Receipt.Marshal]
// gives, also of the same JSON, are refused with [ErrForm].
func Parse(b []byte) (*Receipt, error) {
	r := new(Receipt)
	if err := decode(b, r, MaxSize, ErrForm); err != nil {
		return nil, err
	}
	return r, nil
}

// Difference is a field that two receipts do not have in common.
type Difference struct {
	Field string `json:"field"` // such as settings.seed
	A     string `json:"a"`     // empty where it is not there
	B     string `json:"b"`
}

// Result reports whether the field is one of what the job gave, and not of what
// it was or what ran it.
func (d *Difference) Result() bool {
	return d.Field == "outputs" || d.Field == "aggregate" || d.Field == "fuel"
}

// Engine reports whether the field is one of what ran the job.
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

// Compare returns the fields in which a and b differ: first those of what the
// job was, then of what ran it, then of what it gave.
func Compare(a, b *Receipt) (found []Difference) {
	x, y := a.Fields(), b.Fields()
	for i := range x {
		if x[i].Value != y[i].Value {
			found = append(found, Difference{x[i].Name, x[i].Value, y[i].Value})
		}
	}
	return found
}

// list returns a list as JSON; nothing where it is empty.
func list[T any](elements []T) string {
	if len(elements) == 0 {
		return ""
	}
	b, _ := json.Marshal(elements) // texts can be
	return string(b)
}

// Field is a field of a receipt as a text; empty where it is not there.
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
		{"settings.metering", strconv.FormatBool(s.Metering)}, {"settings.nans", string(s.NaNs)}, {"settings.seed", number(s.Seed)}, {"settings.stdin", s.Stdin},
		{"engine.abi", strconv.Itoa(e.ABI)}, {"engine.metering", strconv.Itoa(e.Metering)}, {"engine.wazero", e.Wazero},
		{"outputs", r.Outputs.String()}, {"aggregate", optional(r.Aggregate)}, {"fuel", number(r.Fuel)},
	}
}
