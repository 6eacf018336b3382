package abi

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ID names a chunk within its job: an unsigned integer or a text. The zero ID
// is the integer 0. IDs are comparable with ==.
type ID struct {
	text   string
	number uint64
	isText bool
}

// IntID returns the id with the value n.
func IntID(n uint64) ID { return ID{number: n} }

// TextID returns the id with the value s, which must be valid UTF-8.
func TextID(s string) ID { return ID{text: s, isText: true} }

// Int returns the value of an integer id; ok is false for a text.
func (id ID) Int() (n uint64, ok bool) { return id.number, !id.isText }

// Text returns the value of a text id; ok is false for an integer.
func (id ID) Text() (s string, ok bool) { return id.text, id.isText }

// Compare compares in id order: integers by value, then texts bytewise. It
// returns -1, 0 or 1 if id is before, equal to or after other.
func (id ID) Compare(other ID) int {
	switch {
	case id.isText != other.isText:
		if id.isText {
			return 1
		}
		return -1
	case id.isText:
		return strings.Compare(id.text, other.text)
	default:
		return cmp.Compare(id.number, other.number)
	}
}

// AppendCBOR appends the id in its shortest (deterministic) encoding, the only
// one that the host writes (RFC 8949, section 4.2.1).
func (id ID) AppendCBOR(dst []byte) []byte {
	if id.isText {
		return AppendText(dst, id.text)
	}
	return AppendHead(dst, MajorUint, id.number)
}

// AppendOrderKey appends bytes whose bytewise order is id order: the shortest
// encoding of an integer, or 0x60 and the text.
func (id ID) AppendOrderKey(dst []byte) []byte {
	if id.isText {
		return append(append(dst, MajorText<<5), id.text...)
	}
	return AppendHead(dst, MajorUint, id.number)
}

// String returns the id for people: a number, or a quoted text.
func (id ID) String() string {
	if id.isText {
		return strconv.Quote(id.text)
	}
	return strconv.FormatUint(id.number, 10)
}

// MarshalJSON returns the id as a JSON number or string.
func (id ID) MarshalJSON() ([]byte, error) {
	if id.isText {
		return json.Marshal(id.text)
	}
	return strconv.AppendUint(nil, id.number, 10), nil
}

// UnmarshalJSON is the inverse of MarshalJSON.
func (id *ID) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*id = ID{isText: true}
		return json.Unmarshal(b, &id.text)
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	*id = IntID(n)
	return err
}

// ParseID reads an id as people write it: a number is an integer, a text in
// double quotes (as in [ID.String]) is that text, and anything else is a text
// without quotes.
func ParseID(s string) (ID, error) {
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		return IntID(n), nil
	}
	if len(s) >= 2 && s[0] == '"' {
		text, err := strconv.Unquote(s)
		if err != nil {
			return ID{}, fmt.Errorf("invalid id %s: want a text in double quotes, as in Go", s)
		}
		s = text
	}
	if !utf8.ValidString(s) {
		return ID{}, fmt.Errorf("invalid id %q: want UTF-8", s)
	}
	return TextID(s), nil
}

// ParseOrderKey is the inverse of [ID.AppendOrderKey].
func ParseOrderKey(key []byte) (id ID, ok bool) {
	if len(key) > 0 && key[0] == MajorText<<5 {
		return TextID(string(key[1:])), utf8.Valid(key[1:])
	}
	h, err := ReadHead(key)
	if err != nil || h.Major != MajorUint || h.Size != len(key) {
		return ID{}, false
	}
	return IntID(h.Arg), true
}
