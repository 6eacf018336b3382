package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// vectorFile is a file of golden vectors.
type vectorFile struct {
	About   string          `json:"about,omitempty"`
	Context json.RawMessage `json:"context,omitempty"` // of vectors that have none of their own
	Seed    uint64          `json:"seed,omitempty"`    // the same
	Vectors []*vector       `json:"-"`

	hasSeed bool
}

// vector is one call, or several, and what must come of it.
type vector struct {
	Name      string            `json:"name"`
	About     string            `json:"about,omitempty"`
	Context   json.RawMessage   `json:"context,omitempty"`
	Seed      *uint64           `json:"seed,omitempty"`
	Chunk     json.RawMessage   `json:"chunk,omitempty"`     // for exec
	Chunks    []json.RawMessage `json:"chunks,omitempty"`    // for exec, and then aggregate
	Aggregate []json.RawMessage `json:"aggregate,omitempty"` // outputs for aggregate
	IDs       []abi.ID          `json:"ids,omitempty"`       // of these outputs; none = their positions
	Merge     []json.RawMessage `json:"merge,omitempty"`     // partial results for merge
	Output    json.RawMessage   `json:"output,omitempty"`
	Failure   *wantFailure      `json:"failure,omitempty"`

	function string   // that is called last
	inputs   [][]byte // chunks, outputs or partial results
	context  []byte   // nil = null
	seed     uint64
	output   []byte // nil where a failure, or nothing, is expected
}

// wantFailure is a failure that is expected: of this class, with a message that
// this one is part of.
type wantFailure struct {
	Class   abi.Class `json:"class"`
	Message string    `json:"message,omitempty"`
}

// maxVectors is the limit of a file of vectors, in bytes.
const maxVectors = 64 << 20

// readVectors reads and checks a file of vectors. With update, a vector needs
// nothing that is expected.
func readVectors(path string, update bool) (*vectorFile, error) {
	text, err := readBounded(path, maxVectors, "a file of vectors")
	if err != nil {
		return nil, err
	}
	f, offset, err := parseVectors(text, update)
	if err != nil {
		line, column := placeOf(text, offset)
		return nil, refuse("%s:%d:%d: %w", path, line, column, err)
	}
	return f, nil
}

// placeOf returns the line and the column of a byte, both from 1.
func placeOf(text []byte, offset int64) (line, column int) {
	before := text[:min(max(offset, 0), int64(len(text)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}

// parseVectors returns the byte at which an error is.
func parseVectors(text []byte, update bool) (f *vectorFile, offset int64, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if !json.Valid(text) { // whatever it is, it is found with its place
		err := json.Unmarshal(text, &f)
		syntax, ok := errors.AsType[*json.SyntaxError](err)
		if !ok {
			return nil, 0, err
		}
		return nil, syntax.Offset - 1, syntax
	}
	if t, _ := d.Token(); t != json.Delim('{') {
		return nil, 0, errors.New(`a file of vectors is an object with the key "vectors"`)
	}
	f = &vectorFile{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return nil, d.InputOffset(), err
		}
		if offset, err := f.parseKey(d, text, key.(string), update); err != nil {
			return nil, offset, err
		}
	}
	if len(f.Vectors) == 0 {
		return nil, 0, errors.New(`there are no vectors under the key "vectors"`)
	}
	return f, 0, f.settle()
}

func (f *vectorFile) parseKey(d *json.Decoder, text []byte, key string, update bool) (offset int64, err error) {
	if key == "vectors" {
		return f.parseList(d, text, update)
	}
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return d.InputOffset(), err
	}
	offset = d.InputOffset() - int64(len(value))
	switch key {
	case "about":
		err = json.Unmarshal(value, &f.About)
	case "seed":
		f.hasSeed = true
		err = json.Unmarshal(value, &f.Seed)
	case "context":
		f.Context = value
		_, err = itemOfJSON(value)
	default:
		err = fmt.Errorf("unknown key %q: there are about, context, seed and vectors", key)
	}
	return offset, err
}

func (f *vectorFile) parseList(d *json.Decoder, text []byte, update bool) (offset int64, err error) {
	if t, _ := d.Token(); t != json.Delim('[') {
		return d.InputOffset(), errors.New("vectors are an array")
	}
	named := map[string]bool{}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return d.InputOffset(), err
		}
		offset := d.InputOffset() - int64(len(raw))
		v, err := parseVector(raw, update)
		if err == nil && named[v.Name] {
			err = errors.New("another vector has this name")
		}
		named[v.Name] = true
		if err != nil {
			if v.Name == "" {
				return offset, fmt.Errorf("vector %d: %w", len(f.Vectors)+1, err)
			}
			return offset, fmt.Errorf("vector %q: %w", v.Name, err)
		}
		f.Vectors = append(f.Vectors, v)
	}
	_, err = d.Token()
	return d.InputOffset(), err
}

