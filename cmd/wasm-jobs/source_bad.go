package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// badRecords are the malformed records of a source that are passed over.
type badRecords struct {
	path  string // of the file that gets them; "" = none
	count int
	file  *atomicfile.File // nil if path is ""
	w     *bufio.Writer
}

func skipBadFlag() cli.Flag {
	return &cli.StringFlag{Name: "skip-bad", Usage: "pass over malformed records and lines that are not UTF-8, and write them to `FILE` as JSON lines"}
}

// parseBad reads --skip-bad.
func (s *source) parseBad(ctx *cli.Context) error {
	path := ctx.String("skip-bad")
	switch {
	case !isSet(ctx, "skip-bad"):
		return nil
	case path == "" || path == "-":
		return usageErrorf("invalid --skip-bad %q: want a file", path)
	case s.kind != "lines" && s.kind != "jsonl" && s.kind != "csv":
		return usageErrorf("--skip-bad needs --lines, --jsonl or --csv")
	case s.kind == "lines" && s.lines.Bytes:
		return usageErrorf("--skip-bad and --as bytes exclude each other: all bytes are valid")
	}
	for _, name := range append([]string{"effects"}, runResults[:len(runResults)-1]...) {
		for _, other := range resultsOfFlag(ctx, name) {
			if other != "" && other != "-" && atomicfile.Resolve(other) == atomicfile.Resolve(path) {
				return usageErrorf("duplicate output file %s: give each result its own file", path)
			}
		}
	}
	s.bad = &badRecords{path: path}
	return nil
}

// open creates the file. A second call begins again.
func (b *badRecords) open() (err error) {
	if b == nil || b.path == "" {
		return nil
	}
	b.count = 0
	if b.file, err = createResult(b.path); err != nil {
		return usageErrorf("%s cannot be written: %s", nameOfInput(b.path), withoutPath(err))
	}
	b.w = bufio.NewWriter(b.file.Out())
	return nil
}

// close puts the file in place, unless err is an error of the source.
func (b *badRecords) close(err error) error {
	if b == nil || b.file == nil {
		return err
	}
	defer b.file.Discard()
	if err != nil {
		return err
	}
	if err = b.w.Flush(); err == nil {
		err = b.file.Place()
	}
	if err != nil {
		return outputError(err)
	}
	return nil
}

// say tells how many records were passed over, unless err is an error of the source.
func (b *badRecords) say(c *console, err error) {
	if b == nil || err != nil || b.count == 0 {
		return
	}
	where := ""
	if b.path != "" {
		where = "; see " + printable(b.path)
	}
	fmt.Fprintf(c.err, "wasm-jobs: %s skipped%s\n", plural(b.count, "malformed record"), where)
}

// badRecord is a line of the file.
type badRecord struct {
	File  string `json:"file"`
	Line  int    `json:"line"`
	Error string `json:"error"`
	Raw   string `json:"raw"`                  // U+FFFD for bytes that are not UTF-8
	Bytes []byte `json:"raw_base64,omitempty"` // the record, if it is not UTF-8
}

// put takes a malformed record.
func (b *badRecords) put(defect *sources.Error, raw []byte) error {
	b.count++
	if b.w == nil {
		return nil
	}
	r := badRecord{File: defect.Name, Line: defect.Line, Error: defect.Reason, Raw: string(raw)}
	if !utf8.Valid(raw) {
		r.Raw, r.Bytes = strings.ToValidUTF8(r.Raw, "\ufffd"), raw
	}
	e := json.NewEncoder(b.w)
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// taker returns the function that takes malformed records; nil if they end the source.
func (b *badRecords) taker() func(*sources.Error, []byte) error {
	if b == nil {
		return nil
	}
	return b.put
}

// skipped returns the number of records that were passed over; nil if none may be.
func (s *source) skipped() *int {
	if s == nil || s.bad == nil {
		return nil
	}
	return &s.bad.count
}
