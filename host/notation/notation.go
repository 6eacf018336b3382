// Package notation converts CBOR items to and from forms for people and other
// programs: JSON, diagnostic notation, and cells of tables.
//
// There are two forms of JSON. [WriteJSON] writes the plain form of RFC 8949,
// section 6.1: any program reads it, but byte strings, tags and the like are
// converted to values of JSON. [AppendItem] reads it. [AppendExact] writes the
// exact form, which keeps every item: an item that JSON cannot represent becomes
// {"hex": its bytes}. [ParseExact] is its inverse, byte for byte.
//
//	item, err := notation.AppendItem(nil, []byte(`{"a": [1, 2.5]}`))
//	...
//	err = notation.WriteJSON(w, item) // {"a":[1,2.5]}
//
// Unless their documentation says otherwise, functions that take an item panic if
// it is not well-formed; [abi.CheckItem] checks it. All functions may be called at
// once from many goroutines.
package notation

import (
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// A FormError reports a well-formed item that a form cannot represent without loss.
// Its text is one line.
type FormError struct {
	Form string // such as "JSON" or "diagnostic notation"
	Err  error  // the part of the item that the form cannot represent
}

func (e *FormError) Error() string { return "cannot be written as " + e.Form + ": " + e.Err.Error() }
func (e *FormError) Unwrap() error { return e.Err }

// jsonForm is the Form of an error of [WriteJSON].
const jsonForm = "JSON"

// A reader reads the parts of a well-formed item in order.
type reader struct{ rest []byte }

// head reads the head of an item.
func (r *reader) head() abi.Head {
	h, err := abi.ReadHead(r.rest)
	if err != nil {
		panic(fmt.Sprintf("reading an item that was checked: %v", err))
	}
	r.rest = r.rest[h.Size:]
	return h
}

// bytes reads the contents of a string and returns them. If the string comes in
// parts, they are joined; otherwise the result is a part of the item.
func (r *reader) bytes(h abi.Head) []byte {
	if !h.Indefinite {
		b := r.rest[:h.Arg]
		r.rest = r.rest[h.Arg:]
		return b
	}
	var joined []byte
	for !r.atBreak() {
		joined = append(joined, r.bytes(r.head())...)
	}
	return joined
}

// atBreak skips a break and returns true, if one is next.
func (r *reader) atBreak() bool {
	if r.rest[0] != 0xff {
		return false
	}
	r.rest = r.rest[1:]
	return true
}

// more reports whether an array or map with the head h has an element or pair
// number n. After the last one it skips the break, if there is one.
func (r *reader) more(h abi.Head, n uint64) bool {
	return h.Indefinite && !r.atBreak() || !h.Indefinite && n < h.Arg
}

// item reads one item, and returns it.
func (r *reader) item() []byte {
	size, err := abi.ItemSize(r.rest)
	if err != nil {
		panic(fmt.Sprintf("reading an item that was checked: %v", err))
	}
	item := r.rest[:size]
	r.rest = r.rest[size:]
	return item
}

// Contents returns the contents of a byte string or a text, and its major type. If
// the string comes in parts, they are joined; otherwise the contents are a part of
// the item. ok is false if the item is neither.
func Contents(item []byte) (contents []byte, major byte, ok bool) {
	r := reader{rest: item}
	h := r.head()
	if h.Major != abi.MajorBytes && h.Major != abi.MajorText {
		return nil, h.Major, false
	}
	return r.bytes(h), h.Major, true
}
