package web

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// form is a media type of a body, and so the encoding of its item.
type form string

const (
	formCBOR  form = "application/cbor" // RFC 8949, section 9.5
	formJSON  form = "application/json"
	formBytes form = "application/octet-stream" // the content of a byte string
	formText  form = "text/plain"               // the content of a text string
)

var forms = []form{formCBOR, formJSON, formBytes, formText}

const wantForms = "want application/cbor, application/json, application/octet-stream or text/plain"

// requestForm returns the form of the body of a request.
func requestForm(h *headers) (form, error) {
	f, err := mediaType(h)
	if err == nil && !slices.Contains(forms, f) {
		err = fmt.Errorf("invalid Content-Type %.80q: %s", first(h.contentType), wantForms)
	}
	return f, err
}

// mediaType returns the media type of a body. A content encoding is an error.
func mediaType(h *headers) (form, error) {
	if len(h.contentType) > 1 {
		return "", fmt.Errorf("duplicate Content-Type %.80q: want one", h.contentType[1])
	}
	value := first(h.contentType)
	if encoding := first(h.encoding); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", fmt.Errorf("invalid Content-Encoding %.40q: want a body that is not compressed", encoding)
	}
	for _, f := range forms { // most values are one of them
		if value == string(f) {
			return f, nil
		}
	}
	name, parameters, err := mime.ParseMediaType(value)
	if err != nil {
		return "", fmt.Errorf("invalid Content-Type %.80q: %s", value, wantForms)
	}
	if charset := parameters["charset"]; charset != "" && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "us-ascii") {
		return "", fmt.Errorf("invalid charset %.40q: want utf-8", charset)
	}
	return form(name), nil
}

// item converts a body to an item.
func (f form) item(body []byte) (item []byte, err error) {
	switch f {
	case formJSON:
		if len(bytes.TrimSpace(body)) == 0 {
			return nil, errors.New("the body is empty: want one JSON value")
		}
		if item, err = notation.AppendItem(nil, body); err != nil {
			return nil, fmt.Errorf("the body: %w", err)
		}
	case formBytes:
		return append(abi.AppendHead(make([]byte, 0, len(body)+9), abi.MajorBytes, uint64(len(body))), body...), nil
	case formText:
		if !utf8.Valid(body) {
			return nil, errors.New("the body is not text in UTF-8")
		}
		return append(abi.AppendHead(make([]byte, 0, len(body)+9), abi.MajorText, uint64(len(body))), body...), nil
	default:
		item = body
	}
	if err := abi.CheckItem(item); err != nil {
		return nil, fmt.Errorf("the body is not one CBOR item: %w", err)
	}
	return item, nil
}

// acceptedForms returns the forms in which a client wants the answer, best first (RFC
// 9110, section 12.5.1). If it accepts no supported form, they are the form of the
// request, own, and the forms that any output has.
func acceptedForms(values []string, own form) []form {
	switch {
	case len(values) == 0:
		return own.fallbacks()
	case len(values) == 1 && (values[0] == string(formCBOR) || values[0] == string(formJSON)): // most requests
		return form(values[0]).fallbacks()
	}
	ranges := mediaRanges(values)
	if len(ranges) == 0 {
		return own.fallbacks()
	}
	var accepted []mediaRange
	for _, f := range slices.Concat(own.fallbacks(), forms) {
		known := slices.ContainsFunc(accepted, func(a mediaRange) bool { return a.name == string(f) })
		if best := match(ranges, f); best.quality > 0 && !known {
			best.name = string(f)
			accepted = append(accepted, best)
		}
	}
	if len(accepted) == 0 {
		return own.fallbacks()
	}
	slices.SortStableFunc(accepted, func(a, b mediaRange) int {
		return cmp.Or(cmp.Compare(b.quality, a.quality), cmp.Compare(b.precision, a.precision), cmp.Compare(a.place, b.place))
	})
	best := make([]form, len(accepted))
	for i, a := range accepted {
		best[i] = form(a.name)
	}
	return best
}

