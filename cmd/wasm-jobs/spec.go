package main

import (
	"errors"
	"os"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// flagOf maps fields of a job's spec to the flags that set them.
var flagOf = map[string]string{
	"Limits.Memory": "memory", "Limits.Timeout": "timeout", "Limits.FoldTimeout": "fold-timeout",
	"Isolation": "isolation", "MaxFailures": "max-failures",
	"Retry.Retries": "retries", "Retry.Classes": "retry-on", "Retry.MaxRequeues": "max-requeues",
	"Retry.Backoff": "backoff", "Retry.BackoffMax": "backoff-max",
}

// checkSettings refuses invalid settings. Its error lists all of them, by flag.
func (o *runOptions) checkSettings() error {
	job := &host.Job{Options: o.options, Settings: o.settings, Retry: o.retry}
	invalid, ok := errors.AsType[*spec.InvalidError](job.Spec().Settings.Validate())
	if !ok {
		return nil
	}
	var found []error
	for _, p := range invalid.Problems {
		name := p.Field
		if flag := flagOf[p.Field]; flag != "" {
			name = "--" + flag
		}
		found = append(found, usageErrorf("%s %s", name, p.Reason))
	}
	return errors.Join(found...)
}

// kinds maps the flags of run that name sources to kinds of a spec.
var kinds = map[string]spec.Kind{
	"lines": spec.KindLines, "jsonl": spec.KindJSONL, "csv": spec.KindCSV, "parquet": spec.KindParquet, "arrow": spec.KindArrow, "files": spec.KindFiles, "range-of": spec.KindRange,
}

// sources returns the paths of the job's files, for its record.
func (o *runOptions) sources() *spec.Sources {
	s := &spec.Sources{Context: absolute(o.context), Chunks: o.chunkSources()}
	for _, d := range o.wasi.dirs {
		if s.Dirs == nil {
			s.Dirs, s.MaxDir = map[string]string{}, o.wasi.limit
		}
		s.Dirs[d.guest] = absolute(d.host)
	}
	return s
}

func (o *runOptions) chunkSources() spec.Chunks {
	c := spec.Chunks{Kind: spec.KindFile, Path: absolute(o.chunks), NoIDKey: o.input.NoIDKey}
	if format := o.input.Format; format != chunks.Auto {
		c.Format = format.String()
	}
	if o.source != nil {
		c = o.source.spec()
		c.NoIDKey = o.input.NoIDKey
	}
	if o.input.IDKey != chunks.DefaultIDKey {
		c.IDKey = o.input.IDKey
	}
	if o.input.MaxChunk != chunks.DefaultMaxChunk {
		c.MaxChunk = o.input.MaxChunk
	}
	if stat, err := os.Stat(c.Path); err == nil && stat.Mode().IsRegular() {
		c.Size = stat.Size()
	}
	c.Limit, c.Select = o.input.Limit, o.selection.spec()
	return c
}

// spec returns how the chunks of a source are made.
func (s *source) spec() spec.Chunks {
	c := spec.Chunks{Kind: kinds[s.kind], Path: absolute(s.paths[0])}
	if len(s.paths) > 1 {
		for _, path := range s.paths {
			c.Paths = append(c.Paths, absolute(path))
		}
	}
	c.SkipBad = s.bad != nil
	switch s.kind {
	case "range-of":
		c.Path, c.Range = "", s.paths[0]
	case "lines":
		c.Lines, c.Bytes, c.AsBytes = s.lines.Lines, s.lines.Cut.Bytes, s.lines.Bytes
	case "csv":
		c.Delimiter, c.NoQuotes, c.CSVTypes, c.Columns = string(s.csv.Comma), s.csv.NoQuotes, s.types, s.columns
	case "jsonl":
		c.Columns = s.columns
	case "parquet", "arrow":
		c.Columns, c.Rows = s.columns, s.rows
	case "files":
		c.Split, c.SplitLines = s.files.Split, s.files.AtLines
	}
	return c
}

// sourceOf is the inverse of [source.spec]. It is nil for a chunk file.
func sourceOf(c *spec.Chunks) (*source, error) {
	s := &source{paths: []string{c.Path}}
	if len(c.Paths) > 0 {
		s.paths = c.Paths
	}
	for flag, kind := range kinds {
		if kind == c.Kind {
			s.kind = flag
		}
	}
	s.lines = sources.LinesOptions{Cut: sources.Cut{Lines: c.Lines, Bytes: c.Bytes}, Bytes: c.AsBytes}
	s.csv.Comma = ','
	if c.Delimiter != "" {
		s.csv.Comma, _ = utf8.DecodeRuneInString(c.Delimiter)
	}
	s.csv.NoQuotes = c.NoQuotes
	if err := errors.Join(s.parseTypes(c.CSVTypes), s.parseColumns(c.Columns)); err != nil {
		return nil, err
	}
	s.files.Split, s.files.AtLines = c.Split, c.SplitLines
	s.rows = c.Rows
	if c.SkipBad {
		s.bad = &badRecords{}
	}
	switch s.kind {
	case "":
		return nil, nil
	case "range-of":
		var err error
		s.paths = []string{c.Range}
		s.set, err = abi.ParseRanges(c.Range)
		return s, err
	}
	return s, s.find()
}

// readChunks sets the options of a run from the record of how chunks are made.
func (o *runOptions) readChunks(c *spec.Chunks) (err error) {
	o.chunks = c.Path
	o.input = chunks.Options{IDKey: c.IDKey, NoIDKey: c.NoIDKey, MaxChunk: c.MaxChunk, Limit: c.Limit}
	if c.IDKey == "" && !c.NoIDKey {
		o.input.IDKey = chunks.DefaultIDKey
	}
	if c.MaxChunk == 0 {
		o.input.MaxChunk = chunks.DefaultMaxChunk
	}
	if c.Format != "" {
		if o.input.Format, err = chunks.ParseFormat(c.Format); err != nil {
			return err
		}
	}
	if o.source, err = sourceOf(c); err != nil {
		return err
	}
	if c.Select != nil {
		return o.selection.read(c.Select.Ranges, c.Select.IDs)
	}
	return nil
}
