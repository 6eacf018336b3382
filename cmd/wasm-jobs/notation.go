package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Items in files for people are JSON: what JSON can say stands there as it is,
// and any other item, also within arrays and maps, as {"hex": its bytes}. A
// number with a point or an exponent is a float, any other an integer. What is
// written so has the shortest heads and floats, and its keys in the order in
// which they stand.

// hexKey is the only key of an object that stands for an item in hex.
const hexKey = "hex"

// shortest writes a float in its shortest form.
var shortest = sync.OnceValue(func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
})

// itemOfJSON returns the CBOR item that one JSON value stands for.
func itemOfJSON(text []byte) ([]byte, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	item, err := appendJSONValue(nil, d)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("more than one value")
	}
	if err := abi.CheckItem(item); err != nil {
		return nil, err // nested too deep
	}
	return item, nil
}

func appendJSONValue(dst []byte, d *json.Decoder) ([]byte, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case json.Delim:
		if v == '{' {
			return appendJSONObject(dst, d)
		}
		return appendJSONArray(dst, d)
	case json.Number:
		return appendNumber(dst, string(v))
	case string:
		return abi.AppendText(dst, v), nil
	case bool:
		if v {
			return append(dst, 0xf5), nil
		}
		return append(dst, 0xf4), nil
	default:
		return append(dst, abi.Null...), nil
	}
}

func appendJSONArray(dst []byte, d *json.Decoder) ([]byte, error) {
	var elements []byte
	n := uint64(0)
	for ; d.More(); n++ {
		var err error
		if elements, err = appendJSONValue(elements, d); err != nil {
			return nil, err
		}
	}
	_, err := d.Token()
	return append(abi.AppendHead(dst, abi.MajorArray, n), elements...), err
}

func appendJSONObject(dst []byte, d *json.Decoder) ([]byte, error) {
	var pairs, value []byte
	onlyHex := false
	n := uint64(0)
	for ; d.More(); n++ {
		key, err := d.Token()
		if err != nil {
			return nil, err
		}
		if value, err = appendJSONValue(value[:0], d); err != nil {
			return nil, err
		}
		onlyHex = n == 0 && key == hexKey && value[0]>>5 == abi.MajorText
		pairs = append(abi.AppendText(pairs, key.(string)), value...)
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if onlyHex {
		h, _ := abi.ReadHead(value)
		return appendHexItem(dst, string(value[h.Size:]))
	}
	return append(abi.AppendHead(dst, abi.MajorMap, n), pairs...), nil
}

func appendHexItem(dst []byte, text string) ([]byte, error) {
	item, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		return nil, fmt.Errorf("%q: %w", text, err)
	}
	if err := abi.CheckItem(item); err != nil {
		return nil, fmt.Errorf("%q is no CBOR item: %w", text, err)
	}
	return append(dst, item...), nil
}

func appendNumber(dst []byte, text string) ([]byte, error) {
	if strings.ContainsAny(text, ".eE") {
		f, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s is beyond floats of 64 bits", text)
		}
		return appendFloat(dst, f), nil
	}
	n, ok := new(big.Int).SetString(text, 10)
	major := abi.MajorUint
	if ok && n.Sign() < 0 {
		major = abi.MajorNegint
		n.Not(n)
	}
	if !ok || !n.IsUint64() {
		return nil, fmt.Errorf("%s is beyond integers of CBOR: write it in hex", text)
	}
	return abi.AppendHead(dst, major, n.Uint64()), nil
}

func appendFloat(dst []byte, f float64) []byte {
	b, err := shortest().Marshal(f)
	if err != nil {
		panic(err) // floats always encode
	}
	return append(dst, b...)
}

// appendItemJSON appends the JSON that itemOfJSON makes the item of, byte for
// byte, and returns what follows the item, which is well-formed.
func appendItemJSON(dst, item []byte) (text, rest []byte) {
	h, err := abi.ReadHead(item)
	if err != nil {
		panic(fmt.Sprintf("writing an item that was checked: %v", err))
	}
	simple := h.Major == abi.MajorSimple
	if !simple && (h.Indefinite || len(abi.AppendHead(nil, h.Major, h.Arg)) != h.Size) {
		return appendItemHex(dst, item)
	}
	body := item[h.Size:]
	switch {
	case h.Major == abi.MajorUint:
		return strconv.AppendUint(dst, h.Arg, 10), body
	case h.Major == abi.MajorNegint:
		n := new(big.Int).SetUint64(h.Arg)
		return append(dst, n.Not(n).String()...), body
	case h.Major == abi.MajorText && utf8.Valid(body[:h.Arg]):
		return appendQuoted(dst, string(body[:h.Arg])), body[h.Arg:]
	case h.Major == abi.MajorArray:
		return appendArrayJSON(dst, body, h.Arg)
	case h.Major == abi.MajorMap && textKeys(body, h.Arg):
		return appendMapJSON(dst, body, h.Arg)
	case simple:
		return appendSimpleJSON(dst, item, h)
	}
	return appendItemHex(dst, item)
}

func appendArrayJSON(dst, body []byte, n uint64) (text, rest []byte) {
	dst = append(dst, '[')
	for i := range n {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst, body = appendItemJSON(dst, body)
	}
	return append(dst, ']'), body
}

func appendMapJSON(dst, body []byte, n uint64) (text, rest []byte) {
	dst = append(dst, '{')
	for i := range n {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst, body = appendItemJSON(dst, body)
		dst = append(dst, ": "...)
		dst, body = appendItemJSON(dst, body)
	}
	return append(dst, '}'), body
}

