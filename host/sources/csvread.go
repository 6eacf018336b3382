package sources

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// csvReader reads records of limited size. Package encoding/csv is not used because
// it turns CR LF within quotes into LF, skips the blank lines of a file of one
// column, takes a lone CR as data, and reports an unclosed quote at the end of the
// file.
type csvReader struct {
	in      Input
	ahead   []byte    // bytes of the input that are not yet used
	buf     []byte    // the buffer that ahead lies in
	err     error     // error of the input, after ahead
	comma   string    // the separator, one character
	stops   [256]bool // the bytes at which an unquoted field may end
	quotes  bool      // quotes are not data
	columns int       // number of fields that are kept; the others are only counted

	raw      []byte // bytes of the record, if Bad takes malformed ones
	unclosed bool   // a quote in the record is not closed
	ended    bool   // the record was read with its line end

	begin  int    // first line of the record, from 1
	text   []byte // its fields, joined
	ends   []int  // end of each field in text
	fields int    // number of fields of the record
	blank  bool   // the record is an empty line

	line   int  // of the next byte, from 1
	column int  // of the next byte in its line, counted in bytes from 1
	cr     bool // the byte before the next one is CR
}

func newCSVReader(in Input, o CSVOptions) *csvReader {
	c := &csvReader{in: in, buf: make([]byte, readSize), comma: ",", line: 1, column: 1}
	if o.Comma != 0 {
		c.comma = string(o.Comma)
	}
	for _, stop := range []byte{'\r', '\n', c.comma[0]} {
		c.stops[stop] = true
	}
	c.quotes = !o.NoQuotes
	c.stops['"'] = c.stops['"'] || c.quotes
	if c.fill(len(byteOrderMark)); bytes.HasPrefix(c.ahead, byteOrderMark) {
		c.ahead = c.ahead[len(byteOrderMark):]
	}
	return c
}

// field returns the i-th field of the record, valid until the next record.
func (c *csvReader) field(i int) []byte {
	if i == 0 {
		return c.text[:c.ends[0]]
	}
	return c.text[c.ends[i-1]:c.ends[i]]
}

// record reads the next record. The error is [io.EOF] after the last one, or an
// *[Error].
func (c *csvReader) record() error {
	c.begin, c.text, c.ends, c.fields = c.line, c.text[:0], c.ends[:0], 0
	c.raw, c.unclosed, c.ended = c.raw[:0], false, false
	b, err := c.peek()
	if err != nil {
		return err
	}
	c.blank = b[0] == '\n' || b[0] == '\r'
	for more := true; more; {
		if err := c.readField(); err != nil {
			return err
		}
		if more, err = c.separator(); err != nil {
			return err
		}
	}
	c.ended = true
	if !c.isUTF8() {
		return c.in.fail(c.begin, ErrMalformed, "", "not UTF-8: CSV files must be UTF-8")
	}
	return nil
}

// isUTF8 reports whether each field is UTF-8.
func (c *csvReader) isUTF8() bool {
	for _, end := range c.ends {
		if end < len(c.text) && !utf8.RuneStart(c.text[end]) {
			return false
		}
	}
	return utf8.Valid(c.text)
}

// readField reads up to the end of a field. The text of a field beyond the columns
// is not kept.
func (c *csvReader) readField() error {
	b, err := c.peek()
	switch {
	case err == io.EOF: // after a separator
		err = nil
	case err == nil && b[0] == '"' && c.quotes:
		err = c.quoted()
	case err == nil:
		err = c.unquoted()
	}
	if c.fields++; c.fields <= c.columns {
		c.ends = append(c.ends, len(c.text))
	} else {
		c.text = c.text[:c.ends[c.columns-1]]
	}
	return err
}

func (c *csvReader) unquoted() error {
	for {
		b, err := c.peek()
		if err != nil {
			return notEOF(err)
		}
		n := 0
		for n < len(b) && !c.stops[b[n]] {
			n++
		}
		if !c.hold(b[:n]) {
			return c.in.tooLarge(c.begin, "record")
		}
		if c.advance(n); n == len(b) {
			continue
		}
		switch stop := b[n]; {
		case stop == '"' && c.quotes:
			return c.in.fail(c.line, ErrMalformed, "", `column %d: bare " in non-quoted-field`, c.column)
		case stop == '\r' || stop == '\n' || c.atComma():
			return nil
		default: // the first byte of another character
			if !c.hold([]byte{stop}) {
				return c.in.tooLarge(c.begin, "record")
			}
			c.advance(1)
		}
	}
}

