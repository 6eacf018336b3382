// Package wasmjobs is the SDK for guests in Go, for version 1 of the guest ABI of
// wasm-jobs. Copy this file into your project. It needs
// github.com/fxamacker/cbor/v2, whose struct tags name the fields.
//
//	type Chunk struct {
//		N uint64 `cbor:"n"`
//	}
//
//	var run = wasmjobs.Exec(func(c Chunk) (uint64, error) { return c.N * c.N, nil })
//
//	//go:wasmexport exec
//	func exec(ptr, size uint32) uint64 { return run.Serve(ptr, size) }
//
//	func main() {}
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o square.wasm
//
// The export alloc is in this file. Your own file exports exec, and aggregate,
// merge and setup if the guest has them: the host calls functions that are
// exported.
//
// If a function returns an error, the call fails permanently, unless the error
// comes from [Retryable] or [Requeue]. Input that does not fit the type of the
// function is an error too, which names the place: null, a missing, unknown or
// duplicate key, and a value of another type are invalid. On the host, test the
// same code with go test: [Function.Call] does the part of a host.
package wasmjobs

import (
	"encoding"
	"errors"
	"fmt"
	"iter"
	"math"
	"math/big"
	"os"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
	"unsafe"

	"github.com/fxamacker/cbor/v2"
)

// inGuest is false in tests on the host. Code for guests is not linked there, so
// the imports need no second file with a build tag.
const inGuest = runtime.GOOS == "wasip1"

// Function is one function of the ABI with typed values.
type Function struct {
	call func(input []byte) (output []byte, err error)
}

// Serve returns the result of the exported function. The host passes both
// arguments. A panic is logged and then ends the call as a trap.
func (f *Function) Serve(_, size uint32) uint64 {
	defer func() {
		if p := recover(); p != nil {
			Log(LevelError, "panic: %v", p)
			panic(p)
		}
	}()
	output, err := f.Call(input[:size])
	if err != nil {
		message := []byte(err.Error())
		if inGuest {
			hostFail(kindOf(err), address(message), uint32(len(message)))
		}
		return 0
	}
	result = output
	return uint64(address(result))<<32 | uint64(len(result))
}

// Call calls the function with one CBOR item and returns another. It is for
// tests. The output may share memory with the input.
func (f *Function) Call(input []byte) (output []byte, err error) {
	if err := decoding.Wellformed(input); err != nil {
		return nil, err
	}
	return f.call(input)
}

// Exec makes the function exec. It takes a chunk and returns its output.
func Exec[Chunk, Output any](fn func(Chunk) (Output, error)) *Function {
	decode, encode := decoderOf[Chunk]("chunk"), encoderOf[Output]()
	return &Function{func(input []byte) ([]byte, error) {
		chunk, err := decode(input)
		if err != nil {
			return nil, err
		}
		output, err := fn(chunk)
		if err != nil {
			return nil, err
		}
		return encode(output)
	}}
}

// Aggregate makes the function aggregate. It takes all outputs with their ids, in
// id order, and returns the job's result. Each output is decoded when the
// iteration reaches it. If one does not fit the type, the iteration ends, and the
// call fails with an error that names it.
func Aggregate[Output, Result any](fn func(iter.Seq2[ID, Output]) (Result, error)) *Function {
	decode, encode := decoderOf[Output]("output"), encoderOf[Result]()
	return &Function{func(input []byte) ([]byte, error) {
		var failed error
		outputs := func(yield func(ID, Output) bool) {
			failed = elements(input, func(r *reader, _ int) (more bool, err error) {
				id, err := r.entry()
				if err != nil {
					return false, err
				}
				output, err := decode(r.item())
				if err != nil {
					return false, fmt.Errorf("chunk %v: %w", id, err)
				}
				return yield(id, output), nil
			})
		}
		return folded(fn, outputs, &failed, encode)
	}}
}

// Outputs returns the outputs without their ids.
func Outputs[Output any](outputs iter.Seq2[ID, Output]) iter.Seq[Output] {
	return func(yield func(Output) bool) {
		for _, output := range outputs {
			if !yield(output) {
				return
			}
		}
	}
}

