package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// submission is the command line of run, in records of earlier builds, which have no
// sources.
type submission struct {
	Module string            `json:"module"`
	Chunks string            `json:"chunks"` // "-" = standard input
	Flags  map[string]string `json:"flags"`
	// Lists are the flags that may be given more than once.
	Lists map[string][]string `json:"lists"`

	err error // the first flag that cannot be read
}

// readSubmission adds to a job the parts that only the submission in its record has:
// the paths of its files, and the retry settings.
func readSubmission(j *spec.Spec) error {
	s := &submission{}
	if err := json.Unmarshal(j.Command, s); err != nil {
		return err
	}
	if j.Module.Path == "" {
		j.Module.Path = s.Module
	}
	j.Sources = &spec.Sources{Context: s.Flags["context"], Chunks: s.chunks()}
	s.size("max-dir", &j.Sources.MaxDir)
	s.readDirs(j.Sources)
	s.readRetry(&j.Settings)
	s.readFailures(j)
	return s.err
}

// chunks returns how the chunks were made.
func (s *submission) chunks() spec.Chunks {
	c := spec.Chunks{Kind: spec.KindFile, Path: s.Chunks}
	for _, name := range sourceKinds {
		if path, ok := s.Flags[name]; ok {
			c = spec.Chunks{Kind: kinds[name], Path: path}
		}
	}
	switch c.Kind {
	case spec.KindRange:
		c.Path, c.Range = "", c.Path
	case spec.KindLines:
		s.readLines(&c)
	case spec.KindFiles:
		s.size("split", &c.Split)
		c.SplitLines = s.Flags["split-lines"] == "true"
	case spec.KindFile:
		c.Format = s.Flags["chunk-format"]
	case spec.KindCSV:
		if delimiter, ok := s.Flags["delimiter"]; ok {
			comma, err := parseDelimiter(delimiter)
			s.fail("delimiter", err)
			c.Delimiter = string(comma)
		}
	}
	s.readInput(&c)
	return c
}

func (s *submission) readLines(c *spec.Chunks) {
	c.AsBytes = s.Flags["as"] == "bytes"
	if s.size("chunk-bytes", &c.Bytes) {
		return
	}
	c.Lines = 1
	s.number("chunk-lines", &c.Lines)
}

// readInput reads the flags that all kinds of chunks have.
func (s *submission) readInput(c *spec.Chunks) {
	key, given := s.Flags["id-key"]
	if c.NoIDKey = given && key == ""; key != chunks.DefaultIDKey {
		c.IDKey = key
	}
	s.size("max-chunk", &c.MaxChunk)
	ranges, some := s.Flags["range"]
	ids, named := s.Flags["ids"]
	if some || named {
		c.Select = &spec.Selection{Ranges: ranges, IDs: ids}
	}
}

func (s *submission) readDirs(to *spec.Sources) {
	for _, value := range s.Lists["dir"] {
		d, err := parseDir(value)
		s.fail("dir", err)
		if to.Dirs == nil {
			to.Dirs = map[string]string{}
		}
		to.Dirs[d.guest] = d.host
	}
}

func (s *submission) readRetry(to *spec.Settings) {
	s.duration("backoff", &to.Backoff)
	s.duration("backoff-max", &to.BackoffMax)
	to.Deterministic = s.Flags["retry-deterministic"] == "true"
}

func (s *submission) readFailures(j *spec.Spec) {
	limit, err := parseFailureLimit(s.Flags["max-failures"])
	s.fail("max-failures", err)
	if s.Flags["fail-fast"] == "true" {
		limit = failureLimit{set: true}
	}
	j.Settings.MaxFailures = limit.of(j.Total)
}

// fail records an error of a flag.
func (s *submission) fail(name string, err error) {
	if err != nil {
		s.err = errors.Join(s.err, fmt.Errorf("%s %.100q: %w", name, s.Flags[name], err))
	}
}

// size reads the flag of a size in bytes, if it was given.
func (s *submission) size(name string, to *int64) (given bool) {
	value, given := s.Flags[name]
	if !given {
		return false
	}
	size, err := humanize.ParseBytes(value)
	if err == nil && size > 1<<40 {
		err = errors.New("too large")
	}
	s.fail(name, err)
	*to = int64(size)
	return true
}

func (s *submission) number(name string, to *int) {
	if value, given := s.Flags[name]; given {
		n, err := strconv.Atoi(value)
		s.fail(name, err)
		*to = n
	}
}

func (s *submission) duration(name string, to *time.Duration) {
	if value, given := s.Flags[name]; given {
		d, err := time.ParseDuration(value)
		s.fail(name, err)
		*to = d
	}
}
