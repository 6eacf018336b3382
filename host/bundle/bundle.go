// Package bundle stores everything that is needed to run one failed chunk
// again, elsewhere and later: its bytes, all other inputs of the call, and its
// failure.
//
// A bundle is a file with one CBOR item, an array of four: the text "wasm-jobs
// bundle", the version of the format, the contents as a byte string that holds
// one map, and the SHA-256 of these bytes. The checksum detects damage. It does
// not authenticate: anyone who changes the contents can also change the
// checksum. A bundle has the module's digest and size, but not the module.
package bundle

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Version is the version of the format.
const Version = 1

// magic identifies the format.
const magic = "wasm-jobs bundle"

// Bounds of the contents of a bundle.
const (
	// MaxSize is the maximum size of a bundle, in bytes.
	MaxSize = 1 << 30
	// maxMessage and maxFrames are the limits of failures, with room for later
	// ones.
	maxMessage = 64 << 10
	maxFrames  = 1024
)

// ErrTooLarge is returned for a bundle of more than [MaxSize] bytes.
var ErrTooLarge = fmt.Errorf("too large: more than %d bytes, the limit of a bundle", MaxSize)

// Bundle is one failed attempt.
type Bundle struct {
	ID       abi.ID
	Chunk    []byte // one CBOR item
	Module   Module
	Options  runtime.Options
	Settings runtime.Settings // without Isolation, which cannot change the result, and without the directories of a command
	Dirs     []Dir            // of a WASI command, in order
	Failure  abi.Failure      // how it ended, with its fuel
	// Shortened means that Failure has no stack, and perhaps only the start of
	// its message, followed by "...", because the text that a job keeps of its
	// failures is bounded.
	Shortened bool
}

// Dir is a directory that a WASI command could read. A bundle does not contain
// it.
type Dir struct {
	Guest  string            // the guest's name for it
	Digest [sha256.Size]byte // of its content: see runtime/wasi.Tree
}

// Module identifies the module that ran.
type Module struct {
	SHA256 [sha256.Size]byte // of the file
	Size   int               // of the file, in bytes
}

// contents is the encoded form of a bundle.
type contents struct {
	ID       cbor.RawMessage `cbor:"id"`
	Chunk    []byte          `cbor:"chunk"`
	Context  []byte          `cbor:"context"` // one CBOR item
	Module   moduleEntry     `cbor:"module"`
	Settings settings        `cbor:"settings"`
	Failure  failure         `cbor:"failure"`
}

type moduleEntry struct {
	SHA256 []byte `cbor:"sha256"`
	Size   uint64 `cbor:"size"`
}

// settings has times in nanoseconds; 0 = no limit.
type settings struct {
	ABI         uint64 `cbor:"abi"`
	Seed        uint64 `cbor:"seed"`
	Memory      uint64 `cbor:"memory"`
	MaxOutput   uint64 `cbor:"max_output"`
	Fuel        uint64 `cbor:"fuel"`
	Timeout     uint64 `cbor:"timeout"`
	FoldTimeout uint64 `cbor:"fold_timeout"` // of setup
	Metering    uint64 `cbor:"metering"`     // version; 0 = none
	NativeNaNs  bool   `cbor:"native_nans"`

	Stack   uint64   `cbor:"stack,omitempty"`   // 0 = the default
	Command *command `cbor:"command,omitempty"` // inputs of a WASI command, if any are set
}

type command struct {
	Args  []string   `cbor:"args"`
	Env   []string   `cbor:"env"`
	Stdin string     `cbor:"stdin"`
	Dirs  []dirEntry `cbor:"dirs"`
}

type dirEntry struct {
	Guest  string `cbor:"guest"`
	SHA256 []byte `cbor:"sha256"`
}

type failure struct {
	Class   string   `cbor:"class"`
	Message string   `cbor:"message"`
	Stack   []string `cbor:"stack"`
	Fuel    uint64   `cbor:"fuel"` // 0 = unknown
	// Shortened is omitted if it is false.
	Shortened bool     `cbor:"shortened,omitempty"`
	Logs      []string `cbor:"logs,omitempty"` // the last lines
}

var encoding = must(cbor.CoreDetEncOptions().EncMode())

var decoding = must(cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
	ExtraReturnErrors: cbor.ExtraDecErrorUnknownField, UTF8: cbor.UTF8RejectInvalid, FieldNameMatching: cbor.FieldNameMatchingCaseSensitive,
	MaxNestedLevels: 8, MaxArrayElements: 1 << 16, MaxMapPairs: 16,
}.DecMode())

// must returns a mode. Its options are constants.
func must[T any](mode T, err error) T {
	if err != nil {
		panic(err)
	}
	return mode
}

