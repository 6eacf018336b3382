package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// find sets the files of the paths: those of each pattern by path, the patterns in
// the order in which they are given. It is called before any result is opened, so
// that no pattern matches one that is being written.
func (s *source) find() error {
	s.found = nil
	if i := slices.IndexFunc(s.paths, remote.IsURL); s.kind == "files" && i >= 0 {
		return usageErrorf("invalid --files %s: want files of this machine; --lines, --jsonl, --csv, --parquet and CHUNKS may be URLs", remote.Name(s.paths[i]))
	}
	if s.kind == "range-of" || s.kind == "files" {
		s.found = s.paths
		return nil
	}
	for _, path := range s.paths {
		if path == "-" && slices.Contains(s.found, path) {
			return usageErrorf("duplicate --%s -: standard input can be read once", s.kind)
		}
		found, err := match(path)
		if err != nil {
			return err
		}
		s.found = append(s.found, found...)
	}
	return nil
}

// special are the characters of a pattern.
const special = "*?["

// match returns the files of a pattern in bytewise order, or a path that is none.
func match(pattern string) ([]string, error) {
	if remote.IsURL(pattern) {
		return matchURL(pattern)
	}
	if !strings.ContainsAny(pattern, special) {
		return []string{pattern}, nil
	}
	if _, err := os.Lstat(pattern); err == nil {
		return []string{pattern}, nil
	}
	options := []doublestar.GlobOption{doublestar.WithFilesOnly(), doublestar.WithFailOnIOErrors()}
	if strings.Contains(pattern, "**") { // as in shells: links could lead in circles, or twice to a file
		options = append(options, doublestar.WithNoFollow())
	}
	found, err := doublestar.FilepathGlob(pattern, options...)
	found = slices.DeleteFunc(found, func(path string) bool { // with WithNoFollow, links to directories are files
		info, err := os.Stat(path)
		return err == nil && info.IsDir()
	})
	switch {
	case errors.Is(err, doublestar.ErrBadPattern):
		return nil, usageErrorf("%s: invalid pattern: want *, ?, [a-z], {a,b} or **, each of them closed", pattern)
	case err != nil:
		return nil, usageErrorf("%s: %w", pattern, err)
	case len(found) == 0:
		return nil, usageErrorf("%s: no file matches the pattern", pattern)
	}
	slices.Sort(found)
	return found, nil
}

// matchURL is match for URLs; only those of s3 may be patterns.
func matchURL(pattern string) ([]string, error) {
	found, err := remote.Match(context.Background(), pattern)
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("%s: no object matches the pattern", pattern)
	}
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	return found, nil
}

func nameOfInput(path string) string {
	if remote.IsURL(path) {
		return remote.Name(path)
	}
	if path == "-" {
		return "standard input"
	}
	return path
}

func notOpened(path string, err error) *sources.Error {
	if errors.Is(err, errDirectory) {
		return &sources.Error{Name: path, Reason: "is a directory: want a file", Err: err}
	}
	return &sources.Error{Name: nameOfInput(path), Reason: "cannot be opened: " + withoutPath(err), Err: err}
}

// openText opens a file of text. UTF-16 becomes UTF-8, which is said once; byte
// strings of lines stay as they are.
func (s *source) openText(c *console, path string) (io.ReadCloser, error) {
	if temp := s.spooled[path]; temp != "" {
		path = temp
	}
	file, err := openSource(c, path)
	if err != nil || s.lines.Bytes {
		return file, err
	}
	r := bufio.NewReaderSize(file, 64<<10)
	text := sources.UTF16(r)
	if text == nil {
		return &textFile{r, file}, nil
	}
	if !s.said {
		fmt.Fprintf(c.err, "wasm-jobs: %s: UTF-16 is read as UTF-8\n", printable(nameOfInput(path)))
	}
	s.said = true
	return &textFile{text, file}, nil
}

type textFile struct {
	io.Reader
	io.Closer
}

// eachFile returns the chunks of all files, one file after another.
func (s *source) eachFile(c *console, maxChunk int64) sources.Source {
	return func(yield func([]byte, error) bool) {
		for _, path := range s.found {
			if !s.oneFile(c, path, maxChunk, yield) {
				return
			}
		}
	}
}

// oneFile yields the chunks of a file, and reports whether more are wanted.
func (s *source) oneFile(c *console, path string, maxChunk int64, yield func([]byte, error) bool) bool {
	if hasColumns(s.kind) {
		return pass(s.columnsOf(c, path, maxChunk), yield)
	}
	file, err := s.openText(c, path)
	if err != nil {
		yield(nil, notOpened(path, err))
		return false
	}
	defer file.Close()
	in := sources.Input{Name: nameOfInput(path), Reader: file, MaxChunk: maxChunk, Mark: s.at.marker(nameOfInput(path)), Bad: s.bad.taker()}
	return pass(s.of(in), yield)
}