// fallbacks returns a form, and the forms that any output has: CBOR has all of them. They
// are only read.
func (f form) fallbacks() []form {
	switch f {
	case formJSON:
		return onlyJSON
	case formBytes:
		return textFirst[1:]
	case formText:
		return textFirst
	}
	return textFirst[2:]
}

var (
	onlyJSON  = []form{formJSON}
	textFirst = []form{formText, formBytes, formCBOR}
)

// mediaRange is an element of Accept.
type mediaRange struct {
	name      string // */*, type/* or type/subtype
	quality   float64
	precision int // 0, 1 or 2 of type and subtype are given
	place     int // in the header, of those with both; otherwise, the request's form goes first
}

// maxRanges is how many elements of Accept are read.
const maxRanges = 64

func mediaRanges(values []string) (ranges []mediaRange) {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			name, parameters, err := mime.ParseMediaType(strings.TrimSpace(one))
			if err != nil || len(ranges) == maxRanges {
				continue
			}
			r := mediaRange{name: name, quality: 1, precision: 2 - strings.Count(name, "*")}
			if q, err := strconv.ParseFloat(parameters["q"], 64); err == nil {
				r.quality = q
			}
			if r.precision == 2 {
				r.place = len(ranges)
			}
			ranges = append(ranges, r)
		}
	}
	return ranges
}

// match returns the most precise range that a form is in; its quality is 0 if there is
// none.
func match(ranges []mediaRange, f form) (best mediaRange) {
	best.precision = -1
	for _, r := range ranges {
		kind, isKind := strings.CutSuffix(r.name, "/*")
		is := r.name == string(f) || r.name == "*/*" || isKind && strings.HasPrefix(string(f), kind+"/")
		if is && r.precision > best.precision {
			best = r
		}
	}
	return best
}

// writeOutput writes an output in the first form that can express it. If there is none,
// it writes nothing and returns an error.
func writeOutput(w http.ResponseWriter, accepted []form, output []byte) (err error) {
	for _, f := range accepted {
		var body []byte
		switch f {
		case formCBOR:
			body = output
		case formJSON:
			err = writeJSON(w, output)
			if _, ok := errors.AsType[*notation.FormError](err); ok {
				continue
			}
			return nil // an error of writing is the client's
		default:
			if body, err = stringBody(f, output); err != nil {
				continue
			}
		}
		h := w.Header()
		h["Content-Type"] = f.headerValue()
		if len(body) > ownLength {
			h["Content-Length"] = []string{strconv.Itoa(len(body))}
		}
		_, _ = w.Write(body) // an error is the client's
		return nil
	}
	return fmt.Errorf("the output cannot be sent as %s: %w", accepted[0], err)
}

// ownLength is the size of a body whose length net/http states itself.
const ownLength = 1024

// headerValue returns the value of Content-Type, shared by all answers.
func (f form) headerValue() []string {
	switch f {
	case formJSON:
		return jsonValue
	case formBytes:
		return bytesValue
	case formText:
		return textValue
	}
	return cborValue
}

var (
	cborValue  = []string{string(formCBOR)}
	jsonValue  = []string{string(formJSON)}
	bytesValue = []string{string(formBytes)}
	textValue  = []string{"text/plain; charset=utf-8"}
)

// stringBody returns the content of an output that is a string.
func stringBody(f form, output []byte) ([]byte, error) {
	content, major, ok := notation.Contents(output)
	switch {
	case !ok:
		return nil, errors.New("it is neither a byte nor a text string")
	case f == formText && (major != abi.MajorText || !utf8.Valid(content)):
		return nil, errors.New("it is not a text string")
	}
	return content, nil
}

// writeJSON writes an output as JSON. It writes nothing if JSON cannot express it.
func writeJSON(w http.ResponseWriter, output []byte) error {
	w.Header()["Content-Type"] = formJSON.headerValue()
	b := bufio.NewWriterSize(w, min(8<<10, max(512, 4*len(output))))
	if err := notation.WriteJSON(b, output); err != nil {
		return err
	}
	_ = b.WriteByte('\n')
	return b.Flush()
}
