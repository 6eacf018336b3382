// Package vectors tests a module with golden vectors: inputs and their expected
// results.
//
//	file, err := vectors.Parse(text)
//	...
//	tester := vectors.NewTester(module, runtime.Settings{})
//	defer tester.Close()
//	for _, v := range file.Vectors {
//		result, err := tester.Try(ctx, v)
//		...
//		if !v.Holds(&result) {
//			fmt.Println(v.Name, v.Diff(&result))
//		}
//	}
//
// A file is a JSON object with the key "vectors", whose value is an array:
//
//	{"vectors": [
//	  {"name": "two squared", "chunk": 2, "output": 4},
//	  {"name": "no number", "chunk": "x", "failure": {"class": "guest", "message": "not an integer"}},
//	  {"name": "the sum of 2 * 2 and 3 * 3", "chunks": [2, 3], "output": 13},
//	  {"name": "outputs add up", "aggregate": [4, 9], "ids": [7, "a"], "output": 13},
//	  {"name": "partial sums add up", "merge": [13, 25], "output": 38}
//	]}
//
// A vector, or the file for all, may have a "context" for setup, a "seed" of random
// bytes and an "about" for people. Items are in the exact JSON form of package
// notation.
package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// MaxSize is the limit of a file of vectors, in bytes.
const MaxSize = 64 << 20

// File is a file of golden vectors. [Parse] makes it.
type File struct {
	About   string
	Context json.RawMessage // for vectors without their own; nil means null
	Seed    *uint64         // for vectors without their own; nil means 0
	Vectors []*Vector       // at least one; their names are distinct
}

// Vector is one call or several, and the expected result. It has one of Chunk,
// Chunks, Aggregate and Merge, and one of Output and Failure; see [ParseDraft].
type Vector struct {
	Name      string            `json:"name"`
	About     string            `json:"about,omitempty"`
	Context   json.RawMessage   `json:"context,omitempty"`
	Seed      *uint64           `json:"seed,omitempty"`
	Chunk     json.RawMessage   `json:"chunk,omitempty"`     // for exec
	Chunks    []json.RawMessage `json:"chunks,omitempty"`    // for exec, each, and then aggregate over their outputs
	Aggregate []json.RawMessage `json:"aggregate,omitempty"` // outputs for aggregate
	IDs       []abi.ID          `json:"ids,omitempty"`       // of these outputs, in id order; none means their positions
	Merge     []json.RawMessage `json:"merge,omitempty"`     // results of aggregate for merge
	Output    json.RawMessage   `json:"output,omitempty"`    // expected output, byte for byte
	Failure   *Failure          `json:"failure,omitempty"`

	function string   // the function that is called last
	inputs   [][]byte // chunks, outputs or results
	context  []byte   // nil means null
	seed     uint64
	output   []byte // nil if a failure, or nothing, is expected
}

// Failure is an expected failure: it has this class, and its message contains this
// message.
type Failure struct {
	Class   abi.Class `json:"class"`
	Message string    `json:"message,omitempty"`
}

// Holds reports whether a result is the expected one.
func (v *Vector) Holds(got *guest.CallResult) bool {
	if got.Failure != nil {
		return v.Failure != nil && v.Failure.Class == got.Failure.Class && strings.Contains(got.Failure.Message, v.Failure.Message)
	}
	return v.output != nil && bytes.Equal(v.output, got.Output)
}

// Expect makes a result the expected one.
func (v *Vector) Expect(got *guest.CallResult) {
	v.Output, v.Failure, v.output = nil, nil, nil
	if got.Failure != nil {
		v.Failure = &Failure{got.Failure.Class, got.Failure.Message}
		return
	}
	v.Output, v.output = notation.AppendExact(nil, got.Output), slices.Clone(got.Output)
}