// Encode returns the file. The same attempt gives the same bytes. The error is
// [ErrTooLarge].
func (b *Bundle) Encode() ([]byte, error) {
	if len(b.Chunk) > MaxSize || len(b.Settings.Context) > MaxSize {
		return nil, ErrTooLarge
	}
	inner, err := encoding.Marshal(b.contents())
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(inner)
	out := abi.AppendText(abi.AppendHead(nil, abi.MajorArray, 4), magic)
	out = abi.AppendHead(out, abi.MajorUint, Version)
	out = append(abi.AppendHead(out, abi.MajorBytes, uint64(len(inner))), inner...)
	out = append(abi.AppendHead(out, abi.MajorBytes, sha256.Size), sum[:]...)
	if len(out) > MaxSize {
		return nil, ErrTooLarge
	}
	return out, nil
}

func (b *Bundle) contents() *contents {
	s := &b.Settings
	c := &contents{
		ID: b.ID.AppendCBOR(nil), Chunk: b.Chunk, Context: s.Context, Module: moduleEntry{b.Module.SHA256[:], uint64(b.Module.Size)},
		Settings: settings{
			ABI: abi.Version, Seed: s.Seed, Memory: s.Memory, Stack: b.otherStack(), MaxOutput: s.MaxOutput, Fuel: s.Fuel,
			Timeout: uint64(s.Timeout), FoldTimeout: uint64(s.FoldTimeout), Metering: runtime.MeteringVersion, NativeNaNs: b.Options.NativeNaNs,
		},
		Failure: failure{string(b.Failure.Class), b.Failure.Message, append([]string{}, b.Failure.Stack...), b.Failure.Fuel, b.Shortened, b.Failure.Logs},
	}
	if c.Context == nil {
		c.Context = abi.Null
	}
	if c.Settings.Memory == 0 {
		c.Settings.Memory = runtime.DefaultMemory
	}
	if c.Settings.MaxOutput == 0 {
		c.Settings.MaxOutput = runtime.DefaultMaxOutput
	}
	if b.Options.NoMetering {
		c.Settings.Metering = 0
	}
	c.Settings.Command = b.command()
	return c
}

// otherStack returns the limit of nested calls if it is not the default;
// otherwise 0.
func (b *Bundle) otherStack() uint64 {
	asked := spec.Settings{NoMetering: b.Options.NoMetering, Limits: spec.Limits{Stack: b.Settings.Stack}}
	return asked.OtherStack()
}

// command returns the inputs of a WASI command, or nil.
func (b *Bundle) command() *command {
	given := &b.Settings.Command
	if len(given.Args)+len(given.Env)+len(b.Dirs) == 0 && (given.Stdin == "" || given.Stdin == runtime.StdinRaw) {
		return nil
	}
	c := &command{Args: append([]string{}, given.Args...), Env: append([]string{}, given.Env...), Stdin: string(given.Stdin), Dirs: []dirEntry{}}
	for _, d := range b.Dirs {
		c.Dirs = append(c.Dirs, dirEntry{d.Guest, d.Digest[:]})
	}
	return c
}

// apply copies the fields of c to b.
func (c *command) apply(b *Bundle) error {
	if c == nil {
		return nil
	}
	b.Settings.Command = runtime.Command{Args: c.Args, Env: c.Env, Stdin: runtime.Stdin(c.Stdin)}
	switch b.Settings.Command.Stdin {
	case "", runtime.StdinRaw, runtime.StdinCBOR:
	default:
		return fmt.Errorf("invalid standard input %.20q: want raw or cbor", c.Stdin)
	}
	for _, d := range c.Dirs {
		if len(d.SHA256) != sha256.Size {
			return fmt.Errorf("the SHA-256 of directory %.100q has %d bytes, want %d", d.Guest, len(d.SHA256), sha256.Size)
		}
		b.Dirs = append(b.Dirs, Dir{d.Guest, [sha256.Size]byte(d.SHA256)})
	}
	return nil
}

// Decode reads a file of at most [MaxSize] bytes. The bundle refers to the
// bytes of file. The error is one line.
func Decode(file []byte) (*Bundle, error) {
	if len(file) > MaxSize {
		return nil, ErrTooLarge
	}
	inner, err := unseal(file)
	if err != nil {
		return nil, err
	}
	var c contents
	if err := decoding.Unmarshal(inner, &c); err != nil {
		return nil, fmt.Errorf("invalid contents: %w", err)
	}
	return c.bundle()
}

