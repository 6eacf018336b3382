package spec

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Sources record where the parts of a job are, and how its chunks are made, so
// that the job can be run again without further input. The module's path is in
// Spec.Module.
type Sources struct {
	Context string            `json:"context,omitempty"` // path of its file
	Dirs    map[string]string `json:"dirs,omitempty"`    // paths by the guest's names
	MaxDir  int64             `json:"max_dir,omitempty"` // limit for all directories together; 0 = the default
	Chunks  Chunks            `json:"chunks"`
}

// Chunks define how chunks are made. The zero Chunks have no known source.
type Chunks struct {
	Kind Kind   `json:"kind,omitempty"`
	Path string `json:"path,omitempty"` // "-" = standard input
	Size int64  `json:"size,omitempty"` // of the file; 0 if unknown
	// Paths are the files and patterns, Path among them, if there are several.
	Paths []string `json:"paths,omitempty"`

	Lines      int    `json:"lines,omitempty"`       // of KindLines: lines of one chunk
	Bytes      int64  `json:"bytes,omitempty"`       // of KindLines, instead of Lines: as many lines as fit
	AsBytes    bool   `json:"as_bytes,omitempty"`    // of KindLines: byte strings instead of texts
	Delimiter  string `json:"delimiter,omitempty"`   // of KindCSV; "" = a comma
	NoQuotes   bool   `json:"no_quotes,omitempty"`   // of KindCSV: quotes are data
	CSVTypes   string `json:"csv_types,omitempty"`   // of KindCSV: auto, or name:type,...; "" = texts
	Columns    string `json:"columns,omitempty"`     // of KindCSV, KindJSONL, KindParquet and KindArrow: those that are kept, a record of CSV; "" = all
	Rows       int    `json:"rows,omitempty"`        // of KindParquet and KindArrow: rows of one chunk, an array; 0 = a chunk is a row
	SkipBad    bool   `json:"skip_bad,omitempty"`    // of KindLines, KindJSONL and KindCSV: malformed records are passed over
	Split      int64  `json:"split,omitempty"`       // of KindFiles: size of one part
	SplitLines bool   `json:"split_lines,omitempty"` // of KindFiles, with Split: parts end at the end of a line
	Range      string `json:"range,omitempty"`       // of KindRange: the integers, such as 0-99,120

	IDKey    string `json:"id_key,omitempty"`    // "" = the default
	NoIDKey  bool   `json:"no_id_key,omitempty"` // ids are positions
	Format   string `json:"format,omitempty"`    // of KindFile: auto, sequence or array; "" = auto
	MaxChunk int64  `json:"max_chunk,omitempty"` // limit of one chunk; 0 = the default

	Limit  int        `json:"limit,omitempty"`  // the first chunks of the input, before Select; 0 = all
	Select *Selection `json:"select,omitempty"` // nil = all chunks
}

// Kind is the kind of source of chunks.
type Kind string

// The kinds of [Chunks].
const (
	KindFile    Kind = "file"    // a chunk file
	KindLines   Kind = "lines"   // the lines of a text
	KindJSONL   Kind = "jsonl"   // JSON lines
	KindCSV     Kind = "csv"     // records
	KindParquet Kind = "parquet" // rows of Parquet files
	KindArrow   Kind = "arrow"   // rows of Arrow IPC files and streams
	KindFiles   Kind = "files"   // the files of a directory or pattern
	KindRange   Kind = "range"   // integers, in no file
)

// Selection selects the chunks of the job: those in either part.
type Selection struct {
	Ranges string `json:"ranges,omitempty"` // of integer ids, such as 0-99,120
	IDs    string `json:"ids,omitempty"`    // such as a,b,7; each must be there
}

// Validate returns nil or an *[InvalidError], like [Spec.Validate]. A nil
// Sources is valid.
func (s *Sources) Validate() error {
	var p problems
	if s != nil {
		s.validate(&p)
	}
	return p.err()
}

