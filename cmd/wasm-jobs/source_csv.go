package main

import (
	"encoding/csv"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func (s *source) parseCSV(ctx *cli.Context) (err error) {
	if s.csv.Comma, err = parseDelimiter(ctx.String("delimiter")); err != nil {
		return err
	}
	switch quote := ctx.String("quote"); quote {
	case "double":
	case "none":
		s.csv.NoQuotes = true
	default:
		return usageErrorf("invalid --quote %q: want none or double", quote)
	}
	return errors.Join(s.parseTypes(ctx.String("csv-types")), s.parseSelect(ctx))
}

// parseTypes reads the types of columns: auto, text, or name:type,...
func (s *source) parseTypes(text string) error {
	if text == "" || text == "text" {
		return nil
	}
	if s.types = text; text == "auto" {
		s.csv.Found = true
		return nil
	}
	fields, err := nameList(text)
	if err != nil {
		return usageErrorf("invalid --csv-types %q: want auto, text or name:type,...: %w", text, err)
	}
	s.csv.Types = map[string]sources.Type{}
	for _, field := range fields {
		colon := strings.LastIndexByte(field, ':')
		if colon < 0 {
			return usageErrorf("invalid --csv-types %q: want auto, text or name:type,...", field)
		}
		name := field[:colon]
		if _, again := s.csv.Types[name]; again {
			return usageErrorf("invalid --csv-types: duplicate column %q", name)
		}
		if s.csv.Types[name], err = sources.ParseType(field[colon+1:]); err != nil {
			return usageErrorf("invalid --csv-types %q: %w", field, err)
		}
	}
	return nil
}

func (s *source) parseSelect(ctx *cli.Context) error {
	if isSet(ctx, "select") && ctx.String("select") == "" {
		return usageErrorf("--select is empty: without it, all columns are kept")
	}
	return s.parseColumns(ctx.String("select"))
}

// parseColumns reads the columns that are kept; "" = all.
func (s *source) parseColumns(text string) (err error) {
	if s.columns = text; text == "" {
		return nil
	}
	if s.csv.Columns, err = nameList(text); err != nil {
		return usageErrorf("invalid --select %q: want a,b: %w", text, err)
	}
	return nil
}

// nameList reads names that commas separate, and quotes may enclose: a record of CSV.
func nameList(text string) ([]string, error) {
	r := csv.NewReader(strings.NewReader(text))
	fields, err := r.Read()
	if err != nil {
		return nil, err
	}
	if _, err := r.Read(); err != io.EOF {
		return nil, errors.New("it has more than one line")
	}
	return fields, nil
}

// findTypes reads all records once, at most limit of them if that is not 0, to find
// the types of the columns. What can be read once is kept in a temporary file.
func (s *source) findTypes(c *console, maxChunk int64, limit int) error {
	var found sources.CSVTypes
	for _, path := range s.found {
		if err := s.spool(c, path); err != nil {
			return err
		}
		count, err := s.typesOf(c, path, maxChunk, limit, &found)
		if err != nil {
			return err
		}
		if limit > 0 {
			if limit -= count; limit == 0 {
				break
			}
		}
	}
	s.csv.Types = found.Types()
	return nil
}

func (s *source) typesOf(c *console, path string, maxChunk int64, limit int, found *sources.CSVTypes) (int, error) {
	file, err := s.openText(c, path)
	if err != nil {
		return 0, notOpened(path, err)
	}
	defer file.Close()
	in := sources.Input{Name: nameOfInput(path), Reader: file, MaxChunk: maxChunk}
	if s.bad != nil {
		in.Bad = func(*sources.Error, []byte) error { return nil }
	}
	return found.Add(in, s.csv, limit)
}

// spool keeps what is not a regular file in a temporary one.
func (s *source) spool(c *console, path string) error {
	if stat, err := os.Stat(path); path != "-" && !remote.IsURL(path) && (err != nil || stat.Mode().IsRegular()) {
		return nil // or it cannot be opened, as will be said
	}
	from := io.NopCloser(c.in)
	if path != "-" {
		file, err := openRaw(c, path)
		if err != nil {
			return notOpened(path, err)
		}
		from = file
	}
	defer from.Close()
	temp, err := c.newUnfinished().temp("wasm-jobs-input-*") // a signal may end the copy
	if err != nil {
		return err
	}
	if s.spooled == nil {
		s.spooled = map[string]string{}
	}
	s.spooled[path] = temp.Name()
	if _, err = io.Copy(temp, from); err != nil {
		err = unreadable(path, err)
	}
	return errors.Join(err, temp.Close())
}

// openRaw opens a file or a URL.
func openRaw(c *console, path string) (io.ReadCloser, error) {
	if remote.IsURL(path) {
		return openBody(c, path)
	}
	return openFile(path)
}

// Close removes temporary files.
func (s *source) Close() (err error) {
	for _, temp := range s.spooled {
		err = errors.Join(err, os.Remove(temp))
	}
	s.spooled = nil
	return err
}
