// Package store keeps the outputs of chunks, idempotently.
//
// Put binds a key to bytes once: the first writer wins, a second writer with
// the same bytes changes nothing, and one with other bytes gets a
// [*ConflictError]. A worker may therefore run a chunk twice, crash after Put
// or race another worker, and what is stored stays the same. Implementations
// must pass storetest.Run.
package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"iter"
)

// Digest is a SHA-256.
type Digest [32]byte

// Action stands for everything beside the chunk's bytes that can change an
// output: module, context, seed and limits. The ActionID of build caches is
// the same idea for one action; here a job's chunks share one.
type Action Digest

// Key names one output of an action.
type Key struct {
	// Chunk is the digest of the chunk's bytes and, with the action, the whole
	// identity of the output.
	Chunk Digest
	// Order says where the output stands in id order, bytewise. It is
	// where a store may lay the record down and how All sorts; it is no part
	// of the identity, and the first writer's stays.
	Order []byte
}

// Compare orders keys as All does: bytewise by Order, then by Chunk.
func (k Key) Compare(other Key) int {
	if c := bytes.Compare(k.Order, other.Order); c != 0 {
		return c
	}
	return bytes.Compare(k.Chunk[:], other.Chunk[:])
}

// Value is one output, and what it cost.
type Value struct {
	Output []byte
	Fuel   uint64 // of the call that gave it
}

// Record is one output under its key.
type Record struct {
	Key
	Value
}

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the store is closed")

// ConflictError says that other bytes, or the same at another cost, are already
// stored under a key: the guest is not a pure function of its chunk, or a
// machine is broken. What was stored first is kept.
type ConflictError struct {
	Action      Action
	Chunk       Digest
	Stored, Put Version // what is kept, and what was refused
}

// Version tells the values of one chunk apart.
type Version struct {
	Output Digest // SHA-256
	Fuel   uint64
}

// VersionOf returns the version that a value is.
func VersionOf(v Value) Version { return Version{sha256.Sum256(v.Output), v.Fuel} }

func (e *ConflictError) Error() string {
	if e.Stored.Output == e.Put.Output {
		return fmt.Sprintf("one output for one chunk (sha256 %x) at two costs: kept fuel %d, refused %d", e.Chunk[:8], e.Stored.Fuel, e.Put.Fuel)
	}
	return fmt.Sprintf("two different outputs for one chunk (sha256 %x): kept %x, refused %x",
		e.Chunk[:8], e.Stored.Output[:8], e.Put.Output[:8])
}

// Store is what every store can do. All methods are safe for concurrent use;
// a batch is the unit of every one of them, because each call may cost a
// commit or a round trip.
type Store interface {
	// Put keeps the records, durably where the store is durable: when Put
	// returns nil, they survive. The store copies what it keeps. Where some
	// records conflict, the others are kept all the same and the error holds a
	// *ConflictError for each (errors.As finds the first).
	Put(ctx context.Context, action Action, records []Record) error

	// Get calls found for each of the keys that is stored, in the order of
	// keys. A chunk is found under whatever Order it is stored; a key that
	// carries the right one, and keys that ascend, may be found faster. found
	// must not call the store. What it is given is valid, and must not be
	// changed, until it returns. An error of found ends Get and is returned.
	Get(ctx context.Context, action Action, keys []Key, found func(i int, v Value) error) error

	// All yields what is stored for the action in bytewise order of Order (for
	// equal ones, of Chunk). What is put meanwhile may be seen or not. A record
	// is valid until the next one is asked for. After an error the iteration
	// ends.
	All(ctx context.Context, action Action) iter.Seq2[Record, error]

	// Close frees what the store holds. Calls after it fail with [ErrClosed].
	Close() error
}