// parseVector returns what could be read of the vector also with an error.
func parseVector(raw []byte, update bool) (*vector, error) {
	v := &vector{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return v, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if v.Name == "" {
		return v, errors.New("it needs a name")
	}
	if err := v.parseInputs(); err != nil {
		return v, err
	}
	return v, v.parseExpected(update)
}

func (v *vector) parseInputs() error {
	given := []string{}
	take := func(key, function string, present bool, items []json.RawMessage) error {
		if !present {
			return nil
		}
		given = append(given, key)
		v.function = function
		for i, text := range items {
			item, err := itemOfJSON(text)
			if err != nil {
				return fmt.Errorf("%s, element %d: %w", key, i, err)
			}
			v.inputs = append(v.inputs, item)
		}
		return nil
	}
	if err := errors.Join(
		take("chunk", abi.ExportExec, v.Chunk != nil, []json.RawMessage{v.Chunk}),
		take("chunks", abi.ExportAggregate, v.Chunks != nil, v.Chunks),
		take("aggregate", abi.ExportAggregate, v.Aggregate != nil, v.Aggregate),
		take("merge", abi.ExportMerge, v.Merge != nil, v.Merge)); err != nil {
		return err
	}
	if len(given) != 1 {
		return fmt.Errorf("it needs exactly one of chunk, chunks, aggregate and merge, and has %d", len(given))
	}
	if v.IDs != nil && (v.Aggregate == nil || len(v.IDs) != len(v.Aggregate)) {
		return errors.New("ids name the outputs of aggregate: as many as there are")
	}
	for i := 1; i < len(v.IDs); i++ {
		if v.IDs[i-1].Compare(v.IDs[i]) >= 0 {
			return errors.New("ids are not in id order, each once: integers by value, then texts")
		}
	}
	if v.Context != nil {
		if _, err := itemOfJSON(v.Context); err != nil {
			return fmt.Errorf("context: %w", err)
		}
	}
	return nil
}

func (v *vector) parseExpected(update bool) (err error) {
	switch {
	case v.Output != nil && v.Failure != nil:
		return errors.New("it expects an output and a failure: one of them can be")
	case v.Failure != nil && !slices.Contains(abi.Classes(), v.Failure.Class):
		return fmt.Errorf("there is no class %q of failure", v.Failure.Class)
	case v.Output != nil:
		if v.output, err = itemOfJSON(v.Output); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	case v.Failure == nil && !update:
		return errors.New("it expects neither an output nor a failure; --update fills in what comes")
	}
	return nil
}

// settle gives each vector what the file has for all.
func (f *vectorFile) settle() error {
	for _, v := range f.Vectors {
		text := v.Context
		if text == nil {
			text = f.Context
		}
		if text != nil {
			item, err := itemOfJSON(text)
			if err != nil {
				return err
			}
			if !bytes.Equal(item, abi.Null) { // which is what setup gets anyhow
				v.context = item
			}
		}
		v.seed = f.Seed
		if v.Seed != nil {
			v.seed = *v.Seed
		}
	}
	return nil
}

// entries is what aggregate is given for outputs with ids.
func entries(ids []abi.ID, outputs [][]byte) []byte {
	b := abi.AppendHead(nil, abi.MajorArray, uint64(len(outputs)))
	for i, output := range outputs {
		id := abi.IntID(uint64(i))
		if ids != nil {
			id = ids[i]
		}
		b = abi.AppendEntry(b, id, output)
	}
	return b
}

// array is what merge is given.
func array(items [][]byte) []byte {
	return append(abi.AppendHead(nil, abi.MajorArray, uint64(len(items))), bytes.Join(items, nil)...)
}

// writeVectors replaces the file at path, all at once.
func writeVectors(path string, f *vectorFile) error {
	t, err := openTarget(resolve(path), nil)
	if err != nil {
		return err
	}
	err = t.write(func(w *bufio.Writer) error { return f.write(w) })
	if err != nil && t.temp != "" {
		err = errors.Join(err, t.file.Close(), os.Remove(t.temp))
	}
	return err
}

// write writes the file with each part of a vector on a line of its own. Inputs
// keep their values; how they were laid out is lost.
func (f *vectorFile) write(out io.Writer) error {
	var b bytes.Buffer
	b.WriteString("{\n")
	part := func(indent, key string, value []byte) {
		if !bytes.HasSuffix(b.Bytes(), []byte("{\n")) {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, "%s%q: %s", indent, key, spaced(value))
	}
	quoted := func(s string) []byte { return appendQuoted(nil, s) }
	if f.About != "" {
		part("  ", "about", quoted(f.About))
	}
	if f.Context != nil {
		part("  ", "context", f.Context)
	}
	if f.hasSeed {
		part("  ", "seed", fmt.Append(nil, f.Seed))
	}
	part("  ", "vectors", []byte("["))
	for i, v := range f.Vectors {
		if i > 0 {
			b.WriteString(",")
		}
		b.WriteString("\n    {\n")
		for _, p := range v.parts() {
			part("      ", p.key, p.value)
		}
		b.WriteString("\n    }")
	}
	b.WriteString("\n  ]\n}\n")
	_, err := out.Write(b.Bytes())
	return err
}

type vectorPart struct {
	key   string
	value []byte
}

func (v *vector) parts() (parts []vectorPart) {
	add := func(key string, present bool, value any) {
		if present {
			text, err := json.Marshal(value)
			if err != nil {
				panic(err) // each was JSON, or is a plain struct
			}
			parts = append(parts, vectorPart{key, text})
		}
	}
	raw := func(key string, value json.RawMessage) {
		if value != nil {
			parts = append(parts, vectorPart{key, value})
		}
	}
	list := func(key string, values []json.RawMessage) {
		if values != nil {
			parts = append(parts, vectorPart{key, slices.Concat([]byte("["), bytes.Join(rawBytes(values), []byte(",")), []byte("]"))})
		}
	}
	parts = append(parts, vectorPart{"name", appendQuoted(nil, v.Name)})
	if v.About != "" {
		parts = append(parts, vectorPart{"about", appendQuoted(nil, v.About)})
	}
	raw("context", v.Context)
	add("seed", v.Seed != nil, v.Seed)
	raw("chunk", v.Chunk)
	list("chunks", v.Chunks)
	list("aggregate", v.Aggregate)
	add("ids", v.IDs != nil, v.IDs)
	list("merge", v.Merge)
	raw("output", v.Output)
	if v.Failure != nil {
		text := append([]byte(`{"class":`), appendQuoted(nil, string(v.Failure.Class))...)
		if v.Failure.Message != "" {
			text = append(append(text, `,"message":`...), appendQuoted(nil, v.Failure.Message)...)
		}
		parts = append(parts, vectorPart{"failure", append(text, '}')})
	}
	return parts
}

func rawBytes(values []json.RawMessage) (all [][]byte) {
	for _, v := range values {
		all = append(all, v)
	}
	return all
}

// spaced returns JSON on one line, with a space behind each comma and colon.
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