// Merge makes the function merge. It takes results of aggregate and of itself, in
// order, and returns one result. Results are decoded as in [Aggregate].
func Merge[Result any](fn func(iter.Seq[Result]) (Result, error)) *Function {
	decode, encode := decoderOf[Result]("partial result"), encoderOf[Result]()
	return &Function{func(input []byte) ([]byte, error) {
		var failed error
		partials := func(yield func(Result) bool) {
			failed = elements(input, func(r *reader, i int) (more bool, err error) {
				partial, err := decode(r.item())
				if err != nil {
					return false, fmt.Errorf("number %d: %w", i, err)
				}
				return yield(partial), nil
			})
		}
		return folded(fn, partials, &failed, encode)
	}}
}

// Setup makes the function setup. It takes the job's context, which is null if the
// job has none: a pointer accepts null, as nil.
func Setup[Context any](fn func(Context) error) *Function {
	decode := decoderOf[Context]("context")
	return &Function{func(input []byte) ([]byte, error) {
		context, err := decode(input)
		if err == nil {
			err = fn(context)
		}
		return []byte{0xf6}, err
	}}
}

func folded[Seq, Result any](fn func(Seq) (Result, error), inputs Seq, failed *error, encode func(Result) ([]byte, error)) ([]byte, error) {
	r, err := fn(inputs)
	if *failed != nil {
		err = *failed
	}
	if err != nil {
		return nil, err
	}
	return encode(r)
}

// elements calls each with a reader at every element of an array, until it
// returns false.
func elements(input []byte, each func(r *reader, i int) (more bool, err error)) error {
	r := &reader{data: input}
	h := r.head()
	if h.major != majorArray {
		return errors.New("want an array")
	}
	for i := 0; r.more(h, i); i++ {
		if more, err := each(r, i); err != nil || !more {
			return err
		}
	}
	return nil
}

// ID is a chunk's id: Text if IsText is true, and Int otherwise.
type ID struct {
	Int    uint64
	Text   string
	IsText bool
}

// String returns the number, or the text in quotes.
func (id ID) String() string {
	if id.IsText {
		return strconv.Quote(id.Text)
	}
	return strconv.FormatUint(id.Int, 10)
}

// Failures.

// The kinds of failure of the ABI.
const (
	permanent uint32 = 0
	retryable uint32 = 1
	requeue   uint32 = 2
)

type failure struct {
	kind uint32
	error
}

func (f *failure) Unwrap() error { return f.error }

// Retryable marks an error after which another attempt may succeed. The failure is
// counted.
func Retryable(err error) error { return &failure{retryable, err} }

// Requeue marks an error after which the chunk should be tried again later, without
// counting a failure.
func Requeue(err error) error { return &failure{requeue, err} }

func kindOf(err error) uint32 {
	var f *failure
	if errors.As(err, &f) {
		return f.kind
	}
	return permanent
}

// Level is the level of a log line, as in log/slog.
type Level int32

// The levels of log lines.
const (
	LevelDebug Level = -4
	LevelInfo  Level = 0
	LevelWarn  Level = 4
	LevelError Level = 8
)

// Log logs one line, formatted by fmt.Sprintf. In tests it goes to standard error.
func Log(level Level, format string, args ...any) {
	line := fmt.Appendf(nil, format, args...)
	if inGuest {
		hostLog(int32(level), address(line), uint32(len(line)))
		return
	}
	fmt.Fprintf(os.Stderr, "log %d: %s\n", level, line)
}

// Heartbeat tells the host that the guest still works, which renews its time limit.
// false means that the attempt is being cancelled, and that the function should
// return. In tests it is always true.
func Heartbeat() bool {
	return !inGuest || hostHeartbeat() != 0
}

// The interface to the host.

// input and result keep the bytes of the current call reachable, because the
// garbage collector does not know that the host uses them.
var input, result []byte

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return address(input)
}

var _ = alloc // on the host nothing calls it

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

// A function without a body needs a linkname if it is not an import.

//go:wasmimport wasm_jobs fail
//go:linkname hostFail
func hostFail(kind, ptr, size uint32)

//go:wasmimport wasm_jobs log
//go:linkname hostLog
func hostLog(level int32, ptr, size uint32)

//go:wasmimport wasm_jobs heartbeat
//go:linkname hostHeartbeat
func hostHeartbeat() uint32

// Decoding and encoding.

// maxDepth is the maximum nesting of items of the ABI.
const maxDepth = 256

var decoding = must(cbor.DecOptions{
	DupMapKey:         cbor.DupMapKeyEnforcedAPF,
	FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	MaxArrayElements:  math.MaxInt32,
	MaxMapPairs:       math.MaxInt32,
	MaxNestedLevels:   maxDepth,
}.DecMode())