// pass yields chunks, and reports whether more are wanted.
func pass(all sources.Source, yield func([]byte, error) bool) bool {
	for item, err := range all {
		if !yield(item, err) || err != nil {
			return false
		}
	}
	return true
}

// openLines returns the lines of all files, joined as by cat.
func (s *source) openLines(c *console, maxChunk int64) (sources.Source, io.Closer, error) {
	j := &joined{open: func(path string) (io.ReadCloser, error) { return s.openText(c, path) }, left: s.found}
	if err := j.next(); err != nil {
		return nil, nil, notOpened(s.found[0], err)
	}
	in := sources.Input{Name: s.name(), Reader: j, MaxChunk: maxChunk, Where: j.lineOf, Bad: s.bad.taker()}
	return sources.Lines(in, s.lines), j, nil
}

// joined reads files one after another as one, and knows which line is whose.
type joined struct {
	open    func(path string) (io.ReadCloser, error)
	left    []string
	current io.ReadCloser // nil before a file and after the last one
	ended   int           // lines that ended so far
	cr      bool          // the last byte is CR
	starts  []lineOf      // of each file, its first line
}

// lineOf is a line of all files, the first one of a file.
type lineOf struct {
	name string
	line int // from 1
}

// next opens the next file. At the end there is none, and current stays nil.
func (j *joined) next() (err error) {
	if len(j.left) == 0 {
		return nil
	}
	j.starts = append(j.starts, lineOf{nameOfInput(j.left[0]), j.ended + 1})
	j.current, err = j.open(j.left[0])
	j.left = j.left[1:]
	return err
}

func (j *joined) Read(b []byte) (int, error) {
	for j.current != nil {
		n, err := j.current.Read(b)
		j.count(b[:n])
		if err == io.EOF {
			j.Close()
			err = j.next()
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
	return 0, io.EOF
}

// count counts the line ends: LF, CR LF and CR.
func (j *joined) count(b []byte) {
	if len(b) == 0 {
		return
	}
	j.ended += bytes.Count(b, []byte{'\n'})
	if j.cr && b[0] == '\n' {
		j.ended--
	}
	if bytes.IndexByte(b, '\r') >= 0 {
		j.ended += bytes.Count(b, []byte{'\r'}) - bytes.Count(b, []byte("\r\n"))
	}
	j.cr = b[len(b)-1] == '\r'
}

// Close closes the file that is read; the rest is not.
func (j *joined) Close() error {
	if j.current == nil {
		return nil
	}
	defer func() { j.current = nil }()
	return j.current.Close()
}

// lineOf returns the file of a line of all, and the line in it.
func (j *joined) lineOf(line int) (string, int) {
	i := sort.Search(len(j.starts), func(i int) bool { return j.starts[i].line > line }) - 1
	return j.starts[max(i, 0)].name, line - j.starts[max(i, 0)].line + 1
}

// maxSegments bounds the memory of [places]; if it is not enough, messages name
// the file without the line.
const maxSegments = 1 << 20

// places knows which chunk comes from which line. Chunks on lines that follow one
// another take no memory.
type places struct {
	count    int // chunks so far
	segments []segment
}

// segment is a run of chunks on successive lines of a file.
type segment struct {
	name           string
	position, line int // of the first; line 0 is not known
}

// marker returns what takes the lines of the chunks of a file.
func (p *places) marker(name string) func(line int) {
	first := true
	return func(line int) {
		if first || !p.goesOn(line) {
			if len(p.segments) >= maxSegments {
				line = 0
			}
			if first || line > 0 || p.segments[len(p.segments)-1].line > 0 {
				p.segments = append(p.segments, segment{name, p.count, line})
			}
		}
		first = false
		p.count++
	}
}

// goesOn reports whether the next chunk, on a line, belongs to the last segment.
func (p *places) goesOn(line int) bool {
	last := p.segments[len(p.segments)-1]
	return last.line > 0 && line == last.line+p.count-last.position
}

// of returns the place of a chunk, "" if it is not known.
func (p *places) of(position int) string {
	i := sort.Search(len(p.segments), func(i int) bool { return p.segments[i].position > position }) - 1
	if i < 0 {
		return ""
	}
	if s := p.segments[i]; s.line > 0 {
		return fmt.Sprintf("%s:%d", s.name, s.line+position-s.position)
	}
	return p.segments[i].name
}
