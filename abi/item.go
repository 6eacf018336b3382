package abi

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// Major types of CBOR (RFC 8949, section 3.1).
const (
	MajorUint   byte = 0
	MajorNegint byte = 1
	MajorBytes  byte = 2
	MajorText   byte = 3
	MajorArray  byte = 4
	MajorMap    byte = 5
	MajorTag    byte = 6
	MajorSimple byte = 7
)

// MaxDepth is the maximum nesting of arrays, maps and tags.
const MaxDepth = 256

// breakByte ends an item of indefinite length.
const breakByte = 0xff

// A SyntaxError says why bytes are not one well-formed CBOR item, and at which
// offset.
type SyntaxError struct {
	Offset int // in bytes, from the start of the item
	Reason string
}

func (e *SyntaxError) Error() string { return fmt.Sprintf("%s at byte %d", e.Reason, e.Offset) }

// Head is the head of a CBOR item: its major type and argument.
type Head struct {
	Major      byte
	Indefinite bool   // a string, array or map that ends with a break
	Arg        uint64 // value, length, count, tag number or bits, by Major
	Size       int    // bytes of the head itself: 1, 2, 3, 5 or 9
}

// ReadHead reads the head at the start of b. The error is
// [io.ErrUnexpectedEOF] if b ends within the head, and otherwise a
// *[SyntaxError].
func ReadHead(b []byte) (Head, error) {
	return headAt(b, 0)
}

func headAt(b []byte, at int) (Head, error) {
	if at >= len(b) {
		return Head{}, io.ErrUnexpectedEOF
	}
	h := Head{Major: b[at] >> 5, Size: 1}
	info := b[at] & 0x1f
	rest := b[at+1:]
	switch {
	case info < 24:
		h.Arg = uint64(info)
		return h, nil
	case info < 28:
		width := 1 << (info - 24)
		if len(rest) < width {
			return Head{}, io.ErrUnexpectedEOF
		}
		h.Size += width
		switch width {
		case 1:
			h.Arg = uint64(rest[0])
			if h.Major == MajorSimple && h.Arg < 32 {
				return Head{}, &SyntaxError{at, fmt.Sprintf("simple value %d in two bytes", h.Arg)}
			}
		case 2:
			h.Arg = uint64(binary.BigEndian.Uint16(rest))
		case 4:
			h.Arg = uint64(binary.BigEndian.Uint32(rest))
		case 8:
			h.Arg = binary.BigEndian.Uint64(rest)
		}
		return h, nil
	case info == 31 && b[at] == breakByte:
		return Head{}, &SyntaxError{at, "break outside an item of indefinite length"}
	case info == 31 && h.Major >= MajorBytes && h.Major <= MajorMap:
		h.Indefinite = true
		return h, nil
	default:
		return Head{}, &SyntaxError{at, fmt.Sprintf("reserved additional information %d", info)}
	}
}

// ItemSize returns the size in bytes of the well-formed CBOR item (RFC 8949,
// appendix C) at the start of b; more bytes may follow it. The error is
// [io.ErrUnexpectedEOF] if b ends within the item, so that a caller with more
// input can try again, and a *[SyntaxError] if no further input can help. Only
// well-formedness and [MaxDepth] are checked, nothing is allocated, and a
// declared length is not trusted beyond the end of b.
func ItemSize(b []byte) (int, error) {
	return itemEnd(b, 0, 0)
}

// plainSize is the size in bytes of an item by its first byte, for items that
// are well-formed whatever their other bytes are: numbers, short strings, simple
// values and floats. It is 0 for all other items. Nearly all items are plain.
var plainSize = func() (sizes [256]uint8) {
	for b := range sizes {
		info := b & 0x1f
		switch major := byte(b >> 5); {
		case info < 24 && (major == MajorBytes || major == MajorText):
			sizes[b] = uint8(1 + info)
		case info < 24 && (major == MajorUint || major == MajorNegint || major == MajorSimple):
			sizes[b] = 1
		case info < 28 && (major == MajorUint || major == MajorNegint || major == MajorSimple && info > 24):
			sizes[b] = uint8(1 + 1<<(info-24))
		}
	}
	return sizes
}()

// plainEnd returns the offset after the item at offset at, if the item is in
// [plainSize] and b has all of it, and otherwise 0.
func plainEnd(b []byte, at int) int {
	if at < len(b) {
		if size := int(plainSize[b[at]]); size != 0 && size <= len(b)-at {
			return at + size
		}
	}
	return 0
}

// itemEnd returns the offset after the item at offset at.
func itemEnd(b []byte, at, depth int) (int, error) {
	if end := plainEnd(b, at); end != 0 {
		return end, nil
	}
	h, err := headAt(b, at)
	if err != nil {
		return 0, err
	}
	next := at + h.Size
	switch h.Major {
	case MajorBytes, MajorText:
		return stringEnd(b, at, next, h)
	case MajorArray, MajorMap, MajorTag:
		if depth >= MaxDepth {
			return 0, &SyntaxError{at, fmt.Sprintf("more than %d levels of nesting", MaxDepth)}
		}
		return containerEnd(b, next, depth+1, h)
	default:
		return next, nil
	}
}