// encodingMode is the deterministic encoding of RFC 8949, section 4.2. A nil slice
// is an empty array, because null is invalid for a slice.
var encodingMode = must(func() (cbor.EncMode, error) {
	o := cbor.CoreDetEncOptions()
	o.NilContainers = cbor.NilContainerAsEmpty
	return o.EncMode()
}())

func must[T any](mode T, err error) T {
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
}

// decoderOf returns the decoder of a T. what names the item in errors. Everything
// that can be prepared is, because the host takes its snapshot afterwards.
func decoderOf[T any](what string) func(item []byte) (T, error) {
	if reflect.TypeFor[T]() == reflect.TypeFor[Value]() {
		return func(item []byte) (v T, err error) {
			*any(&v).(*Value), err = decodeValue(item)
			return v, err
		}
	}
	s := preparedShape[T]()
	return func(item []byte) (v T, err error) {
		if wrong := s.check(&reader{data: item}); wrong != nil {
			return v, errors.New(what + wrong.path + ": " + wrong.what)
		}
		if err := decoding.Unmarshal(item, &v); err != nil {
			return v, fmt.Errorf("%s: %w", what, err)
		}
		return v, nil
	}
}

func encoderOf[T any]() func(T) ([]byte, error) {
	if reflect.TypeFor[T]() == reflect.TypeFor[Value]() {
		return func(v T) ([]byte, error) { return any(v).(Value).append(nil, 0) }
	}
	prepare(func() { _, _ = encodingMode.Marshal(*new(T)) })
	return func(v T) ([]byte, error) { return encodingMode.Marshal(v) }
}

// shapes are the prepared shapes, by type.
var shapes sync.Map

func preparedShape[T any]() *shape {
	t := reflect.TypeFor[T]()
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := shapeOf(t, map[reflect.Type]*shape{})
	prepare(func() {
		if b, err := encodingMode.Marshal(*new(T)); err == nil {
			_ = decoding.Unmarshal(b, new(T))
		}
	})
	shapes.Store(t, s)
	return s
}

// prepare calls code that may panic, in methods of the guest's own types, for values
// that they never see otherwise.
func prepare(f func()) {
	defer func() { _ = recover() }()
	f()
}

// shape describes the items that can be read as a Go type. The library accepts
// more: for instance, it reads null as a zero value, integers as bytes, and a
// missing field as a zero field.
type shape struct {
	kind     shapeKind
	typ      reflect.Type
	nullable bool
	key      *shape // of a map
	elem     *shape // of a pointer, slice, array or map
	fields   []field
	keys     map[string]int // of a struct: keys to fields; texts, or "#1" for integers
}

type field struct {
	name     string
	shape    *shape
	optional bool
}

type shapeKind int

const (
	anything shapeKind = iota
	reference
	boolean
	integer
	float
	text
	byteString
	list
	dictionary
	structMap
	structArray
)

// wrongShape says which part of an item is invalid, and why.
type wrongShape struct{ path, what string }

func wrong(format string, args ...any) *wrongShape {
	return &wrongShape{what: fmt.Sprintf(format, args...)}
}

func (w *wrongShape) within(part string) *wrongShape {
	if w != nil {
		w.path = part + w.path
	}
	return w
}

// ownReading are the interfaces of types with their own decoding.
var ownReading = []reflect.Type{
	reflect.TypeFor[cbor.Unmarshaler](), reflect.TypeFor[encoding.BinaryUnmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler](),
}

func shapeOf(t reflect.Type, known map[reflect.Type]*shape) *shape {
	if s := known[t]; s != nil {
		return s
	}
	s := &shape{typ: t, nullable: t.Kind() == reflect.Interface || t.Kind() == reflect.Pointer}
	known[t] = s
	if t.Kind() == reflect.Pointer {
		s.kind, s.elem = reference, shapeOf(t.Elem(), known)
		return s
	}
	switch t {
	case reflect.TypeFor[time.Time](), reflect.TypeFor[big.Int](), reflect.TypeFor[cbor.Tag](), reflect.TypeFor[cbor.RawTag](), reflect.TypeFor[cbor.SimpleValue]():
		return s
	case reflect.TypeFor[cbor.ByteString]():
		s.kind = byteString
		return s
	}
	for _, own := range ownReading {
		if reflect.PointerTo(t).Implements(own) {
			s.nullable = true
			return s
		}
	}
	s.byKind(t, known)
	return s
}

