package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// repetition is the command that runs a recorded job again, as words.
type repetition struct{ words []string }

// commandOf returns the command that runs a job again, for a shell, or "" if its
// files are not recorded. The settings that have their default are left out.
func commandOf(s *spec.Spec) string {
	r := repetitionOf(s)
	if r == nil {
		return ""
	}
	r.selection(s.Sources.Chunks.Select)
	return r.String()
}

// aloneOf returns a function that returns the command that runs one chunk of a job
// again, or "".
func aloneOf(s *spec.Spec) func(abi.ID) string {
	return func(id abi.ID) string {
		r := repetitionOf(s)
		if r == nil {
			return ""
		}
		r.add("ids", oneID(id))
		r.words = append(r.words, "--no-store")
		return r.String()
	}
}

// oneID returns an id as --ids takes it.
func oneID(id abi.ID) string {
	var set abi.IDSet
	set.Add(id)
	return set.String()
}

func repetitionOf(s *spec.Spec) *repetition {
	if s == nil || s.Sources == nil || s.Module.Path == "" {
		return nil
	}
	r := &repetition{words: []string{"wasm-jobs", "run", s.Module.Path}}
	c := &s.Sources.Chunks
	if c.Path == "" && c.Kind != spec.KindRange {
		return nil
	}
	r.chunks(c)
	r.add("context", s.Sources.Context)
	r.limits(&s.Settings)
	r.retries(&s.Settings)
	r.command(s)
	return r
}

// String returns the command, with the words quoted for a shell.
func (r *repetition) String() string {
	quoted := make([]string, len(r.words))
	for i, word := range r.words {
		quoted[i] = shellWord(word)
	}
	return strings.Join(quoted, " ")
}

// shellWord quotes a word for a POSIX shell, if it must be.
func shellWord(s string) string {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("/._-+=:,@%", c)
	}
	if s != "" && strings.IndexFunc(s, func(c rune) bool { return !plain(c) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// add adds a flag with its value, unless that is empty.
func (r *repetition) add(flag, value string) {
	if value != "" {
		r.words = append(r.words, "--"+flag, value)
	}
}

// addInt adds a flag, unless its value is the default.
func (r *repetition) addInt(flag string, value, normal int64) {
	if value != normal {
		r.add(flag, strconv.FormatInt(value, 10))
	}
}

func (r *repetition) addBool(flag string, set bool) {
	if set {
		r.words = append(r.words, "--"+flag)
	}
}

func (r *repetition) addDuration(flag string, value, normal time.Duration) {
	if value != normal {
		r.add(flag, value.String())
	}
}

// chunks adds the source of the chunks.
func (r *repetition) chunks(c *spec.Chunks) {
	flag := ""
	for name, kind := range kinds {
		if kind == c.Kind {
			flag = name
		}
	}
	paths := c.Paths
	if len(paths) == 0 {
		paths = []string{c.Path}
	}
	switch {
	case flag == "range-of":
		r.add(flag, c.Range)
	case flag == "":
		r.words = append(r.words, c.Path)
	default:
		for _, path := range paths {
			r.add(flag, path)
		}
	}
	r.shape(c)
	if c.NoIDKey {
		r.words = append(r.words, "--id-key", "")
	}
	r.add("id-key", c.IDKey)
	if c.Format != "auto" {
		r.add("chunk-format", c.Format)
	}
	if c.MaxChunk != 0 && c.MaxChunk != chunks.DefaultMaxChunk {
		r.add("max-chunk", strconv.FormatInt(c.MaxChunk, 10))
	}
	r.addInt("limit", int64(c.Limit), 0)
}

// shape adds the flags that say how text becomes chunks.
func (r *repetition) shape(c *spec.Chunks) {
	if c.Lines > 1 {
		r.add("chunk-lines", strconv.Itoa(c.Lines))
	}
	r.addInt("chunk-bytes", c.Bytes, 0)
	if c.AsBytes {
		r.add("as", "bytes")
	}
	if c.Delimiter != "," {
		r.add("delimiter", c.Delimiter)
	}
	if c.NoQuotes {
		r.add("quote", "none")
	}
	r.add("csv-types", c.CSVTypes)
	r.add("select", c.Columns)
	r.addInt("chunk-rows", int64(c.Rows), 0)
	if c.SkipBad {
		r.add("skip-bad", skippedFile)
	}
	r.addInt("split", c.Split, 0)
	r.addBool("split-lines", c.SplitLines)
}

func (r *repetition) selection(s *spec.Selection) {
	if s != nil {
		r.add("range", s.Ranges)
		r.add("ids", s.IDs)
	}
}

// limits adds the settings of calls.
func (r *repetition) limits(s *spec.Settings) {
	if s.Seed != 0 {
		r.add("seed", strconv.FormatUint(s.Seed, 10))
	}
	if s.Fuel != 0 {
		r.add("fuel", strconv.FormatUint(s.Fuel, 10))
	}
	for _, x := range []struct {
		flag          string
		value, normal uint64
	}{
		{"memory", s.Memory, 256 << 20}, {"max-output", s.MaxOutput, 16 << 20}, {"max-aggregate", s.MaxAggregate, 256 << 20}, {"stack", s.OtherStack(), 0},
	} {
		if x.value != 0 && x.value != x.normal {
			r.add(x.flag, strconv.FormatUint(x.value, 10))
		}
	}
	r.addDuration("timeout", s.Timeout, 30*time.Second)
	r.addDuration("fold-timeout", s.FoldTimeout, 10*time.Minute)
	r.addBool("native-nans", s.NativeNaNs)
	r.addBool("no-metering", s.NoMetering)
	if s.Isolation != "" && s.Isolation != "reset" {
		r.add("isolation", s.Isolation)
	}
}

func (r *repetition) retries(s *spec.Settings) {
	r.addInt("retries", int64(s.Retries), 3)
	if classes := joinClasses(s.Classes); s.Classes != nil && classes != joinClasses(host.DefaultRetryClasses()) {
		if classes == "" {
			classes = "none"
		}
		r.add("retry-on", classes)
	}
	r.addInt("max-requeues", int64(s.MaxRequeues), 100)
	r.addDuration("backoff", s.Backoff, 50*time.Millisecond)
	r.addDuration("backoff-max", s.BackoffMax, 5*time.Second)
	r.addBool("retry-deterministic", s.Deterministic)
	if s.MaxFailures != nil {
		r.add("max-failures", strconv.Itoa(*s.MaxFailures))
	}
}

// command adds the inputs of a WASI command.
func (r *repetition) command(s *spec.Spec) {
	c := s.Settings.Command
	if c == nil {
		return
	}
	for _, arg := range c.Args {
		r.words = append(r.words, "--arg="+arg)
	}
	for _, pair := range c.Env {
		r.words = append(r.words, "--env="+pair)
	}
	if c.Stdin != "" && c.Stdin != spec.StdinRaw {
		r.add("stdin", c.Stdin)
	}
	for _, d := range c.Dirs {
		r.add("dir", fmt.Sprintf("%s:%s", s.Sources.Dirs[d.Guest], d.Guest))
	}
	r.addInt("max-dir", s.Sources.MaxDir, 0)
}
