package notation

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"strings"
	"unicode/utf8"
)

// CheckNames refuses JSON in which an object has a duplicate key, or a key that
// differs only in case from the name of a field of v. Package encoding/json accepts
// both, and takes the last of two keys; other programs read something else. v is a
// value of the type that the text is decoded into. Other keys that are not names of
// fields are accepted. The error is a [SyntaxError], or one of package json.
func CheckNames(text []byte, v any) error {
	names := map[string]string{} // by their lower case
	addNames(names, reflect.TypeOf(v), map[reflect.Type]bool{})
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	c := nameChecker{names: names}
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) && len(c.open) == 0 {
			return nil
		}
		if err == nil {
			err = c.token(token)
		}
		if err != nil {
			return err
		}
	}
}

// CheckKeys is [CheckNames] for the keys of the outermost object only: its values are
// any JSON.
func CheckKeys(object []byte, v any) error {
	names := map[string]string{}
	addNames(names, reflect.TypeOf(v), map[reflect.Type]bool{})
	d := json.NewDecoder(bytes.NewReader(object))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(err, syntaxErrorf("want an object"))
	}
	keys := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err == nil {
			err = checkName(key.(string), keys, names)
		}
		if err == nil {
			err = d.Decode(new(json.RawMessage))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// addNames adds the names of the fields of a type, and of the types in it.
func addNames(names map[string]string, t reflect.Type, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for i := range t.NumField() {
		name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
		if name != "" && name != "-" {
			names[strings.ToLower(name)] = name
		}
		addNames(names, t.Field(i).Type, seen)
	}
}

// nameChecker checks the tokens of a text.
type nameChecker struct {
	names map[string]string
	open  []container // the innermost last
}

// container is an open array or object.
type container struct {
	keys map[string]bool // the keys so far; nil in an array
	key  bool            // a key is next
}

// token handles one more token.
func (c *nameChecker) token(token json.Token) error {
	top := len(c.open) - 1
	if key, isText := token.(string); isText && top >= 0 && c.open[top].key {
		c.open[top].key = false
		return checkName(key, c.open[top].keys, c.names)
	}
	switch token {
	case json.Delim('{'):
		c.open = append(c.open, container{map[string]bool{}, true})
		return nil
	case json.Delim('['):
		c.open = append(c.open, container{})
		return nil
	case json.Delim('}'), json.Delim(']'):
		c.open = c.open[:top]
	}
	if top = len(c.open) - 1; top >= 0 { // a value ended
		c.open[top].key = c.open[top].keys != nil
	}
	return nil
}

// checkName refuses a duplicate key, and a key that differs only in case from a
// name.
func checkName(key string, others map[string]bool, names map[string]string) error {
	if others[key] {
		return syntaxErrorf("duplicate key %.64q in one object", key)
	}
	others[key] = true
	for lower, name := range names {
		if key != name && strings.EqualFold(key, lower) {
			return syntaxErrorf("unknown key %.64q: want %q", key, name)
		}
	}
	return nil
}

// Foreign returns a description of the encoding if it is one other than plain UTF-8
// that editors and shells produce: UTF-16, or UTF-8 with a byte order mark.
// Otherwise it returns "".
func Foreign(text []byte) string {
	switch {
	case bytes.HasPrefix(text, []byte("\xff\xfe")), bytes.HasPrefix(text, []byte("\xfe\xff")), isWide(text):
		return "UTF-16, want UTF-8"
	case bytes.HasPrefix(text, []byte("\xef\xbb\xbf")):
		return "a byte order mark, want UTF-8 without one"
	}
	return ""
}

// isWide reports whether a text is UTF-16 without a mark: if it is ASCII, every
// other byte is 0.
func isWide(text []byte) bool {
	const most = 64
	text = text[:min(len(text), most)&^1]
	if len(text) < 4 {
		return false
	}
	for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
		wide := true
		for i := 0; i < len(text); i += 2 {
			if c := order.Uint16(text[i:]); c == 0 || c >= utf8.RuneSelf {
				wide = false
			}
		}
		if wide {
			return true
		}
	}
	return false
}