func (s *shape) byKind(t reflect.Type, known map[reflect.Type]*shape) {
	switch t.Kind() {
	case reflect.Bool:
		s.kind = boolean
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr:
		s.kind = integer
	case reflect.Float32, reflect.Float64:
		s.kind = float
	case reflect.String:
		s.kind = text
	case reflect.Slice, reflect.Array:
		s.kind = list
		if t.Elem().Kind() == reflect.Uint8 {
			s.kind = byteString
		}
		s.elem = shapeOf(t.Elem(), known)
	case reflect.Map:
		s.kind = dictionary
		s.key, s.elem = shapeOf(t.Key(), known), shapeOf(t.Elem(), known)
	case reflect.Struct:
		s.kind, s.keys = structMap, map[string]int{}
		s.addFields(t, known)
	}
}

// addFields adds the fields of a struct, and then the fields of embedded structs,
// except for names of outer fields.
func (s *shape) addFields(t reflect.Type, known map[reflect.Type]*shape) {
	var embedded []reflect.Type
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("cbor")
		if !tagged {
			tag = f.Tag.Get("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		has := func(option string) bool { return strings.Contains(","+options+",", ","+option+",") }
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case f.Name == "_" && (has("toarray") || has("toindefarray")):
			s.kind = structArray
			continue
		case tag == "-":
			continue
		case f.Anonymous && name == "" && inner.Kind() == reflect.Struct:
			embedded = append(embedded, inner)
			continue
		case !f.IsExported():
			continue
		case name == "":
			name = f.Name
		}
		key := name
		if has("keyasint") {
			key = "#" + name
		}
		if _, outer := s.keys[key]; outer {
			continue
		}
		s.keys[key] = len(s.fields)
		optional := has("omitempty") || has("omitzero") || f.Type.Kind() == reflect.Pointer
		s.fields = append(s.fields, field{name, shapeOf(f.Type, known), optional})
	}
	for _, inner := range embedded {
		s.addFields(inner, known)
	}
}

// check passes one item. If it does not fit the shape, check says why.
func (s *shape) check(r *reader) *wrongShape {
	if s.kind == anything && s.nullable {
		r.item()
		return nil
	}
	if r.null() {
		if s.nullable {
			return nil
		}
		return wrong("want %s, got null", s)
	}
	switch s.kind {
	case anything:
		r.item()
		return nil
	case reference:
		return s.elem.check(r)
	}
	at := r.off
	h := r.head()
	switch {
	case s.kind == boolean && h.major == majorSimple && (h.info == 20 || h.info == 21):
		return nil
	case s.kind == integer && h.major <= majorNegint:
		return s.checkRange(h)
	case s.kind == float && (h.major <= majorNegint || h.major == majorSimple && h.info >= 25 && h.info <= 27):
		return s.checkExact(h)
	case s.kind == text && h.major == majorText:
		if !utf8.Valid(r.text(h)) {
			return wrong("not UTF-8")
		}
		return nil
	case s.kind == byteString && h.major == majorBytes:
		return s.checkSize(len(r.text(h)))
	case s.kind == list && h.major == majorArray:
		return s.checkList(r, h)
	case s.kind == dictionary && h.major == majorMap:
		return s.checkMap(r, h)
	case s.kind == structMap && h.major == majorMap:
		return s.checkFields(r, h)
	case s.kind == structArray && h.major == majorArray:
		return s.checkElements(r, h)
	}
	r.off = at
	return wrong("want %s, got %s", s, r.describe())
}

// String describes the items that fit.
func (s *shape) String() string {
	switch s.kind {
	case boolean:
		return "true or false"
	case integer:
		return "an integer"
	case float:
		return "a number"
	case text:
		return "a text"
	case byteString:
		return "a byte string"
	case list, structArray:
		return "an array"
	case dictionary, structMap:
		return "a map"
	default:
		return "a value"
	}
}

func (s *shape) checkRange(h head) *wrongShape {
	fits := h.arg <= math.MaxInt64
	switch v := reflect.Zero(s.typ); {
	case s.typ.Kind() >= reflect.Uint && s.typ.Kind() <= reflect.Uintptr:
		fits = h.major == majorUint && !v.OverflowUint(h.arg)
	case fits && h.major == majorUint:
		fits = !v.OverflowInt(int64(h.arg))
	case fits:
		fits = !v.OverflowInt(-1 - int64(h.arg))
	}
	if !fits {
		return wrong("%s is out of range for %v", h.integer(), s.typ.Kind())
	}
	return nil
}

