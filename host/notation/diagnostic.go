package notation

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Limits of items that are shown.
const (
	// maxShown is the largest item that is shown as a whole, in bytes: its lines
	// may take many times as much. maxBrief is the limit for [Brief].
	maxShown = 64 << 10
	maxBrief = 300
	// shortLine is the longest array or map that is shown on one line.
	shortLine = 72

	contextLines = 2
	maxDiffLines = 40
	maxDiffLine  = 400
)

// diagnostic is the notation of RFC 8949, section 8.
var diagnostic = sync.OnceValue(func() cbor.DiagMode {
	mode, err := cbor.DiagOptions{
		MaxNestedLevels: 1024, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32,
	}.DiagMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
})

// Diagnose returns an item in diagnostic notation (RFC 8949, section 8), on one
// line. The error is a *[FormError] if a text is not UTF-8.
func Diagnose(item []byte) (string, error) {
	text, err := diagnostic().Diagnose(item)
	if err != nil {
		return "", &FormError{"diagnostic notation", err}
	}
	return text, nil
}

// Brief shows an item in diagnostic notation, or only the bytes around byte number
// at if the notation is long. The result is one line, and "" if the item is nil.
func Brief(item []byte, at int) string {
	if item == nil {
		return ""
	}
	if len(item) <= maxShown {
		if diag, err := diagnostic().Diagnose(item); err == nil && len(diag) <= maxBrief {
			return diag
		}
	}
	from := min(max(0, at-8), max(0, len(item)-1))
	to := min(len(item), from+maxBrief/4)
	return fmt.Sprintf("bytes %d-%d of %d: %x", from, to-1, len(item), item[from:to])
}

// FirstDifferent returns the index of the first byte in which a and b differ.
func FirstDifferent(a, b []byte) (at int) {
	for at < min(len(a), len(b)) && a[at] == b[at] {
		at++
	}
	return at
}

// Lines returns diagnostic notation of an item. The elements of long arrays and
// maps are on lines of their own. For an item beyond 64 KiB it returns the first
// bytes.
func Lines(item []byte) []string {
	if len(item) > maxShown {
		return []string{Brief(item, 0)}
	}
	text, err := diagnostic().Diagnose(item)
	if err != nil { // such as for a text that is not UTF-8
		text = fmt.Sprintf("cbor h'%x'", item)
	}
	r := reader{rest: item}
	h := r.head()
	if len(text) <= shortLine || err != nil || h.Indefinite || h.Major != abi.MajorArray && h.Major != abi.MajorMap {
		return []string{text}
	}
	brackets := "[]"
	if h.Major == abi.MajorMap {
		brackets = "{}"
	}
	lines := []string{brackets[:1]}
	for i := range h.Arg {
		element := r.element(h.Major)
		if i < h.Arg-1 {
			element[len(element)-1] += ","
		}
		for _, line := range element {
			lines = append(lines, "  "+line)
		}
	}
	return append(lines, brackets[1:])
}

// element reads an element of an array or a pair of a map, and returns its lines.
func (r *reader) element(major byte) []string {
	lines := Lines(r.item())
	if major == abi.MajorMap {
		value := Lines(r.item())
		lines[len(lines)-1] += ": " + value[0]
		lines = append(lines, value[1:]...)
	}
	return lines
}

// Diff shows the difference of got from want in lines of diagnostic notation. Each
// line begins with "- ", "+ " or two spaces.
func Diff(want, got []byte) []string {
	if len(want) > maxShown || len(got) > maxShown {
		at := FirstDifferent(want, got)
		return []string{"- " + Brief(want, at), "+ " + Brief(got, at)}
	}
	a, b := Lines(want), Lines(got)
	if slices.Equal(a, b) { // longer heads than needed, or strings of indefinite length
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
	return Bounded(slices.Concat(
		Marked("  ", a[start:prefix]),
		Marked("- ", a[prefix:len(a)-suffix]),
		Marked("+ ", b[prefix:len(b)-suffix]),
		Marked("  ", a[len(a)-suffix:min(len(a), len(a)-suffix+contextLines)])))
}

// Marked puts a mark before each line, and cuts very long lines.
func Marked(mark string, from []string) (lines []string) {
	for _, line := range from {
		if len(line) > maxDiffLine {
			line = fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(line[:maxDiffLine], ""), len(line))
		}
		lines = append(lines, mark+line)
	}
	return lines
}

// Bounded cuts a difference of very many lines.
func Bounded(lines []string) []string {
	if rest := len(lines) - maxDiffLines; rest > 0 {
		lines = append(lines[:maxDiffLines], fmt.Sprintf("  … %d more lines", rest))
	}
	return lines
}
