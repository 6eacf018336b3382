package sources

import (
	"bufio"
	"bytes"
	"io"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// readSize is the size of one read of an input.
const readSize = 256 << 10

// lineReader reads lines of limited length.
type lineReader struct {
	in   Input
	r    *bufio.Reader
	cr   bool   // CR ends a line too
	line int    // number of the line that next returned last, from 1
	long []byte // a line that is longer than the buffer of r
}

func newLineReader(in Input) *lineReader {
	return &lineReader{in: in, r: bufio.NewReaderSize(in.Reader, readSize)}
}

// next returns the next line with its end, which the last line may lack. It is
// valid until the next call. The error is [io.EOF] after the last line, or an
// *[Error].
func (l *lineReader) next() ([]byte, error) {
	l.line++
	if l.cr {
		return l.nextOfAny()
	}
	part, err := l.r.ReadSlice('\n')
	if err == nil && len(part) <= l.in.limit() {
		return part, nil
	}
	l.long = l.long[:0]
	for {
		if len(l.long)+len(part) > l.in.limit() {
			return nil, l.in.tooLarge(l.line, "line")
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

// nextOfAny is next for lines that end with LF, CR LF or CR.
func (l *lineReader) nextOfAny() ([]byte, error) {
	l.long = l.long[:0]
	for {
		if _, err := l.r.Peek(1); err == io.EOF && len(l.long) > 0 {
			return l.long, nil
		} else if err == io.EOF {
			return nil, io.EOF
		} else if err != nil {
			return nil, l.in.unreadable(l.line, err)
		}
		b, _ := l.r.Peek(l.r.Buffered())
		n, ended := lineLength(b)
		if len(l.long)+n > l.in.limit() {
			return nil, l.in.tooLarge(l.line, "line")
		}
		b = b[:n]
		l.r.Discard(n)
		if ended && len(l.long) == 0 {
			return b, nil
		}
		l.long = append(l.long, b...)
		if !ended && b[n-1] == '\r' { // LF may follow
			if next, _ := l.r.Peek(1); len(next) == 1 && next[0] == '\n' {
				l.long = append(l.long, '\n')
				l.r.Discard(1)
			}
			ended = true
		}
		if ended {
			return l.long, nil
		}
	}
}

// lineLength returns the length of the line at the start of b, and whether its end is
// known: after CR at the end of b, LF may follow.
func lineLength(b []byte) (n int, ended bool) {
	lf := bytes.IndexByte(b, '\n')
	line := b
	if lf >= 0 {
		line = b[:lf]
	}
	switch cr := bytes.IndexByte(line, '\r'); {
	case cr < 0 && lf < 0:
		return len(b), false
	case cr < 0 || cr+1 == lf:
		return lf + 1, true
	default:
		return cr + 1, cr+1 < len(b)
	}
}

// Cut selects how lines are joined into blocks. Line ends are kept: all blocks,
// joined, are the input.
type Cut struct {
	// Lines is the number of lines in a block; 0 means 1 if Bytes is 0.
	Lines int
	// Bytes, if not 0, limits a block by bytes instead: as many whole lines as fit,
	// or one line that is longer.
	Bytes int64
}

// cutter joins lines into blocks.
type cutter struct {
	lines *lineReader
	cut   Cut
	block []byte
	valid bool   // lines that are not UTF-8 are passed over
	held  []byte // the line that did not fit into the previous block; nil means none
	first int    // number of the first line of the block
}

func newCutter(in Input, cut Cut) *cutter {
	if cut.Lines == 0 && cut.Bytes == 0 {
		cut.Lines = 1
	}
	return &cutter{lines: newLineReader(in), cut: cut}
}

// next returns the next block, valid until the next call. The error is [io.EOF] or
// an *[Error].
func (c *cutter) next() ([]byte, error) {
	c.block = append(c.block[:0], c.held...)
	count := 0
	if c.held != nil {
		count = 1
	}
	c.first, c.held = c.lines.line+1-count, nil
	for c.cut.Bytes > 0 || count < c.cut.Lines {
		line, err := c.line()
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
			return nil, c.lines.in.tooLarge(c.first, "chunk")
		}
		c.block = append(c.block, line...)
		count++
	}
	return c.block, nil
}

// line returns the next line that is not passed over.
func (c *cutter) line() ([]byte, error) {
	for {
		line, err := c.lines.next()
		if err != nil || !c.valid || utf8.Valid(line) {
			return line, err
		}
		in := c.lines.in
		if err := in.pass(in.fail(c.lines.line, ErrMalformed, HintBytes, notUTF8), line); err != nil {
			return nil, err
		}
	}
}

// LinesOptions are the options of [Lines].
type LinesOptions struct {
	Cut
	Bytes bool // byte strings instead of texts
}

// Lines yields the lines of an input with their ends, joined as the options say: as
// texts, which must be UTF-8, or as byte strings. LF, CR LF and CR each end a line.
func Lines(in Input, o LinesOptions) Source {
	return func(yield func([]byte, error) bool) {
		c := newCutter(in, o.Cut)
		c.lines.cr = true
		c.valid = in.Bad != nil && !o.Bytes
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
			return nil, c.lines.in.fail(c.first+linesBeforeInvalid(block), ErrMalformed, HintBytes, notUTF8)
		}
	}
	dst = append(abi.AppendHead(dst, major, uint64(len(block))), block...)
	if len(dst) > c.lines.in.limit() {
		return nil, c.lines.in.tooLarge(c.first, "chunk")
	}
	return dst, nil
}

const notUTF8 = "not UTF-8"

// linesBeforeInvalid returns the number of the first line of a block, from 0, that
// is not UTF-8.
func linesBeforeInvalid(block []byte) (n int) {
	for {
		size, _ := lineLength(block)
		if !utf8.Valid(block[:size]) {
			return n
		}
		block, n = block[size:], n+1
	}
}