// checkExact accepts integers for floats that can hold them exactly.
func (s *shape) checkExact(h head) *wrongShape {
	digits := 53
	if s.typ.Kind() == reflect.Float32 {
		digits = 24
	}
	if h.major <= majorNegint && h.arg >= 1<<digits {
		return wrong("%s does not fit %v exactly", h.integer(), s.typ.Kind())
	}
	return nil
}

func (s *shape) checkSize(n int) *wrongShape {
	if s.typ.Kind() == reflect.Array && n != s.typ.Len() {
		return wrong("want a length of %d, got %d", s.typ.Len(), n)
	}
	return nil
}

func (s *shape) checkList(r *reader, h head) *wrongShape {
	n := 0
	for ; r.more(h, n); n++ {
		if w := s.elem.check(r); w != nil {
			return w.within("[" + strconv.Itoa(n) + "]")
		}
	}
	return s.checkSize(n)
}

func (s *shape) checkMap(r *reader, h head) *wrongShape {
	for n := 0; r.more(h, n); n++ {
		at := r.off
		if w := s.key.check(r); w != nil {
			return w.within("(key)")
		}
		key := r.data[at:r.off]
		if w := s.elem.check(r); w != nil {
			return w.within("[" + diagnose(key) + "]")
		}
	}
	return nil
}

func (s *shape) checkFields(r *reader, h head) *wrongShape {
	seen := make([]bool, len(s.fields))
	for n := 0; r.more(h, n); n++ {
		key := r.item()
		i, known := s.keys[fieldKey(key)]
		switch {
		case !known:
			return wrong("unknown key %s", diagnose(key))
		case seen[i]:
			return wrong("duplicate key").within("." + s.fields[i].name)
		}
		seen[i] = true
		if w := s.fields[i].shape.check(r); w != nil {
			return w.within("." + s.fields[i].name)
		}
	}
	for i, f := range s.fields {
		if !seen[i] && !f.optional {
			return wrong("missing").within("." + f.name)
		}
	}
	return nil
}

func (s *shape) checkElements(r *reader, h head) *wrongShape {
	n := 0
	for ; r.more(h, n); n++ {
		if n == len(s.fields) {
			return wrong("more than %d elements", n)
		}
		if w := s.fields[n].shape.check(r); w != nil {
			return w.within("." + s.fields[n].name)
		}
	}
	if n < len(s.fields) {
		return wrong("missing").within("." + s.fields[n].name)
	}
	return nil
}

// fieldKey returns the key of shape.keys for the key of a map.
func fieldKey(key []byte) string {
	r := reader{data: key}
	switch h := r.head(); h.major {
	case majorText:
		return string(r.text(h))
	case majorUint, majorNegint:
		return "#" + h.integer()
	default:
		return ""
	}
}

func diagnose(item []byte) string {
	s, err := cbor.Diagnose(item)
	if err != nil {
		return fmt.Sprintf("h'%x'", item)
	}
	return s
}

// Reading well-formed CBOR.

// The major types of CBOR.
const (
	majorUint byte = iota
	majorNegint
	majorBytes
	majorText
	majorArray
	majorMap
	majorTag
	majorSimple
)

type reader struct {
	data []byte
	off  int
}

type head struct {
	major, info byte
	arg         uint64
}

func (h head) indefinite() bool { return h.info == 31 }

// integer returns the number, which may have more than 64 bits.
func (h head) integer() string {
	n := new(big.Int).SetUint64(h.arg)
	if h.major == majorNegint {
		n.Not(n)
	}
	return n.String()
}

func (r *reader) head() head {
	first := r.data[r.off]
	r.off++
	h := head{first >> 5, first & 31, uint64(first & 31)}
	if h.info >= 24 && h.info <= 27 {
		h.arg = 0
		for range 1 << (h.info - 24) {
			h.arg = h.arg<<8 | uint64(r.data[r.off])
			r.off++
		}
	}
	return h
}

