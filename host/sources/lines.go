package sources

import (
	"bufio"
	"bytes"
	"io"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// readSize is what is read from an input at once.
const readSize = 256 << 10

// lineReader reads lines, of which none may be longer than a limit.
type lineReader struct {
	in   Input
	r    *bufio.Reader
	line int    // of the line that next returned last, from 1
	long []byte // a line that is longer than the buffer of r
}

func newLineReader(in Input) *lineReader {
	return &lineReader{in: in, r: bufio.NewReaderSize(in.Reader, readSize)}
}

// next returns the next line with its end, of which the last line may have
// none. It is valid until the next call. The error is [io.EOF] after the last
// line, or an *[Error].
func (l *lineReader) next() ([]byte, error) {
	l.line++
	part, err := l.r.ReadSlice('\n')
	if err == nil && len(part) <= l.in.limit() {
		return part, nil
	}
	l.long = l.long[:0]
	for {
		if len(l.long)+len(part) > l.in.limit() {
			return nil, l.in.tooLarge(l.line, "it")
		}
		l.long = append(l.long, part...)
		if err != bufio.ErrBufferFull {
			break
		}
		part, err = l.r.ReadSlice('\n')
	}
	switch {
	case err == nil, err == io.EOF && len(l.long) > 0:
		return l.long, nil
	case err == io.EOF:
		return nil, io.EOF
	}
	return nil, l.in.unreadable(l.line, err)
}

// Cut says how lines are put together. Line ends stay where they are: all
// blocks, joined, are the input.
type Cut struct {
	// Lines is how many lines make a block; 0 means 1, where Bytes is 0.
	Lines int
	// Bytes, where it is not 0, is how many bytes a block has at most instead:
	// as many whole lines as fit, or one line that is longer.
	Bytes int64
}

// cutter puts lines together.
type cutter struct {
	lines *lineReader
	cut   Cut
	block []byte
	held  []byte // the line that did not fit into the block before; nil = none
	first int    // the line that the block begins with
}

func newCutter(in Input, cut Cut) *cutter {
	if cut.Lines == 0 && cut.Bytes == 0 {
		cut.Lines = 1
	}
	return &cutter{lines: newLineReader(in), cut: cut}
}

// next returns the next block, valid until the next call, or [io.EOF] or an
// *[Error].
func (c *cutter) next() ([]byte, error) {
	c.block = append(c.block[:0], c.held...)
	count := 0
	if c.held != nil {
		count = 1
	}
	c.first, c.held = c.lines.line+1-count, nil
	for c.cut.Bytes > 0 || count < c.cut.Lines {
		line, err := c.lines.next()
		if err == io.EOF && count > 0 {
			break
		}
		if err != nil {
			return nil, err
		}
		if c.cut.Bytes > 0 && count > 0 && int64(len(c.block)+len(line)) > c.cut.Bytes {
			c.held = line
			break
		}
		if len(c.block)+len(line) > c.lines.in.limit() {
			return nil, c.lines.in.tooLarge(c.first, "the chunk that begins here")
		}
		c.block = append(c.block, line...)
		count++
	}
	return c.block, nil
}

// LinesOptions say what [Lines] makes.
type LinesOptions struct {
	Cut
	Bytes bool // byte strings instead of texts
}

// Lines yields the lines of an input, put together as the options say, with
// their ends: as texts, which must be UTF-8, or as byte strings.
func Lines(in Input, o LinesOptions) Source {
	return func(yield func([]byte, error) bool) {
		c := newCutter(in, o.Cut)
		var item []byte
		for {
			block, err := c.next()
			if err == io.EOF {
				return
			}
			if err == nil {
				item, err = appendBlock(item[:0], c, block, o.Bytes)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

func appendBlock(dst []byte, c *cutter, block []byte, asBytes bool) ([]byte, error) {
	major := abi.MajorBytes
	if !asBytes {
		if major = abi.MajorText; !utf8.Valid(block) {
			return nil, c.lines.in.fail(c.first+linesBeforeInvalid(block), ErrMalformed, "--as bytes makes byte strings of lines", "not UTF-8")
		}
	}
	dst = append(abi.AppendHead(dst, major, uint64(len(block))), block...)
	if len(dst) > c.lines.in.limit() {
		return nil, c.lines.in.tooLarge(c.first, "the chunk that begins here")
	}
	return dst, nil
}

// linesBeforeInvalid returns in which line of a block, from 0, it is not UTF-8.
func linesBeforeInvalid(block []byte) (n int) {
	for line := range bytes.Lines(block) {
		if !utf8.Valid(line) {
			break
		}
		n++
	}
	return n
}
