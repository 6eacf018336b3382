package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// document is a receipt or a proof. One sequence of bytes stands for each.
type document interface{ check() error }

// encode returns the bytes that stand for a document, at most limit.
func encode(d document, limit int) ([]byte, error) {
	if err := d.check(); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(d, "", "  ")
	if len(b) >= limit {
		return nil, fmt.Errorf("it would be larger than %d bytes", limit)
	}
	return append(b, '\n'), err
}

// decode is the inverse of encode. Other bytes are refused with wrong.
func decode(b []byte, d document, limit int, wrong error) error {
	if len(b) > limit {
		return fmt.Errorf("%w: it is larger than %d bytes", wrong, limit)
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
		return fmt.Errorf("%w in its one form: line %d differs: it was changed, or written by something else", wrong, line)
	}
	return nil
}

func jsonError(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "it is empty"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return "it ends in the middle"
	}
	if field, unknown := strings.CutPrefix(err.Error(), "json: unknown field "); unknown {
		return "it has a field that is not known: " + field
	}
	return strings.TrimPrefix(err.Error(), "json: ")
}

// firstDifference returns the first line, from 1, in which a and b differ; 0
// where they are the same.
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
