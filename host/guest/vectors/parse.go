package vectors

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// ParseError describes a defect of a file, and its location.
type ParseError struct {
	Line, Column int // from 1; columns count bytes
	Err          error
}

// Error returns the location and the reason.
func (e *ParseError) Error() string { return fmt.Sprintf("%d:%d: %v", e.Line, e.Column, e.Err) }

// Unwrap returns the reason.
func (e *ParseError) Unwrap() error { return e.Err }

// Parse reads a file of at most [MaxSize] bytes. The error is a *[ParseError]; it
// wraps [ErrNothingExpected] if a vector has no expectation.
func Parse(text []byte) (*File, error) { return parseFile(text, false) }

// ParseDraft is like Parse, but accepts vectors without an expectation. Before
// [Vector.Expect], no result holds for them.
func ParseDraft(text []byte) (*File, error) { return parseFile(text, true) }

func parseFile(text []byte, draft bool) (*File, error) {
	if len(text) > MaxSize {
		return nil, &ParseError{1, 1, fmt.Errorf("file of vectors too large: more than %d bytes", MaxSize)}
	}
	f, offset, err := parse(text, draft)
	if err != nil {
		line, column := placeOf(text, offset)
		return nil, &ParseError{line, column, err}
	}
	return f, nil
}

// placeOf returns the line and the column of a byte.
func placeOf(text []byte, offset int64) (line, column int) {
	before := text[:min(max(offset, 0), int64(len(text)))]
	return 1 + bytes.Count(before, []byte("\n")), len(before) - bytes.LastIndexByte(before, '\n')
}

// parse also returns the offset of the byte that an error is about.
func parse(text []byte, draft bool) (f *File, offset int64, err error) {
	d := json.NewDecoder(bytes.NewReader(text))
	if !json.Valid(text) { // the decoder below reports the location
		err := json.Unmarshal(text, new(any))
		syntax, ok := errors.AsType[*json.SyntaxError](err)
		if !ok {
			return nil, 0, err
		}
		return nil, syntax.Offset - 1, syntax
	}
	if t, _ := d.Token(); t != json.Delim('{') {
		return nil, 0, errors.New(`invalid file of vectors: want an object with the key "vectors"`)
	}
	f = &File{}
	keys := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err == nil && keys[key.(string)] {
			err = fmt.Errorf("duplicate key %.64q", key)
		}
		if err != nil {
			return nil, d.InputOffset(), err
		}
		keys[key.(string)] = true
		if offset, err := f.parseKey(d, text, key.(string), draft); err != nil {
			return nil, offset, err
		}
	}
	if len(f.Vectors) == 0 {
		return nil, 0, errors.New(`no vectors under the key "vectors"`)
	}
	return f, 0, f.settle()
}

func (f *File) parseKey(d *json.Decoder, text []byte, key string, draft bool) (offset int64, err error) {
	if key == "vectors" {
		return f.parseList(d, text, draft)
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
		f.Seed = new(uint64)
		err = json.Unmarshal(value, f.Seed)
	case "context":
		f.Context = value
		_, err = notation.ParseExact(value)
	default:
		err = fmt.Errorf("unknown key %q: want about, context, seed or vectors", key)
	}
	return offset, err
}

func (f *File) parseList(d *json.Decoder, text []byte, draft bool) (offset int64, err error) {
	if t, _ := d.Token(); t != json.Delim('[') {
		return d.InputOffset(), errors.New("invalid vectors: want an array")
	}
	named := map[string]bool{}
	for d.More() {
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return d.InputOffset(), err
		}
		offset := d.InputOffset() - int64(len(raw))
		v, err := parseVector(raw, draft)
		if err == nil && named[v.Name] {
			err = errors.New("duplicate name")
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

// parseVector returns the parts of the vector that it could read, even with an
// error.
func parseVector(raw []byte, draft bool) (*Vector, error) {
	v := &Vector{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return v, errors.New(strings.TrimPrefix(err.Error(), "json: "))
	}
	if v.Name == "" {
		return v, errors.New("missing name")
	}
	if err := checkKeys(raw); err != nil {
		return v, err
	}
	if err := v.parseInputs(); err != nil {
		return v, err
	}
	return v, v.parseExpected(draft)
}

// checkKeys refuses duplicate keys of a vector and of its failure. Its other values are
// those of the guest.
func checkKeys(raw []byte) error {
	if err := notation.CheckKeys(raw, Vector{}); err != nil {
		return err
	}
	var expected struct {
		Failure json.RawMessage `json:"failure"`
	}
	if err := json.Unmarshal(raw, &expected); err != nil || len(expected.Failure) == 0 || expected.Failure[0] != '{' {
		return err
	}
	return notation.CheckKeys(expected.Failure, Failure{})
}

func (v *Vector) parseInputs() error {
	given := 0
	var errs []error
	take := func(key, function string, present bool, items []json.RawMessage) {
		if present {
			given++
			v.function = function
			errs = append(errs, v.addInputs(key, items))
		}
	}
	take("chunk", abi.ExportExec, v.Chunk != nil, []json.RawMessage{v.Chunk})
	take("chunks", abi.ExportAggregate, v.Chunks != nil, v.Chunks)
	take("aggregate", abi.ExportAggregate, v.Aggregate != nil, v.Aggregate)
	take("merge", abi.ExportMerge, v.Merge != nil, v.Merge)
	if err := errors.Join(errs...); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	if given != 1 {
		return fmt.Errorf("want exactly one of chunk, chunks, aggregate and merge, got %d", given)
	}
	if err := v.checkIDs(); err != nil {
		return err
	}
	if v.Context != nil {
		if _, err := notation.ParseExact(v.Context); err != nil {
			return fmt.Errorf("context: %w", err)
		}
	}
	return nil
}

func (v *Vector) addInputs(key string, items []json.RawMessage) error {
	for i, text := range items {
		item, err := notation.ParseExact(text)
		if err != nil {
			return fmt.Errorf("%s, element %d: %w", key, i, err)
		}
		v.inputs = append(v.inputs, item)
	}
	return nil
}

func (v *Vector) checkIDs() error {
	if v.IDs != nil && (v.Aggregate == nil || len(v.IDs) != len(v.Aggregate)) {
		return errors.New("invalid ids: want one for each output of aggregate")
	}
	for i := 1; i < len(v.IDs); i++ {
		if v.IDs[i-1].Compare(v.IDs[i]) >= 0 {
			return errors.New("invalid ids: want ascending order, integers by value, then texts")
		}
	}
	return nil
}

func (v *Vector) parseExpected(draft bool) (err error) {
	switch {
	case v.Output != nil && v.Failure != nil:
		return errors.New("both an output and a failure: want one of them")
	case v.Failure != nil && !slices.Contains(abi.Classes(), v.Failure.Class):
		return fmt.Errorf("unknown class of failure %q", v.Failure.Class)
	case v.Output != nil:
		if v.output, err = notation.ParseExact(v.Output); err != nil {
			return fmt.Errorf("output: %w", err)
		}
	case v.Failure == nil && !draft:
		return ErrNothingExpected
	}
	return nil
}

// settle copies the defaults of the file into each vector.
func (f *File) settle() error {
	for _, v := range f.Vectors {
		text := v.Context
		if text == nil {
			text = f.Context
		}
		if text != nil {
			item, err := notation.ParseExact(text)
			if err != nil {
				return err
			}
			if !bytes.Equal(item, abi.Null) { // setup gets null by default
				v.context = item
			}
		}
		for _, seed := range []*uint64{f.Seed, v.Seed} {
			if seed != nil {
				v.seed = *seed
			}
		}
	}
	return nil
}