func (c *csvReader) quoted() error {
	line, column := c.line, c.column
	c.advance(1)
	for {
		b, err := c.peek()
		if err == io.EOF {
			c.unclosed = true
			return c.in.fail(line, ErrMalformed, "", `column %d: the " that opens a field here is not closed`, column)
		}
		if err != nil {
			return err
		}
		n := bytes.IndexByte(b, '"')
		if n < 0 {
			n = len(b)
		}
		if !c.hold(b[:n]) {
			return c.endless(line)
		}
		closes := n < len(b)
		if c.pass(b[:n]); !closes {
			continue
		}
		c.advance(1)
		if b, err = c.peek(); err != nil || b[0] != '"' {
			return notEOF(err)
		}
		if !c.hold(b[:1]) {
			return c.endless(line)
		}
		c.advance(1)
	}
}

// endless returns an error about a quoted field that is too large and begins at a
// line.
func (c *csvReader) endless(line int) error {
	c.unclosed = true
	what := "record"
	if line != c.begin {
		what = "field"
	}
	return c.in.tooLarge(line, what+" with an unclosed quote")
}

// separator passes the separator or line end, and reports whether another field
// follows.
func (c *csvReader) separator() (more bool, err error) {
	b, err := c.peek()
	switch {
	case err != nil:
		return false, notEOF(err)
	case b[0] == '\n':
		c.pass(b[:1])
		return false, nil
	case b[0] == '\r':
		c.pass(b[:1])
		if b, err = c.peek(); err == nil && b[0] == '\n' {
			c.pass(b[:1])
		}
		return false, notEOF(err)
	case c.atComma():
		c.advance(len(c.comma))
		return true, nil
	}
	return false, c.in.fail(c.line, ErrMalformed, "", `column %d: extraneous or missing " in quoted-field`, c.column)
}

// peek returns the next bytes, at least one. They are valid until the next read.
// The error is [io.EOF] or an *[Error].
func (c *csvReader) peek() ([]byte, error) {
	if len(c.ahead) > 0 {
		return c.ahead, nil
	}
	if c.fill(1); len(c.ahead) > 0 {
		return c.ahead, nil
	}
	if c.err == io.EOF {
		return nil, io.EOF
	}
	return nil, c.in.unreadable(c.line, c.err)
}

// emptyReads is the number of reads without data after which a reader is given up.
const emptyReads = 100

// fill reads until n bytes are ahead or the input ends. n is far smaller than the
// buffer.
func (c *csvReader) fill(n int) {
	if len(c.ahead) >= n {
		return
	}
	held := copy(c.buf, c.ahead)
	for empty := 0; held < n && c.err == nil; {
		var got int
		got, c.err = c.in.Reader.Read(c.buf[held:])
		if held += got; got > 0 {
			empty = 0
		} else if empty++; empty == emptyReads && c.err == nil {
			c.err = io.ErrNoProgress
		}
	}
	c.ahead = c.buf[:held]
}

func notEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}

// atComma reports whether a separator comes next. It may read from the input.
func (c *csvReader) atComma() bool {
	c.fill(len(c.comma))
	return len(c.ahead) >= len(c.comma) && string(c.ahead[:len(c.comma)]) == c.comma
}

// hold adds bytes to the record, and reports whether they fit: each field takes at
// least one byte of its chunk in addition to its text.
func (c *csvReader) hold(b []byte) bool {
	if len(c.text)+len(b)+c.fields > c.in.limit() {
		return false
	}
	c.text = append(c.text, b...)
	return true
}

// keep keeps bytes of a record that may be malformed.
func (c *csvReader) keep(b []byte) {
	if c.in.Bad != nil {
		c.raw = append(c.raw, b...)
	}
}

// advance moves past n bytes without line ends.
func (c *csvReader) advance(n int) {
	if n > 0 {
		c.keep(c.ahead[:n])
		c.ahead, c.column, c.cr = c.ahead[n:], c.column+n, false
	}
}

// pass moves past bytes that may have line ends: LF, CR LF or CR.
func (c *csvReader) pass(b []byte) {
	if bytes.IndexByte(b, '\n') < 0 && bytes.IndexByte(b, '\r') < 0 {
		c.advance(len(b))
		return
	}
	c.keep(b)
	for _, char := range b {
		if char == '\r' || char == '\n' && !c.cr {
			c.line++
		}
		c.cr = char == '\r'
		if c.column++; c.cr || char == '\n' {
			c.column = 1
		}
	}
	c.ahead = c.ahead[len(b):]
}
