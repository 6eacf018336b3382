package verify

import (
	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// maxListed is the maximum number of listed chunks.
const maxListed = 20

// ChunkDifferences are the chunks whose outputs differ. Only the first ones are
// listed. It is part of the JSON of verify and diff.
type ChunkDifferences struct {
	Count  int               `json:"different_chunks"`
	Listed []ChunkDifference `json:"different"`
}

// ChunkDifference is a chunk with two different outputs, in diagnostic
// notation, which is cut if long. One of them may be missing, and then there
// may be a failure.
type ChunkDifference struct {
	ID      abi.ID       `json:"id"`
	A       string       `json:"a,omitempty"`      // expected
	B       string       `json:"b,omitempty"`      // found
	Offset  *int         `json:"offset,omitempty"` // of the first byte that differs
	Failure *abi.Failure `json:"failure,omitempty"`
}

// Add adds a chunk. A nil output is a missing one. It keeps neither a nor b.
func (c *ChunkDifferences) Add(id abi.ID, a, b []byte, failure *abi.Failure) {
	if c.Count++; c.Count > maxListed {
		return
	}
	at := notation.FirstDifferent(a, b)
	chunk := ChunkDifference{ID: id, Failure: failure, A: notation.Brief(a, at), B: notation.Brief(b, at)}
	if a != nil && b != nil {
		chunk.Offset = &at
	}
	c.Listed = append(c.Listed, chunk)
}
