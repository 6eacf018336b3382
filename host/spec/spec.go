// Package spec describes the job that was asked for, in one place: the module,
// the chunks, the settings, and their sources. The record of a job in a store
// is its JSON. Receipts, the command line and later runs of the same job are
// made from it.
//
// A [Spec] is data. It holds digests instead of files and modules, and nothing
// about how a run went. A Spec from others must pass [Spec.Validate] before it
// is used.
package spec

import (
	"encoding/json"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Spec is the description of a job. Digests are "sha256:" and 64 lower hex
// digits. Sizes are in bytes.
type Spec struct {
	// Name, Meta and Priority are labels: no output depends on them.
	Name     string            `json:"name"`
	Meta     map[string]string `json:"meta,omitempty"`
	Priority int               `json:"priority,omitempty"`

	Module File `json:"module"`
	// Chunks has the input digest: the Merkle tree hash over [id, chunk] in id
	// order. Path is the source of the chunks, for people to read.
	Chunks      File     `json:"chunks"`
	Total       int      `json:"total"`
	Context     string   `json:"context,omitempty"` // digest of the item; "" = none
	ContextSize int64    `json:"context_size,omitempty"`
	Settings    Settings `json:"settings"`
	Sources     *Sources `json:"sources,omitempty"` // nil if unknown

	// Command is how the job was submitted, in records that have no Sources:
	// the flags of the command line of that time. New records do not have it.
	Command json.RawMessage `json:"command,omitempty"`
}

// File is a file and its digest.
type File struct {
	Path   string `json:"path,omitempty"` // "" if unknown, "-" = standard input
	Digest string `json:"digest"`
	Size   int64  `json:"size,omitempty"` // 0 if unknown
}

// Settings can change an output, or decide whether there is one.
type Settings struct {
	Seed uint64 `json:"seed"`
	Limits
	NativeNaNs bool `json:"native_nans,omitempty"`
	NoMetering bool `json:"no_metering,omitempty"`
	Metering   int  `json:"metering,omitempty"` // version of what fuel counts; 0 with NoMetering
	// EngineFixes is the version of the fixes of the engine's compiler that
	// affect the module: earlier outputs may be wrong. 0 if none does.
	EngineFixes int `json:"engine_fixes,omitempty"`
	// Isolation is how a call gets fresh state: reset, instance, or "" for reset
	// if the module allows it. Outputs don't depend on it.
	Isolation string `json:"isolation"`
	Retry
	MaxFailures *int     `json:"max_failures,omitempty"` // chunks that may fail before the job ends early; nil = all
	NoFold      bool     `json:"no_fold,omitempty"`      // the outputs are the result, even if the module has aggregate
	Command     *Command `json:"command,omitempty"`      // nil if a WASI command gets only its chunks
}

// Limits of calls. Zero means no limit for fuel and times, and the runtime's
// default for sizes. Only Memory and Stack can change an output.
type Limits struct {
	Memory uint64 `json:"memory"`
	// Stack is the number of bytes that nested calls may take, as counted by
	// metering; 0 is [DefaultStack]. Use [Settings.OtherStack] to compare it.
	Stack        uint64        `json:"stack,omitempty"`
	Fuel         uint64        `json:"fuel"`
	Timeout      time.Duration `json:"timeout_ns"`
	FoldTimeout  time.Duration `json:"fold_timeout_ns"`
	MaxOutput    uint64        `json:"max_output"`
	MaxAggregate uint64        `json:"max_aggregate"`
}

// DefaultStack is the default limit of nested calls, in bytes.
const DefaultStack = 8 << 20

// OtherStack returns the limit of nested calls in bytes if it is not the
// default; otherwise 0. Without metering, nested calls are not counted, and it
// is 0 too.
func (s *Settings) OtherStack() uint64 {
	if s.NoMetering || s.Stack == DefaultStack {
		return 0
	}
	return s.Stack
}

// Retry defines which failures are retried, and when.
type Retry struct {
	Retries       int           `json:"retries"`  // after the first attempt
	Classes       []abi.Class   `json:"retry_on"` // nil = the default classes; empty = none
	MaxRequeues   int           `json:"max_requeues"`
	Backoff       time.Duration `json:"backoff_ns"` // before the first retry; doubles with each
	BackoffMax    time.Duration `json:"backoff_max_ns"`
	Deterministic bool          `json:"retry_deterministic,omitempty"` // also after two equal traps
}

// Command has the inputs of a WASI command in addition to its chunks.
type Command struct {
	Args  []string `json:"args,omitempty"`
	Env   []string `json:"env,omitempty"` // KEY=VALUE
	Stdin string   `json:"stdin"`         // raw, cbor, or "" for raw
	Dirs  []Dir    `json:"dirs,omitempty"`
}

// The values of Command.Stdin.
const (
	StdinRaw  = "raw"  // the content of a chunk that is a string
	StdinCBOR = "cbor" // the chunk's own bytes
)

// Dir is a directory that guests can read under the name Guest.
type Dir struct {
	Guest  string `json:"guest"`
	Digest string `json:"digest"` // of its tree
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`
}