// validate reports the problems of the sources of a job.
func (s *Sources) validate(p *problems) {
	p.check(s.MaxDir >= 0, "Sources.MaxDir", "%d is negative", s.MaxDir)
	s.Chunks.validate(p)
}

func (c *Chunks) validate(p *problems) {
	for _, n := range []struct {
		field string
		value int64
	}{
		{"Size", c.Size}, {"Lines", int64(c.Lines)}, {"Bytes", c.Bytes}, {"Split", c.Split}, {"MaxChunk", c.MaxChunk}, {"Limit", int64(c.Limit)},
	} {
		p.check(n.value >= 0, "Sources.Chunks."+n.field, "%d is negative", n.value)
	}
	p.check(c.Format == "" || slices.Contains([]string{"auto", "sequence", "array"}, c.Format),
		"Sources.Chunks.Format", "%.40q: want auto, sequence or array", c.Format)
	p.check(c.IDKey == "" || !c.NoIDKey, "Sources.Chunks.IDKey", "%.40q is a key, and NoIDKey is set", c.IDKey)
	c.validateKind(p)
	if c.Select != nil {
		c.Select.validate(p)
	}
}

// validateKind checks that all options fit the kind of the chunks.
func (c *Chunks) validateKind(p *problems) {
	kinds := []Kind{"", KindFile, KindLines, KindJSONL, KindCSV, KindParquet, KindArrow, KindFiles, KindRange}
	if !slices.Contains(kinds, c.Kind) {
		p.add("Sources.Chunks.Kind", "%.40q: want file, lines, jsonl, csv, parquet, arrow, files or range", c.Kind)
		return
	}
	for _, x := range []struct {
		field string
		set   bool
		kind  Kind
	}{
		{"Lines", c.Lines != 0, KindLines}, {"Bytes", c.Bytes != 0, KindLines}, {"AsBytes", c.AsBytes, KindLines},
		{"Delimiter", c.Delimiter != "", KindCSV}, {"NoQuotes", c.NoQuotes, KindCSV}, {"CSVTypes", c.CSVTypes != "", KindCSV}, {"Split", c.Split != 0, KindFiles}, {"SplitLines", c.SplitLines, KindFiles},
		{"Range", c.Range != "", KindRange}, {"Format", c.Format != "" && c.Format != "auto", KindFile},
	} {
		p.check(!x.set || x.kind == c.Kind, "Sources.Chunks."+x.field, "is for chunks of kind %s, not of kind %.40q", x.kind, c.Kind)
	}
	p.check(len(c.Paths) == 0 || slices.Contains([]Kind{KindLines, KindJSONL, KindCSV, KindParquet, KindArrow, KindFiles}, c.Kind) && c.Path == c.Paths[0],
		"Sources.Chunks.Paths", "%d paths: chunks of kind %.40q at %.100q have one", len(c.Paths), c.Kind, c.Path)
	p.check(c.Columns == "" || c.Kind == KindCSV || c.Kind == KindJSONL || c.Kind.hasColumns(), "Sources.Chunks.Columns", "is only for chunks of kind csv, jsonl, parquet or arrow, not %.40q", c.Kind)
	p.check(c.Rows == 0 || c.Kind.hasColumns(), "Sources.Chunks.Rows", "is only for chunks of kind parquet or arrow, not %.40q", c.Kind)
	p.check(!c.SkipBad || slices.Contains([]Kind{KindLines, KindJSONL, KindCSV}, c.Kind), "Sources.Chunks.SkipBad", "is only for chunks of kind lines, jsonl or csv, not %.40q", c.Kind)
	p.check(c.Path == "" || c.Kind != KindRange && c.Kind != "", "Sources.Chunks.Path", "%.100q: chunks of kind %.40q have no file", c.Path, c.Kind)
	c.validateOptions(p)
}