// more reports whether an array or map has an element or pair number n. After the
// last one it skips the break.
func (r *reader) more(h head, n int) bool {
	if !h.indefinite() {
		return uint64(n) < h.arg
	}
	if r.data[r.off] != 0xff {
		return true
	}
	r.off++
	return false
}

func (r *reader) null() bool {
	if r.data[r.off] != 0xf6 {
		return false
	}
	r.off++
	return true
}

// text returns the content of a string. It shares memory with the input, except for
// a string in parts.
func (r *reader) text(h head) []byte {
	if !h.indefinite() {
		r.off += int(h.arg)
		return r.data[r.off-int(h.arg) : r.off : r.off]
	}
	joined := []byte{}
	for n := 0; r.more(h, n); n++ {
		joined = append(joined, r.text(r.head())...)
	}
	return joined
}

// item skips one item and returns its bytes.
func (r *reader) item() []byte {
	at := r.off
	r.skip()
	return r.data[at:r.off:r.off]
}

func (r *reader) skip() {
	switch h := r.head(); h.major {
	case majorBytes, majorText:
		if !h.indefinite() {
			r.off += int(h.arg)
			return
		}
		for n := 0; r.more(h, n); n++ {
			r.skip()
		}
	case majorArray:
		for n := 0; r.more(h, n); n++ {
			r.skip()
		}
	case majorMap:
		for n := 0; r.more(h, n); n++ {
			r.skip()
			r.skip()
		}
	case majorTag:
		r.skip()
	}
}

// entry reads the head and the id of [id, output].
func (r *reader) entry() (ID, error) {
	if h := r.head(); h.major != majorArray || h.arg != 2 {
		return ID{}, errors.New("want a pair of id and output")
	}
	switch h := r.head(); h.major {
	case majorUint:
		return ID{Int: h.arg}, nil
	case majorText:
		return ID{Text: string(r.text(h)), IsText: true}, nil
	default:
		return ID{}, errors.New("invalid id: want an unsigned integer or a text")
	}
}

// describe names the kind of the next item.
func (r *reader) describe() string {
	switch h := r.head(); {
	case h.major <= majorNegint:
		return "an integer"
	case h.major == majorBytes:
		return "a byte string"
	case h.major == majorText:
		return "a text"
	case h.major == majorArray:
		return "an array"
	case h.major == majorMap:
		return "a map"
	case h.major == majorTag:
		return "tag " + strconv.FormatUint(h.arg, 10)
	case h.info == 20 || h.info == 21:
		return "a boolean"
	case h.info >= 25 && h.info <= 27:
		return "a float"
	case h.info == 23:
		return "undefined"
	default:
		return "a simple value"
	}
}

// Kind is the kind of a [Value].
type Kind byte

// The kinds of values.
const (
	KindUint   Kind = iota // Num
	KindNegint             // -1 - Num
	KindBytes              // Bytes
	KindText               // Bytes, which should be UTF-8
	KindArray              // Items
	KindMap                // Items: keys and values in turn, in the order of the item
	KindTag                // Num, and its content in Items
	KindSimple             // Num: 20 = false, 21 = true, 22 = null, 23 = undefined
	KindFloat              // Float
)

// Value is any item, for functions that accept any. It keeps everything except the
// lengths of heads and floats, indefinite lengths, and the bits of NaNs. It is
// written in preferred serialization (RFC 8949, section 4.1). The zero Value is the
// integer 0.
type Value struct {
	Kind  Kind
	Num   uint64
	Float float64
	Bytes []byte
	Items []Value
}

// Null and the booleans.
var (
	Null  = Value{Kind: KindSimple, Num: 22}
	False = Value{Kind: KindSimple, Num: 20}
	True  = Value{Kind: KindSimple, Num: 21}
)

// ValueOf returns v as a Value, by encoding it.
func ValueOf(v any) (Value, error) {
	b, err := encodingMode.Marshal(v)
	if err != nil {
		return Value{}, err
	}
	return decodeValue(b)
}

// Decode returns v as a T, as strictly as a chunk is read.
func Decode[T any](v Value) (T, error) {
	b, err := v.append(nil, 0)
	if err != nil {
		return *new(T), err
	}
	return decoderOf[T]("value")(b)
}

// Get returns the value of a text key of a map; false if the map does not have the
// key exactly once.
func (v Value) Get(key string) (value Value, ok bool) {
	if v.Kind != KindMap {
		return Value{}, false
	}
	for i := 0; i+1 < len(v.Items); i += 2 {
		if k := v.Items[i]; k.Kind == KindText && string(k.Bytes) == key {
			if ok {
				return Value{}, false
			}
			value, ok = v.Items[i+1], true
		}
	}
	return value, ok
}

