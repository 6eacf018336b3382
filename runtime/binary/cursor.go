package binary

import (
	"fmt"
	"unicode/utf8"
)

// Problem is one reason why a module is refused, and its position.
type Problem struct {
	Offset int // of the byte in the file
	Reason string
}

// Error returns the reason and the position, in one line.
func (p *Problem) Error() string { return fmt.Sprintf("%s (at byte %d)", p.Reason, p.Offset) }

// cursor reads b from pos up to end. It keeps the first error; every later read
// returns zero, so callers check once for each loop and not for each byte.
type cursor struct {
	b        []byte
	pos, end int
	err      *Problem
}

func (c *cursor) failAt(offset int, format string, args ...any) {
	if c.err == nil {
		c.err = &Problem{offset, fmt.Sprintf(format, args...)}
	}
}

func (c *cursor) left() int { return c.end - c.pos }

func (c *cursor) byte(what string) byte {
	if c.err != nil {
		return 0
	}
	if c.pos >= c.end {
		c.failAt(c.pos, "truncated: want %s", what)
		return 0
	}
	c.pos++
	return c.b[c.pos-1]
}

// skip passes n bytes and returns them, without copying.
func (c *cursor) skip(n uint64, what string) []byte {
	if c.err != nil {
		return nil
	}
	if n > uint64(c.left()) {
		c.failAt(c.pos, "truncated: %s of %d bytes, but only %d are left", what, n, c.left())
		return nil
	}
	start := c.pos
	c.pos += int(n)
	return c.b[start:c.pos]
}

// u32 reads an unsigned LEB128 number of 32 bits.
func (c *cursor) u32(what string) uint32 {
	if c.pos < c.end && c.b[c.pos] < 0x80 && c.err == nil {
		c.pos++
		return uint32(c.b[c.pos-1])
	}
	return uint32(c.unsigned(32, what))
}

// unsigned reads an unsigned LEB128 number with at most the given number of
// bits. It has at most ceil(bits/7) bytes, and the unused bits of the last byte
// are 0.
func (c *cursor) unsigned(bits uint, what string) uint64 {
	start := c.pos
	var v uint64
	for shift := uint(0); ; shift += 7 {
		b := c.byte(what)
		if c.err != nil {
			return 0
		}
		if rest := bits - shift; rest < 7 && (b >= 0x80 || b>>rest != 0) {
			c.failAt(start, "%s is too large: want a number of at most %d bits", what, bits)
			return 0
		}
		v |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

// signed reads a signed LEB128 number with at most the given number of bits.
func (c *cursor) signed(bits uint, what string) int64 {
	start := c.pos
	var v int64
	for shift := uint(0); ; shift += 7 {
		b := c.byte(what)
		if c.err != nil {
			return 0
		}
		if rest := bits - shift; rest < 7 && !extendsSign(b, rest) {
			c.failAt(start, "%s is too large: want a number of at most %d bits", what, bits)
			return 0
		}
		v |= int64(b&0x7f) << shift
		if b < 0x80 {
			if used := shift + 7; used < 64 {
				v = v << (64 - used) >> (64 - used)
			}
			return v
		}
	}
}

// extendsSign reports whether b can be the last byte of a signed number of which
// rest bits are still missing: all higher bits repeat the sign.
func extendsSign(b byte, rest uint) bool {
	high := int8(b<<1) >> rest // bit 6 is the sign of the byte
	return b < 0x80 && (high == 0 || high == -1)
}

// count reads the length of a vector. More elements than max is an error, and so
// are more than fit in the rest of the file at size bytes each. Memory allocated
// for the vector is therefore bounded by the size of the file.
func (c *cursor) count(limit, size int, what string) int {
	start := c.pos
	n := c.u32("the number of " + what)
	switch {
	case c.err != nil:
	case uint64(n) > uint64(limit):
		c.failAt(start, "too many %s: %d, want at most %d", what, n, limit)
	case uint64(n)*uint64(size) > uint64(c.left()):
		c.failAt(start, "truncated: %d %s do not fit in the %d bytes left", n, what, c.left())
	default:
		return int(n)
	}
	return 0
}

// name reads a UTF-8 name.
func (c *cursor) name(what string) string {
	n := c.u32("the length of " + what)
	start := c.pos
	b := c.skip(uint64(n), what)
	if c.err == nil && !utf8.Valid(b) {
		c.failAt(start, "invalid UTF-8 in %s", what)
	}
	if c.err != nil {
		return ""
	}
	return string(b)
}
