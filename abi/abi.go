// Package abi is version 1 of the contract between the host and a guest: the
// names and types of imports and exports, how results are packed, chunk ids,
// the CBOR envelopes that the host writes, and the classes of failure.
//
// It imports no engine, so tools for guest authors can use it. ABI.md in this
// directory describes the same contract for people who write guests.
package abi

// Version is the version of the contract. It is part of the key under which
// outputs are stored.
const Version = 1

// Names of the exports of a guest. Memory, Alloc and Exec are required.
const (
	ExportMemory     = "memory"
	ExportAlloc      = "alloc"
	ExportExec       = "exec"
	ExportAggregate  = "aggregate"
	ExportMerge      = "merge"
	ExportSetup      = "setup"
	ExportInitialize = "_initialize"
	ExportStart      = "_start"
)

// Names of the imports that a guest may use.
const (
	ImportModule    = "wasm_jobs"
	ImportFail      = "fail"
	ImportLog       = "log"
	ImportHeartbeat = "heartbeat"

	// WASIModule is the import module of WASI preview 1.
	WASIModule = "wasi_snapshot_preview1"
)

// Kinds of failure that a guest reports through the import "fail".
const (
	FailPermanent uint32 = 0 // class guest: never retried
	FailRetryable uint32 = 1 // class guest-retryable: retried, counted
	FailRequeue   uint32 = 2 // class requeued: returned to the queue, not counted
)

// Levels of the import "log"; the numbers are those of log/slog.
const (
	LogDebug int32 = -4
	LogInfo  int32 = 0
	LogWarn  int32 = 4
	LogError int32 = 8
)

// Pack joins the address and the length of a result as exec, aggregate, merge
// and setup return them: ptr<<32 | size.
func Pack(ptr, size uint32) uint64 { return uint64(ptr)<<32 | uint64(size) }

// Unpack is the inverse of [Pack].
func Unpack(result uint64) (ptr, size uint32) { return uint32(result >> 32), uint32(result) }