// Text returns the text of v; false if v is not a text.
func (v Value) Text() (string, bool) { return string(v.Bytes), v.Kind == KindText }

// Int returns the integer of v; false if v is not an integer of 64 bits.
func (v Value) Int() (int64, bool) {
	if v.Kind > KindNegint || v.Num > math.MaxInt64 {
		return 0, false
	}
	if v.Kind == KindNegint {
		return -1 - int64(v.Num), true
	}
	return int64(v.Num), true
}

// MarshalCBOR returns v in preferred serialization.
func (v Value) MarshalCBOR() ([]byte, error) { return v.append(nil, 0) }

// UnmarshalCBOR reads one item and keeps a copy of it.
func (v *Value) UnmarshalCBOR(item []byte) (err error) {
	*v, err = decodeValue(append([]byte(nil), item...))
	return err
}

// decodeValue reads a well-formed item. The value shares memory with it.
func decodeValue(item []byte) (Value, error) {
	r := &reader{data: item}
	return r.value()
}

func (r *reader) value() (v Value, err error) {
	at := r.off
	h := r.head()
	v = Value{Kind: Kind(h.major), Num: h.arg}
	switch h.major {
	case majorBytes, majorText:
		v.Num, v.Bytes = 0, r.text(h)
	case majorArray, majorMap:
		v.Num, v.Items = 0, []Value{}
		for n := 0; err == nil && r.more(h, n); n++ {
			err = r.append(&v.Items, 1+int(h.major-majorArray))
		}
	case majorTag:
		err = r.append(&v.Items, 1)
	case majorSimple:
		if h.info >= 25 && h.info <= 27 {
			v.Kind, v.Num = KindFloat, 0
			err = decoding.Unmarshal(r.data[at:r.off], &v.Float)
		}
	}
	return v, err
}

func (r *reader) append(items *[]Value, n int) error {
	for range n {
		v, err := r.value()
		if err != nil {
			return err
		}
		*items = append(*items, v)
	}
	return nil
}

// append appends v, which is nested at the given depth, in preferred serialization.
func (v Value) append(b []byte, depth int) ([]byte, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("a value has more than %d levels of nesting", maxDepth)
	}
	switch v.Kind {
	case KindUint, KindNegint:
		return appendHead(b, byte(v.Kind), v.Num), nil
	case KindBytes, KindText:
		return append(appendHead(b, byte(v.Kind), uint64(len(v.Bytes))), v.Bytes...), nil
	case KindArray:
		b = appendHead(b, majorArray, uint64(len(v.Items)))
	case KindMap:
		if len(v.Items)%2 != 0 {
			return nil, errors.New("a map has a key without a value")
		}
		b = appendHead(b, majorMap, uint64(len(v.Items)/2))
	case KindTag:
		if len(v.Items) != 1 {
			return nil, fmt.Errorf("tag %d has %d items, want 1", v.Num, len(v.Items))
		}
		b = appendHead(b, majorTag, v.Num)
	case KindSimple:
		if v.Num > math.MaxUint8 || v.Num >= 24 && v.Num < 32 {
			return nil, fmt.Errorf("invalid simple value %d", v.Num)
		}
		return appendHead(b, majorSimple, v.Num), nil
	case KindFloat:
		f, err := encodingMode.Marshal(v.Float)
		return append(b, f...), err
	default:
		return nil, fmt.Errorf("unknown kind %d of a value", v.Kind)
	}
	for _, item := range v.Items {
		var err error
		if b, err = item.append(b, depth+1); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// appendHead appends the shortest head.
func appendHead(b []byte, major byte, arg uint64) []byte {
	first := major << 5
	switch {
	case arg < 24:
		return append(b, first|byte(arg))
	case arg <= math.MaxUint8:
		return append(b, first|24, byte(arg))
	case arg <= math.MaxUint16:
		return append(b, first|25, byte(arg>>8), byte(arg))
	case arg <= math.MaxUint32:
		return append(b, first|26, byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
	}
	return append(b, first|27, byte(arg>>56), byte(arg>>48), byte(arg>>40), byte(arg>>32),
		byte(arg>>24), byte(arg>>16), byte(arg>>8), byte(arg))
}
