package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// document is a receipt or a proof. Each has exactly one encoding.
type document interface{ check() error }

// encode returns the bytes of a document, at most limit.
func encode(d document, limit int) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if len(b) >= limit {
		return nil, fmt.Errorf("too large: more than %d bytes", limit)
	}
	return append(b, '\n'), err
}

// decode is the inverse of encode. Other bytes are refused with an error that wraps
// wrong.
func decode(b []byte, d document, limit int, wrong error) error {
	if len(b) > limit {
		return fmt.Errorf("%w: too large: more than %d bytes", wrong, limit)
	}
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(d); err != nil {
		return fmt.Errorf("%w: %s", wrong, jsonError(err))
	}
	own, err := encode(d, limit)
	if err != nil {
		return fmt.Errorf("%w: %w", wrong, err)
	}
	if line := firstDifference(own, b); line > 0 {
		return fmt.Errorf("%w: line %d is not in canonical form: it was changed, or written by another program", wrong, line)
	}
	return nil
}

func jsonError(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "truncated"
	}
	if field, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return "unknown field " + field
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// firstDifference returns the number of the first line, from 1, in which a and b
// differ, or 0 if they are equal.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return 0
	}
	la, lb := bytes.Split(a, []byte("\n")), bytes.Split(b, []byte("\n"))
	for i := range min(len(la), len(lb)) {
		if !bytes.Equal(la[i], lb[i]) {
			return i + 1
		}
	}
	return min(len(la), len(lb)) + 1
}