// unseal returns the contents after checking that they are undamaged.
func unseal(file []byte) ([]byte, error) {
	head := abi.AppendText(abi.AppendHead(nil, abi.MajorArray, 4), magic)
	rest, ok := bytes.CutPrefix(file, head)
	if !ok {
		return nil, errors.New("not a bundle: want a file that starts like one")
	}
	version, err := abi.ReadHead(rest)
	if err != nil || version.Major != abi.MajorUint {
		return nil, errors.New("damaged: invalid version of the format")
	}
	if version.Arg != Version {
		return nil, fmt.Errorf("unsupported version %d of the format: want %d", version.Arg, Version)
	}
	inner, rest, ok := cutBytes(rest[version.Size:])
	if !ok {
		return nil, errors.New("damaged: the file ends within its contents")
	}
	written, rest, ok := cutBytes(rest)
	if !ok || len(written) != sha256.Size || len(rest) > 0 {
		return nil, errors.New("damaged: want a checksum of 32 bytes at the end")
	}
	if sum := sha256.Sum256(inner); !bytes.Equal(sum[:], written) {
		return nil, fmt.Errorf("damaged: the contents have the SHA-256 %x, but the checksum is %x", sum, written)
	}
	return inner, nil
}

// cutBytes cuts a byte string from the start of b.
func cutBytes(b []byte) (value, rest []byte, ok bool) {
	h, err := abi.ReadHead(b)
	if err != nil || h.Major != abi.MajorBytes || h.Indefinite || h.Arg > uint64(len(b)-h.Size) {
		return nil, nil, false
	}
	end := h.Size + int(h.Arg)
	return b[h.Size:end], b[end:], true
}

// bundle checks the contents. A correct checksum does not mean that they are
// valid.
func (c *contents) bundle() (*Bundle, error) {
	s := &c.Settings
	id, err := idOf(c.ID)
	switch {
	case err != nil:
		return nil, err
	case len(c.Module.SHA256) != sha256.Size:
		return nil, fmt.Errorf("the module's SHA-256 has %d bytes, want %d", len(c.Module.SHA256), sha256.Size)
	case c.Module.Size > math.MaxInt32:
		return nil, fmt.Errorf("the module's size is too large: %d bytes", c.Module.Size)
	case s.ABI != abi.Version:
		return nil, fmt.Errorf("unsupported version %d of the guest ABI: want %d", s.ABI, abi.Version)
	case s.Metering != 0 && s.Metering != runtime.MeteringVersion:
		return nil, fmt.Errorf("unsupported version %d of metering: want %d", s.Metering, runtime.MeteringVersion)
	case s.Memory == 0 || s.MaxOutput == 0:
		return nil, errors.New("invalid limit: 0 bytes")
	case s.Timeout > 1<<62 || s.FoldTimeout > 1<<62:
		return nil, errors.New("invalid limit: the time is too long")
	case len(c.Failure.Message) > maxMessage:
		return nil, fmt.Errorf("the message of the failure has more than %d bytes", maxMessage)
	}
	for _, x := range []struct {
		name, part string
		lines      []string
	}{{"stack", "frame", c.Failure.Stack}, {"log", "line", c.Failure.Logs}} {
		if len(x.lines) > maxFrames {
			return nil, fmt.Errorf("the %s has more than %d %ss", x.name, maxFrames, x.part)
		}
		for _, line := range x.lines {
			if len(line) > maxMessage {
				return nil, fmt.Errorf("a %s of the %s has more than %d bytes", x.part, x.name, maxMessage)
			}
		}
	}
	for _, x := range []struct {
		what string
		item []byte
	}{{"chunk", c.Chunk}, {"context", c.Context}} {
		if err := abi.CheckItem(x.item); err != nil {
			return nil, fmt.Errorf("the %s is not one CBOR item: %w", x.what, err)
		}
	}
	b := &Bundle{
		ID: id, Chunk: c.Chunk, Module: Module{[sha256.Size]byte(c.Module.SHA256), int(c.Module.Size)},
		Options: runtime.Options{NoMetering: s.Metering == 0, NativeNaNs: s.NativeNaNs},
		Settings: runtime.Settings{
			Context: c.Context, Seed: s.Seed, Memory: s.Memory, Stack: s.Stack, MaxOutput: s.MaxOutput, Fuel: s.Fuel,
			Timeout: time.Duration(s.Timeout), FoldTimeout: time.Duration(s.FoldTimeout),
		},
		Failure:   abi.Failure{Class: abi.Class(c.Failure.Class), Message: c.Failure.Message, Stack: c.Failure.Stack, Logs: c.Failure.Logs, Fuel: c.Failure.Fuel},
		Shortened: c.Failure.Shortened,
	}
	return b, s.Command.apply(b)
}

func idOf(item []byte) (id abi.ID, err error) {
	var v any
	if err := decoding.Unmarshal(item, &v); err == nil {
		switch v := v.(type) {
		case uint64:
			return abi.IntID(v), nil
		case string:
			return abi.TextID(v), nil
		}
	}
	return id, errors.New("invalid id: want an unsigned integer or a text")
}
