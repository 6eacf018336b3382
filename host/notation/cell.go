package notation

import (
	"bufio"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// csvForm is the Form of errors about cells.
const csvForm = "CSV"

// Cell returns an item as a cell of a table: a text as it is, null as an empty
// cell, and any other item as [WriteJSON] writes it, without the quotes of a
// string. The error is a *[FormError], as there.
func Cell(item []byte) (string, error) {
	if text, major, ok := Contents(item); ok && major == abi.MajorText {
		if !utf8.Valid(text) {
			return "", &FormError{csvForm, fmt.Errorf("%w: %.64q", errNotUTF8, text)}
		}
		return string(text), nil
	}
	var cell strings.Builder
	b := bufio.NewWriter(&cell)
	if err := WriteJSON(b, item); err != nil {
		return "", err
	}
	b.Flush()
	s := cell.String()
	switch {
	case s == "null":
		return "", nil
	case s[0] == '"':
		_ = json.Unmarshal([]byte(s), &s) // always valid: it was just written
	}
	return s, nil
}

// A Field is a key of a map and its value, one item.
type Field struct {
	Key   string
	Value []byte
}

// Fields returns the pairs of a map in their order, if its keys are texts and its
// values are neither arrays nor maps, tags aside. Keys may occur twice. ok is false
// for any other item. The error is a *[FormError] if a key is not UTF-8.
func Fields(item []byte) (fields []Field, ok bool, err error) {
	r := reader{rest: item}
	h := r.head()
	if h.Major != abi.MajorMap {
		return nil, false, nil
	}
	for n := uint64(0); r.more(h, n); n++ {
		k := r.head()
		if k.Major != abi.MajorText {
			return nil, false, nil
		}
		key := r.bytes(k)
		value := r.item()
		if !isScalar(value) {
			return nil, false, nil
		}
		if !utf8.Valid(key) && err == nil {
			err = &FormError{csvForm, fmt.Errorf("%w: %.64q", errNotUTF8, key)}
		}
		fields = append(fields, Field{string(key), value})
	}
	return fields, true, err
}

// isScalar reports whether an item is neither array nor map, tags aside.
func isScalar(item []byte) bool {
	r := reader{rest: item}
	h := r.head()
	for h.Major == abi.MajorTag {
		h = r.head()
	}
	return h.Major != abi.MajorArray && h.Major != abi.MajorMap
}
