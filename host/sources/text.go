package sources

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"unicode/utf16"
	"unicode/utf8"
)

// lineEnds converts CR and CR LF to LF.
type lineEnds struct {
	r  io.Reader
	cr bool // the last byte that was read is CR
}

func (l *lineEnds) Read(b []byte) (int, error) {
	n, err := l.r.Read(b)
	if !l.cr && bytes.IndexByte(b[:n], '\r') < 0 {
		return n, err
	}
	kept := b[:0]
	for _, c := range b[:n] {
		switch {
		case c == '\r':
			kept = append(kept, '\n')
		case c != '\n' || !l.cr:
			kept = append(kept, c)
		}
		l.cr = c == '\r'
	}
	return len(kept), err
}

// UTF16 returns nil if r does not begin with the byte order mark of UTF-16 (RFC 2781).
// If it does, UTF16 returns a reader of the same text in UTF-8, without the mark. Half
// of a surrogate pair, or of a character, is an error that wraps [ErrMalformed].
func UTF16(r *bufio.Reader) io.Reader {
	start, _ := r.Peek(2)
	u := &utf16Reader{r: r}
	switch string(start) {
	case "\xff\xfe":
		u.order = binary.LittleEndian
	case "\xfe\xff":
		u.order = binary.BigEndian
	default:
		return nil
	}
	r.Discard(2)
	return u
}

type utf16Reader struct {
	r     *bufio.Reader
	order binary.ByteOrder
	at    int64  // byte after the mark
	text  []byte // in UTF-8, not yet read
	buf   []byte
}

func (u *utf16Reader) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	u.buf = u.buf[:0]
	if len(u.text) == 0 {
		if err := u.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(b, u.text)
	u.text = u.text[n:]
	return n, nil
}

// fill decodes at least one character.
func (u *utf16Reader) fill() error {
	for len(u.buf) < 4096 {
		c, err := u.rune()
		if err != nil && len(u.buf) > 0 && err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		u.buf = utf8.AppendRune(u.buf, c)
	}
	u.text = u.buf
	return nil
}

func (u *utf16Reader) rune() (rune, error) {
	c, err := u.unit()
	if err != nil || !utf16.IsSurrogate(c) {
		return c, err
	}
	low, err := u.unit()
	if err != nil && err != io.EOF {
		return 0, err
	}
	if c = utf16.DecodeRune(c, low); c == utf8.RuneError {
		return 0, malformedf("half of a surrogate pair at byte %d of UTF-16", u.at)
	}
	return c, nil
}

func (u *utf16Reader) unit() (rune, error) {
	var b [2]byte
	n, err := io.ReadFull(u.r, b[:])
	if u.at += int64(n); err == io.ErrUnexpectedEOF {
		err = fmt.Errorf("half of a character at the end: %w", malformed("truncated UTF-16"))
	}
	return rune(u.order.Uint16(b[:])), err
}
