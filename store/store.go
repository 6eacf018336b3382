// Package store keeps the outputs of chunks, idempotently.
//
// Put binds a key to bytes once: the first writer wins, a second writer with
// the same bytes changes nothing, and one with other bytes gets a
// [*ConflictError]. A worker may therefore run a chunk twice, crash after Put
// or race another worker, and the store's content stays the same. Implementations
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

// Action identifies everything except the chunk's bytes that can change an output:
// module, context, seed and limits. Build caches have an ActionID for each action;
// here all chunks of a job share one.
type Action Digest

// Key names one output of an action.
type Key struct {
	// Chunk is the digest of the chunk's bytes and, with the action, the whole
	// identity of the output.
	Chunk Digest
	// Order is the position of the output in id order, compared bytewise. All
	// sorts by it, and a store may place records by it. It is not part of the
	// identity; the first writer's Order is kept.
	Order []byte
}

// Compare orders keys as All does: bytewise by Order, then by Chunk.
func (k Key) Compare(other Key) int {
	if c := bytes.Compare(k.Order, other.Order); c != 0 {
		return c
	}
	return bytes.Compare(k.Chunk[:], other.Chunk[:])
}

// Value is one output, and the fuel that it took.
type Value struct {
	Output []byte
	Fuel   uint64 // of the call that returned it
}

// Record is one output under its key.
type Record struct {
	Key
	Value
}

// ErrClosed is returned by every method after Close.
var ErrClosed = errors.New("the store is closed")

// ConflictError means that the store has other bytes for a chunk, or the same bytes
// with another fuel: the guest is not a pure function of its chunk, or a machine is
// broken. The value that was stored first is kept.
type ConflictError struct {
	Action      Action
	Chunk       Digest
	Stored, Put Version // the value that is kept, and the one that was rejected
}

// Version tells the values of one chunk apart.
type Version struct {
	Output Digest // SHA-256
	Fuel   uint64
}

// VersionOf returns the version of a value.
func VersionOf(v Value) Version { return Version{sha256.Sum256(v.Output), v.Fuel} }

func (e *ConflictError) Error() string {
	if e.Stored.Output == e.Put.Output {
		return fmt.Sprintf("same output for one chunk (sha256 %x) with different fuel: kept fuel %d, refused %d", e.Chunk[:8], e.Stored.Fuel, e.Put.Fuel)
	}
	return fmt.Sprintf("two different outputs for one chunk (sha256 %x): kept %x, refused %x",
		e.Chunk[:8], e.Stored.Output[:8], e.Put.Output[:8])
}

// Store keeps outputs by action and chunk. All methods are safe for concurrent
// use. They take batches, because each call may cost a commit or a round trip.
type Store interface {
	// Put stores the records. If the store is durable, they survive a crash once
	// Put has returned nil. The store copies them. If some records conflict, the
	// others are stored nevertheless, and the error wraps a *ConflictError for each
	// conflict (errors.As finds the first).
	Put(ctx context.Context, action Action, records []Record) error

	// Get calls found for each of the keys that is stored, in the order of keys. A
	// chunk is found whatever its Order in the store is; keys with the right Order,
	// and keys in ascending order, may be found faster. found must not call the
	// store, and must not change v, which is valid until found returns. An error of
	// found ends Get and is returned.
	Get(ctx context.Context, action Action, keys []Key, found func(i int, v Value) error) error

	// All yields the records of the action, sorted bytewise by Order, then by
	// Chunk. It may or may not yield records that are put meanwhile. A record is
	// valid until the next one is requested. An error ends the iteration.
	All(ctx context.Context, action Action) iter.Seq2[Record, error]

	// Close releases the store's resources. Later calls return [ErrClosed].
	Close() error
}