// validateOptions checks the options of one kind.
func (c *Chunks) validateOptions(p *problems) {
	switch c.Kind {
	case KindLines:
		p.check((c.Lines > 0) != (c.Bytes > 0), "Sources.Chunks.Lines", "%d and Bytes %d: want one of them", c.Lines, c.Bytes)
	case KindCSV:
		p.check(c.Delimiter == "" || isDelimiter(c.Delimiter), "Sources.Chunks.Delimiter", "%.40q: want one character that is not a quote or a line end", c.Delimiter)
	case KindParquet, KindArrow:
		p.check(c.Rows >= 0, "Sources.Chunks.Rows", "%d: want 0 or more", c.Rows)
	case KindFiles:
		p.check(!c.SplitLines || c.Split > 0, "Sources.Chunks.SplitLines", "is set without Split")
	case KindRange:
		if _, err := abi.ParseRanges(c.Range); err != nil {
			p.add("Sources.Chunks.Range", "%v", err)
		}
	}
}

func isDelimiter(s string) bool {
	r, size := utf8.DecodeRuneInString(s)
	return size == len(s) && r != utf8.RuneError && !strings.ContainsRune("\"\r\n", r)
}

func (s *Selection) validate(p *problems) {
	if _, err := abi.ParseRanges(s.Ranges); err != nil {
		p.add("Sources.Chunks.Select.Ranges", "%v", err)
	}
	if _, _, err := abi.ParseNamedIDs(s.IDs); err != nil {
		p.add("Sources.Chunks.Select.IDs", "%v", err)
	}
}

// Role is the role of a part of a job.
type Role string

// The roles of parts.
const (
	RoleModule  Role = "module"
	RoleContext Role = "context"
	RoleDir     Role = "directory"
	RoleChunks  Role = "chunks"
)

// Part is a file or directory that a run of the job needs. The digest is that
// of the bytes or of the directory's tree; for chunks, it is the input digest.
type Part struct {
	Role Role `json:"role"`
	File
}

// Manifest returns the parts of the job whose paths are known, in the order
// module, context, directories, chunks. Each path is listed once, with its
// first role.
func (j *Spec) Manifest() (parts []Part) {
	seen := map[string]bool{}
	for _, part := range j.parts() {
		if part.Path != "" && part.Path != "-" && !seen[part.Path] {
			seen[part.Path] = true
			parts = append(parts, part)
		}
	}
	return parts
}

// parts returns all parts, including those without a path.
func (j *Spec) parts() []Part {
	parts := []Part{{RoleModule, j.Module}}
	s := j.Sources
	if s == nil {
		return parts
	}
	if j.Context != "" {
		parts = append(parts, Part{RoleContext, File{s.Context, j.Context, j.ContextSize}})
	}
	if c := j.Settings.Command; c != nil {
		for _, d := range c.Dirs {
			parts = append(parts, Part{RoleDir, File{s.Dirs[d.Guest], d.Digest, d.Bytes}})
		}
	}
	chunks := File{s.Chunks.Path, j.Chunks.Digest, s.Chunks.Size}
	if len(s.Chunks.Paths) > 0 { // no path of one thing
		chunks.Path = ""
	}
	return append(parts, Part{RoleChunks, chunks})
}

// validateParts finds paths that would have to hold two different contents.
// Digests of different kinds cannot be compared.
func (j *Spec) validateParts(p *problems) {
	measure := map[Role]string{RoleModule: "bytes", RoleContext: "bytes", RoleDir: "tree", RoleChunks: "chunks"}
	first := map[string]Part{} // by kind of digest and path
	for _, part := range j.parts() {
		if part.Path == "" || part.Path == "-" {
			continue
		}
		key := measure[part.Role] + " " + part.Path
		before, seen := first[key]
		if !seen {
			first[key] = part
			continue
		}
		p.check(before.Digest == part.Digest, "Manifest", "%s", fmt.Sprintf("%.200q: want the %s %s, and also the %s %s", part.Path, before.Role, before.Digest, part.Role, part.Digest))
	}
}

// hasColumns reports whether files of the kind have typed columns.
func (k Kind) hasColumns() bool { return k == KindParquet || k == KindArrow }