// textKeys reports whether the keys of n pairs are texts that JSON can say, and
// not such that would be taken for hex.
func textKeys(pairs []byte, n uint64) bool {
	only := n == 1
	for range n {
		h, _ := abi.ReadHead(pairs)
		if h.Major != abi.MajorText || h.Indefinite || len(abi.AppendHead(nil, h.Major, h.Arg)) != h.Size {
			return false
		}
		key := pairs[h.Size : h.Size+int(h.Arg)]
		pairs = pairs[h.Size+int(h.Arg):]
		if !utf8.Valid(key) || only && string(key) == hexKey && pairs[0]>>5 == abi.MajorText {
			return false
		}
		size, _ := abi.ItemSize(pairs)
		pairs = pairs[size:]
	}
	return true
}

func appendSimpleJSON(dst, item []byte, h abi.Head) (text, rest []byte) {
	rest = item[h.Size:]
	switch item[0] {
	case 0xf4:
		return append(dst, "false"...), rest
	case 0xf5:
		return append(dst, "true"...), rest
	case 0xf6:
		return append(dst, "null"...), rest
	case 0xf9, 0xfa, 0xfb:
		var f float64
		if cbor.Unmarshal(item[:h.Size], &f) == nil && !math.IsNaN(f) && !math.IsInf(f, 0) && bytes.Equal(appendFloat(nil, f), item[:h.Size]) {
			text := strconv.FormatFloat(f, 'g', -1, 64)
			if !strings.ContainsAny(text, ".e") {
				text += ".0"
			}
			return append(dst, text...), rest
		}
	}
	return appendItemHex(dst, item)
}

func appendItemHex(dst, item []byte) (text, rest []byte) {
	size, _ := abi.ItemSize(item)
	return fmt.Appendf(dst, `{"%s": "%x"}`, hexKey, item[:size]), item[size:]
}

func appendQuoted(dst []byte, s string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// shortLine is what an array or map may have to stand on one line.
const shortLine = 72

// diagnosisLines returns diagnostic notation of a well-formed item, with the
// elements of what is long on lines of their own. Of an item beyond
// maxDiagnosed, whose lines may take many times as much, it is the first bytes.
func diagnosisLines(item []byte) []string {
	if len(item) > maxDiagnosed {
		return []string{notation(item, 0)}
	}
	text, err := diagnostic().Diagnose(item)
	if err != nil { // such as a text that is not UTF-8
		text = fmt.Sprintf("cbor h'%x'", item)
	}
	h, _ := abi.ReadHead(item)
	if len(text) <= shortLine || err != nil || h.Indefinite || h.Major != abi.MajorArray && h.Major != abi.MajorMap {
		return []string{text}
	}
	brackets, body := "[]", item[h.Size:]
	if h.Major == abi.MajorMap {
		brackets = "{}"
	}
	lines := []string{brackets[:1]}
	next := func() []string {
		size, _ := abi.ItemSize(body)
		element := body[:size]
		body = body[size:]
		return diagnosisLines(element)
	}
	for i := range h.Arg {
		element := next()
		if h.Major == abi.MajorMap {
			value := next()
			element[len(element)-1] += ": " + value[0]
			element = append(element, value[1:]...)
		}
		if i < h.Arg-1 {
			element[len(element)-1] += ","
		}
		for _, line := range element {
			lines = append(lines, "  "+line)
		}
	}
	return append(lines, brackets[1:])
}

// Bounds of a difference that is shown.
const (
	contextLines = 2
	maxDiffLines = 40
	maxDiffLine  = 400
)

// diffItems shows how got differs from want, in lines of diagnostic notation.
func diffItems(want, got []byte) []string {
	if len(want) > maxDiagnosed || len(got) > maxDiagnosed {
		at := firstDifferent(want, got)
		return []string{"- " + notation(want, at), "+ " + notation(got, at)}
	}
	a, b := diagnosisLines(want), diagnosisLines(got)
	if slices.Equal(a, b) { // heads that are longer than needed, or indefinite lengths of strings
		a, b = []string{fmt.Sprintf("h'%x'", want)}, []string{fmt.Sprintf("h'%x'", got)}
	}
	prefix := 0
	for prefix < min(len(a), len(b)) && a[prefix] == b[prefix] {
		prefix++
	}
	suffix := 0
	for suffix < min(len(a), len(b))-prefix && a[len(a)-1-suffix] == b[len(b)-1-suffix] {
		suffix++
	}
	start := max(0, prefix-contextLines)
	return bounded(slices.Concat(
		marked("  ", a[start:prefix]),
		marked("- ", a[prefix:len(a)-suffix]),
		marked("+ ", b[prefix:len(b)-suffix]),
		marked("  ", a[len(a)-suffix:min(len(a), len(a)-suffix+contextLines)])))
}

// marked puts a mark before each line, and cuts those that are very long.
func marked(mark string, from []string) (lines []string) {
	for _, line := range from {
		if len(line) > maxDiffLine {
			line = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(line[:maxDiffLine], ""), len(line))
		}
		lines = append(lines, mark+line)
	}
	return lines
}

// bounded cuts a difference that has very many lines.
func bounded(lines []string) []string {
	if rest := len(lines) - maxDiffLines; rest > 0 {
		lines = append(lines[:maxDiffLines], fmt.Sprintf("  … %d more lines", rest))
	}
	return lines
}