func stringEnd(b []byte, at, next int, h Head) (int, error) {
	if !h.Indefinite {
		if h.Arg > uint64(len(b)-next) {
			return 0, io.ErrUnexpectedEOF
		}
		return next + int(h.Arg), nil
	}
	for {
		if next < len(b) && b[next] == breakByte {
			return next + 1, nil
		}
		part, err := headAt(b, next)
		if err != nil {
			return 0, err
		}
		if part.Major != h.Major || part.Indefinite {
			return 0, &SyntaxError{next, "a part of an indefinite string is not a definite string of its type"}
		}
		if next, err = stringEnd(b, at, next+part.Size, part); err != nil {
			return 0, err
		}
	}
}

func containerEnd(b []byte, next, depth int, h Head) (int, error) {
	if h.Indefinite {
		return indefiniteEnd(b, next, depth, h)
	}
	count := h.Arg
	switch h.Major {
	case MajorTag:
		count = 1
	case MajorMap:
		if count > uint64(len(b)) { // also keeps count*2 from overflowing
			return 0, moreOrMalformed(b, next, depth)
		}
		count *= 2
	}
	if count > uint64(len(b)-next) { // each item takes at least one byte
		return 0, moreOrMalformed(b, next, depth)
	}
	for range count {
		if end := plainEnd(b, next); end != 0 {
			next = end
			continue
		}
		var err error
		if next, err = itemEnd(b, next, depth); err != nil {
			return 0, err
		}
	}
	return next, nil
}

// moreOrMalformed returns the error for a container that declares more items
// than b has bytes for: a syntax error in the items that are there comes before
// the missing rest.
func moreOrMalformed(b []byte, next, depth int) error {
	for {
		var err error
		if next, err = itemEnd(b, next, depth); err != nil {
			return err
		}
	}
}

func indefiniteEnd(b []byte, next, depth int, h Head) (int, error) {
	for items := 0; ; items++ {
		if next < len(b) && b[next] == breakByte {
			if h.Major == MajorMap && items%2 == 1 {
				return 0, &SyntaxError{next, "a map ends between a key and its value"}
			}
			return next + 1, nil
		}
		var err error
		if next, err = itemEnd(b, next, depth); err != nil {
			return 0, err
		}
	}
}

// CheckItem returns nil if b is exactly one well-formed CBOR item. Otherwise the
// error is one line with the reason and the offset in bytes.
func CheckItem(b []byte) error {
	if len(b) == 0 {
		return errors.New("empty: not a CBOR item")
	}
	n, err := ItemSize(b)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("truncated: the CBOR item does not end within its %d bytes", len(b))
	case err != nil:
		return err
	case n < len(b):
		return fmt.Errorf("%d more bytes after the CBOR item that ends at byte %d", len(b)-n, n)
	}
	return nil
}

// text returns the value of the text item at the start of b, which must be
// well-formed. The parts of a text of indefinite length are joined. ok is false
// if the item is not a text, and valid is false if a part is not UTF-8.
func text(b []byte) (s string, ok, valid bool) {
	h, err := headAt(b, 0)
	if err != nil || h.Major != MajorText {
		return "", false, false
	}
	if !h.Indefinite {
		part := b[h.Size : h.Size+int(h.Arg)]
		return string(part), true, utf8.Valid(part)
	}
	valid = true
	var joined []byte
	for b = b[h.Size:]; b[0] != breakByte; {
		h, _ := headAt(b, 0)
		part := b[h.Size : h.Size+int(h.Arg)]
		joined = append(joined, part...)
		valid = valid && utf8.Valid(part)
		b = b[h.Size+int(h.Arg):]
	}
	return string(joined), true, valid
}

// Errors of [FindID].
var (
	ErrIDTwice = errors.New("duplicate id key")
	ErrIDType  = errors.New("invalid id: want an unsigned integer or a text in UTF-8")
)

// FindID returns the id in a chunk, which must be one well-formed CBOR item: the
// value of the given text key if the chunk is a map that has it. ok is false if
// the chunk has no such key. The error is [ErrIDTwice] or [ErrIDType].
func FindID(chunk []byte, key string) (id ID, ok bool, err error) {
	h, err := headAt(chunk, 0)
	if err != nil || h.Major != MajorMap {
		return ID{}, false, err
	}
	rest := chunk[h.Size:]
	for n := uint64(0); h.Indefinite && rest[0] != breakByte || !h.Indefinite && n < h.Arg; n++ {
		k, v, more := cutPair(rest)
		rest = more
		if !isKey(k, key) {
			continue
		}
		if ok {
			return ID{}, false, ErrIDTwice
		}
		if id, ok = idOf(v); !ok {
			return ID{}, false, ErrIDType
		}
	}
	return id, ok, nil
}

func cutPair(b []byte) (key, value, rest []byte) {
	k := plainEnd(b, 0)
	if k == 0 {
		k, _ = ItemSize(b)
	}
	v := plainEnd(b, k)
	if v == 0 {
		v, _ = itemEnd(b, k, 0)
		v = max(v, k)
	}
	return b[:k], b[k:v], b[v:]
}

// isKey reports whether item is the text key. It allocates only for keys of
// indefinite length.
func isKey(item []byte, key string) bool {
	if n := item[0] ^ MajorText<<5; n < 24 { // n is the length of a short text
		return int(n) == len(key) && string(item[1:]) == key
	}
	if h, _ := headAt(item, 0); h.Major == MajorText && !h.Indefinite {
		return string(item[h.Size:]) == key
	}
	s, isText, _ := text(item)
	return isText && s == key
}

func idOf(item []byte) (ID, bool) {
	if h, _ := headAt(item, 0); h.Major == MajorUint {
		return IntID(h.Arg), true
	}
	s, isText, valid := text(item)
	return TextID(s), isText && valid
}