// Diff returns the difference of a result from the expected one as lines: "- "
// before expected lines, "+ " before lines of the result. The lines contain data of
// the guest, which may be anything: escape them before they reach a terminal.
func (v *Vector) Diff(got *guest.CallResult) []string {
	if v.output != nil && got.Failure == nil {
		return notation.Diff(v.output, got.Output)
	}
	var lines []string
	switch {
	case v.output != nil:
		lines = notation.Marked("- ", notation.Lines(v.output))
	case v.Failure != nil:
		lines = []string{fmt.Sprintf("- failure %s: %s", v.Failure.Class, v.Failure.Message)}
	default:
		lines = []string{"- nothing yet"}
	}
	lines = notation.Bounded(lines)
	if f := got.Failure; f != nil {
		return append(lines, fmt.Sprintf("+ failure %s: %s", f.Class, f.Message))
	}
	return append(lines, notation.Bounded(notation.Marked("+ ", notation.Lines(got.Output)))...)
}

// Encode returns the file with each part of a vector on a line of its own. [Parse]
// reads the same vectors from it; the layout of the inputs is lost.
func (f *File) Encode() []byte {
	w := writer{}
	w.WriteString("{\n")
	if f.About != "" {
		w.part("  ", "about", quoted(f.About))
	}
	if f.Context != nil {
		w.part("  ", "context", f.Context)
	}
	if f.Seed != nil {
		w.part("  ", "seed", fmt.Append(nil, *f.Seed))
	}
	w.part("  ", "vectors", []byte("["))
	for i, v := range f.Vectors {
		if i > 0 {
			w.WriteString(",")
		}
		w.WriteString("\n    {\n")
		w.vector(v)
		w.WriteString("\n    }")
	}
	w.WriteString("\n  ]\n}\n")
	return w.Bytes()
}

// writer writes the parts of objects, each on a line of its own.
type writer struct{ bytes.Buffer }

func (w *writer) part(indent, key string, value []byte) {
	if !bytes.HasSuffix(w.Bytes(), []byte("{\n")) {
		w.WriteString(",\n")
	}
	fmt.Fprintf(w, "%s%q: %s", indent, key, spaced(value))
}

func (w *writer) vector(v *Vector) {
	part := func(key string, value []byte) {
		if value != nil {
			w.part("      ", key, value)
		}
	}
	part("name", quoted(v.Name))
	if v.About != "" {
		part("about", quoted(v.About))
	}
	part("context", v.Context)
	if v.Seed != nil {
		part("seed", fmt.Append(nil, *v.Seed))
	}
	part("chunk", v.Chunk)
	part("chunks", list(v.Chunks))
	part("aggregate", list(v.Aggregate))
	part("ids", idList(v.IDs))
	part("merge", list(v.Merge))
	part("output", v.Output)
	part("failure", v.Failure.json())
}

func (f *Failure) json() []byte {
	if f == nil {
		return nil
	}
	text := append([]byte(`{"class":`), quoted(string(f.Class))...)
	if f.Message != "" {
		text = append(append(text, `,"message":`...), quoted(f.Message)...)
	}
	return append(text, '}')
}

func quoted(s string) []byte { return notation.AppendQuoted(nil, s) }

// list returns an array, or nil for a nil list, which differs from an empty array.
func list(values []json.RawMessage) []byte {
	if values == nil {
		return nil
	}
	b := []byte("[")
	for i, value := range values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, value...)
	}
	return append(b, ']')
}

func idList(ids []abi.ID) []byte {
	if ids == nil {
		return nil
	}
	text, err := json.Marshal(ids)
	if err != nil {
		panic(err) // They were read from JSON.
	}
	return text
}

// spaced returns JSON on one line, with a space after each comma and colon.
func spaced(value []byte) []byte {
	var b []byte
	inString := false
	for i := 0; i < len(value); i++ {
		c := value[i]
		switch {
		case inString && c == '\\':
			b = append(b, c, value[i+1])
			i++
			continue
		case c == '"':
			inString = !inString
		case !inString && strings.IndexByte(" \t\r\n", c) >= 0:
			continue
		}
		b = append(b, c)
		if !inString && (c == ',' || c == ':') {
			b = append(b, ' ')
		}
	}
	return b
}

// ErrNothingExpected reports a vector that expects neither an output nor a failure:
// see [ParseDraft].
var ErrNothingExpected = errors.New("missing expectation: want an output or a failure")
