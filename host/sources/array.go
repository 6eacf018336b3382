package sources

import (
	"bufio"
	"bytes"
	"io"
)

// blanks are the bytes between values of JSON (RFC 8259, section 2).
const blanks = " \t\r\n"

// isBlank reports whether a line has no value.
func isBlank(line []byte) bool { return len(bytes.Trim(line, blanks)) == 0 }

// firstLine is how many bytes of an input are searched for its first line end, to
// decide whether the input is one array or lines of arrays.
const firstLine = 1 << 20

// passArray reports whether an input is one array of JSON. If it is, the array's
// first bracket is passed, and its line is returned. r has a buffer of firstLine.
func passArray(r *bufio.Reader) (line int, array bool) {
	b, _ := r.Peek(firstLine)
	inside := bytes.TrimLeft(bytes.TrimPrefix(b, byteOrderMark), blanks)
	if len(inside) == 0 || inside[0] != '[' || !isAll(inside) {
		return 0, false
	}
	before := len(b) - len(inside)
	line = bytes.Count(b[:before], []byte{'\n'}) + 1
	r.Discard(before + 1)
	return line, true
}

// isAll reports whether an array at the start of an input is the whole input: it does
// not end on its first line, or only blank lines follow.
func isAll(b []byte) bool {
	end := bytes.IndexByte(b, '\n')
	if end < 0 || isBlank(b[end:]) {
		return true
	}
	_, err := AppendJSON(nil, b[:end])
	return err != nil
}

// elements reads the elements of one array after its first bracket.
type elements struct {
	in      Input
	r       *bufio.Reader
	line    int // of the next byte, from 1
	begin   int // of the element
	count   int
	ended   bool
	element []byte
	nesting nesting
}

// yield yields the element as chunks.
func (e *elements) yield(convert func(dst []byte, in Input, line int, value []byte) ([]byte, error), yield func([]byte, error) bool) {
	var item []byte
	for {
		element, err := e.next()
		if err == io.EOF {
			return
		}
		if err == nil {
			if item, err = convert(item[:0], e.in, e.begin, element); err != nil {
				if err = e.in.pass(err, element); err == nil {
					continue
				}
			}
			e.in.mark(e.begin)
		}
		if !yield(item, err) || err != nil {
			return
		}
	}
}

// next returns the bytes of the next element, valid until the next call. The error
// is [io.EOF] after the last one, or an *[Error].
func (e *elements) next() ([]byte, error) {
	if e.ended {
		return nil, e.rest()
	}
	e.element = e.element[:0]
	for {
		c, err := e.byte()
		if err == io.EOF {
			return nil, e.in.fail(e.line, ErrMalformed, "", "truncated: the array does not end")
		}
		if err != nil {
			return nil, err
		}
		if e.nesting.ends(c) {
			e.ended = c == ']'
			if e.ended && e.count == 0 && len(e.element) == 0 {
				return nil, e.rest()
			}
			e.count++
			return e.element, nil
		}
		if len(e.element) == 0 && bytes.IndexByte([]byte(blanks), c) >= 0 {
			continue
		}
		if len(e.element) == 0 {
			e.begin = e.line
		}
		if e.element = append(e.element, c); len(e.element) > e.in.limit() {
			return nil, e.in.tooLarge(e.begin, "element")
		}
	}
}

// rest returns [io.EOF] if only blanks follow the array.
func (e *elements) rest() error {
	for {
		c, err := e.byte()
		if err != nil {
			return err
		}
		if bytes.IndexByte([]byte(blanks), c) < 0 {
			return e.in.fail(e.line, ErrMalformed, "", "more than one value after an array over several lines: want one value on each line, or one array")
		}
	}
}

func (e *elements) byte() (byte, error) {
	c, err := e.r.ReadByte()
	switch {
	case err != nil && err != io.EOF:
		return 0, e.in.unreadable(e.line, err)
	case c == '\n':
		e.line++
	}
	return c, err
}

// nesting tracks whether a byte is inside of a text or of a container.
type nesting struct {
	depth         int
	text, escaped bool
}

// ends takes the next byte, and reports whether it ends an element of the array.
func (n *nesting) ends(c byte) bool {
	switch {
	case n.escaped:
		n.escaped = false
	case n.text:
		n.escaped, n.text = c == '\\', c != '"'
	case c == '"':
		n.text = true
	case c == '[' || c == '{':
		n.depth++
	case (c == ']' || c == '}') && n.depth > 0:
		n.depth--
	case c == ',' || c == ']':
		return n.depth == 0
	}
	return false
}
