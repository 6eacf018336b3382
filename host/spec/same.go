package spec

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Difference is a field in which two jobs differ.
type Difference struct {
	Field string `json:"field"` // as [Problem] names it
	A     string `json:"a"`     // "" if it is not set
	B     string `json:"b"`
	// Other means that the jobs are different jobs: the field can change an
	// output, or which outputs there are.
	Other bool `json:"other"`
}

func (d *Difference) String() string {
	or := func(s string) string {
		if s == "" {
			return "none"
		}
		return s
	}
	return fmt.Sprintf("%s: %s and %s", d.Field, or(d.A), or(d.B))
}

// Same returns the fields in which j and other differ, those that make them
// different jobs first; nothing if both ask for the same. It compares contents.
// Paths, the way and order in which chunks are made, sizes, names and metadata
// are not compared. The order of arguments, variables and directories is,
// because guests see it.
func (j *Spec) Same(other *Spec) (found []Difference) {
	a, b := j.fields(), other.fields()
	for i := range a {
		if a[i].value != b[i].value {
			found = append(found, Difference{a[i].name, a[i].value, b[i].value, a[i].identity})
		}
	}
	slices.SortStableFunc(found, func(a, b Difference) int {
		switch {
		case a.Other == b.Other:
			return 0
		case a.Other:
			return -1
		}
		return 1
	})
	return found
}

// field is a field of a job as a text.
type field struct {
	name     string
	value    string
	identity bool
}

func (j *Spec) fields() []field {
	return slices.Concat([]field{
		{"Module", j.Module.Digest, true},
		{"Chunks", j.Chunks.Digest, true},
		{"Total", strconv.Itoa(j.Total), true},
		{"Context", contextOf(j.Context), true},
		{"Priority", strconv.Itoa(j.Priority), false},
	}, j.Settings.fields())
}

// contextOf returns the digest of a context; "" if the context is null.
func contextOf(digest string) string {
	if digest == Digest(sha256.Sum256(abi.Null)) {
		return ""
	}
	return digest
}

func (s *Settings) fields() []field {
	maxFailures := ""
	if s.MaxFailures != nil {
		maxFailures = strconv.Itoa(*s.MaxFailures)
	}
	return slices.Concat([]field{
		{"Seed", number(s.Seed), true},
		{"NativeNaNs", strconv.FormatBool(s.NativeNaNs), true},
		{"NoMetering", strconv.FormatBool(s.NoMetering), true},
		{"Metering", strconv.Itoa(s.Metering), true},
		{"EngineFixes", optional(uint64(s.EngineFixes)), true},
		{"Isolation", s.Isolation, false},
		{"MaxFailures", maxFailures, false},
		{"NoFold", strconv.FormatBool(s.NoFold), false},
		{"Limits.Stack", optional(s.OtherStack()), true},
	}, s.Limits.fields(), s.Retry.fields(), s.Command.fields())
}

func number(n uint64) string { return strconv.FormatUint(n, 10) }

// optional formats a number, and 0 as "".
func optional(n uint64) string {
	if n == 0 {
		return ""
	}
	return number(n)
}

func (l *Limits) fields() []field {
	return []field{
		{"Limits.Memory", number(l.Memory), true},
		{"Limits.Fuel", number(l.Fuel), false},
		{"Limits.Timeout", l.Timeout.String(), false},
		{"Limits.FoldTimeout", l.FoldTimeout.String(), false},
		{"Limits.MaxOutput", number(l.MaxOutput), false},
		{"Limits.MaxAggregate", number(l.MaxAggregate), false},
	}
}

func (r *Retry) fields() []field {
	classes := "" // nil: the default ones
	if r.Classes != nil {
		classes = list(slices.Compact(slices.Sorted(slices.Values(r.Classes))))
	}
	return []field{
		{"Retry.Retries", strconv.Itoa(r.Retries), false},
		{"Retry.Classes", classes, false},
		{"Retry.MaxRequeues", strconv.Itoa(r.MaxRequeues), false},
		{"Retry.Backoff", r.Backoff.String(), false},
		{"Retry.BackoffMax", r.BackoffMax.String(), false},
		{"Retry.Deterministic", strconv.FormatBool(r.Deterministic), false},
	}
}

// fields accepts nil, which is a command with nothing set.
func (c *Command) fields() []field {
	if c == nil {
		c = &Command{}
	}
	stdin := c.Stdin
	if stdin == StdinRaw {
		stdin = ""
	}
	dirs := make([]string, len(c.Dirs))
	for i, d := range c.Dirs {
		dirs[i] = d.Guest + " " + d.Digest
	}
	return []field{
		{"Command.Args", some(c.Args), true},
		{"Command.Env", some(c.Env), true},
		{"Command.Stdin", stdin, true},
		{"Command.Dirs", some(dirs), true},
	}
}

// list returns a list as JSON.
func list[T any](elements []T) string {
	b, _ := json.Marshal(append([]T{}, elements...)) // strings always can be marshaled
	return string(b)
}

// some is list, or "" for an empty list.
func some[T any](elements []T) string {
	if len(elements) == 0 {
		return ""
	}
	return list(elements)
}
