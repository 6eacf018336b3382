package host

import (
	"context"
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Input provides the chunks of a job, numbered from 0 in id order. It is safe
// for concurrent use. *[chunks.File] implements it.
type Input interface {
	// Len returns the number of chunks, below 2^32.
	Len() int
	// ID returns the id of a chunk. Ids ascend.
	ID(i int) abi.ID
	// Read calls each with the chunks from..to-1, in order. A chunk is valid
	// until each returns. If each returns an error, Read stops and returns it.
	Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error
	// Digest returns the input digest: the Merkle root over [id, chunk] in id
	// order.
	Digest() [sha256.Size]byte
	// Unchanged returns an error if the input has changed since its digest was
	// computed.
	Unchanged() error
}
