package spec

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Problem describes an invalid field.
type Problem struct {
	Field  string // name in [Spec], such as Limits.Memory
	Reason string // one line that continues the sentence after the field
}

func (p *Problem) Error() string { return p.Field + " " + p.Reason }

// InvalidError has all problems of a job or of its settings.
type InvalidError struct {
	Problems []Problem // in the order of the fields; at least one
}

func (e *InvalidError) Error() string {
	lines := make([]string, len(e.Problems))
	for i := range e.Problems {
		lines[i] = e.Problems[i].Error()
	}
	return strings.Join(lines, "; ")
}

// problems collects problems.
type problems struct{ found []Problem }

func (p *problems) add(field, format string, args ...any) {
	p.found = append(p.found, Problem{field, fmt.Sprintf(format, args...)})
}

// check adds a problem unless ok.
func (p *problems) check(ok bool, field, format string, args ...any) {
	if !ok {
		p.add(field, format, args...)
	}
}

func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	return &InvalidError{p.found}
}

// Validate returns nil or an *[InvalidError] with all problems. A valid job may
// still be refused: only a run checks that its module, chunks and files are
// there and fit.
func (j *Spec) Validate() error {
	var p problems
	p.check(isDigest(j.Module.Digest), "Module.Digest", "%.80q: want sha256: and 64 lower hex digits", j.Module.Digest)
	p.check(j.Module.Size >= 0, "Module.Size", "%d is negative", j.Module.Size)
	p.check(isDigest(j.Chunks.Digest), "Chunks.Digest", "%.80q: want sha256: and 64 lower hex digits", j.Chunks.Digest)
	p.check(j.Total >= 0, "Total", "%d is negative", j.Total)
	p.check(j.Context == "" || isDigest(j.Context), "Context", "%.80q: want sha256: and 64 lower hex digits", j.Context)
	p.check(j.ContextSize >= 0, "ContextSize", "%d is negative", j.ContextSize)
	j.Settings.validate(&p)
	if j.Sources != nil {
		j.Sources.validate(&p)
	}
	j.validateParts(&p)
	return p.err()
}

// Validate returns nil or an *[InvalidError], like [Spec.Validate].
func (s *Settings) Validate() error {
	var p problems
	s.validate(&p)
	return p.err()
}

func (s *Settings) validate(p *problems) {
	s.Limits.validate(p)
	p.check(s.Metering >= 0, "Metering", "%d is negative", s.Metering)
	p.check(s.Metering == 0 || !s.NoMetering, "Metering", "is version %d, but NoMetering is set", s.Metering)
	p.check(s.EngineFixes >= 0, "EngineFixes", "%d is negative", s.EngineFixes)
	p.check(slices.Contains([]string{"", "reset", "instance"}, s.Isolation), "Isolation", "%.40q: want reset or instance", s.Isolation)
	s.Retry.validate(p)
	p.check(s.MaxFailures == nil || *s.MaxFailures >= 0, "MaxFailures", "is negative")
	if s.Command != nil {
		s.Command.validate(p)
	}
}

func (l *Limits) validate(p *problems) {
	p.check(l.Memory > 0, "Limits.Memory", "is 0: want a limit in bytes")
	p.check(l.Timeout >= 0, "Limits.Timeout", "%s is negative", l.Timeout)
	p.check(l.FoldTimeout >= 0, "Limits.FoldTimeout", "%s is negative", l.FoldTimeout)
}

func (r *Retry) validate(p *problems) {
	p.check(r.Retries >= 0, "Retry.Retries", "%d is negative", r.Retries)
	for _, class := range r.Classes {
		p.check(slices.Contains(abi.Classes(), class), "Retry.Classes", "has the unknown class %.40q", class)
	}
	p.check(r.MaxRequeues >= 0, "Retry.MaxRequeues", "%d is negative", r.MaxRequeues)
	p.check(r.Backoff >= 0, "Retry.Backoff", "%s is negative", r.Backoff)
	p.check(r.BackoffMax >= 0, "Retry.BackoffMax", "%s is negative", r.BackoffMax)
}

func (c *Command) validate(p *problems) {
	p.check(slices.Contains([]string{"", StdinRaw, StdinCBOR}, c.Stdin), "Command.Stdin", "%.40q: want raw or cbor", c.Stdin)
	keys := map[string]bool{}
	for _, pair := range c.Env {
		key, _, ok := strings.Cut(pair, "=")
		p.check(ok && key != "", "Command.Env", "%.100q: want KEY=VALUE", pair)
		p.check(!keys[key], "Command.Env", "has the duplicate variable %.100q", key)
		keys[key] = true
	}
	names := map[string]bool{}
	for _, d := range c.Dirs {
		p.check(d.Guest != "", "Command.Dirs", "has a directory without a guest name")
		p.check(!names[d.Guest], "Command.Dirs", "has the duplicate directory %.100q", d.Guest)
		p.check(isDigest(d.Digest), "Command.Dirs", "%.100q has the digest %.80q: want sha256: and 64 lower hex digits", d.Guest, d.Digest)
		p.check(d.Files >= 0 && d.Bytes >= 0, "Command.Dirs", "%.100q has a negative size", d.Guest)
		names[d.Guest] = true
	}
}

const digestPrefix = "sha256:"

var errDigest = errors.New("not a digest")

// parseDigest is the inverse of [Digest].
func parseDigest(s string) (d [32]byte, err error) {
	digits, ok := strings.CutPrefix(s, digestPrefix)
	b, err := hex.DecodeString(digits)
	if !ok || err != nil || len(b) != len(d) || digits != strings.ToLower(digits) {
		return d, errDigest
	}
	return [32]byte(b), nil
}

func isDigest(s string) bool {
	_, err := parseDigest(s)
	return err == nil
}

// Digest returns a SHA-256 as text.
func Digest(sum [32]byte) string { return digestPrefix + hex.EncodeToString(sum[:]) }
