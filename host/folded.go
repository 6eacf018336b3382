package host

import (
	"context"
	"crypto/sha256"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Folded is the result of a fold whose calls others made.
type Folded struct {
	Root      [sha256.Size]byte // of the outputs
	Fuel      uint64            // of the outputs
	Aggregate []byte
	FoldFuel  uint64
}

// KeepFolded stores the result of the fold of a job whose chunks all have outputs, as a
// run does: [Coordinator.Gather] then ends the job with it. input is the digest of the
// job's chunks.
func KeepFolded(ctx context.Context, s store.Store, action store.Action, input store.Digest, f *Folded) error {
	keep := func(action store.Action, key store.Digest, v store.Value) error {
		return s.Put(ctx, action, []store.Record{{Key: store.Key{Chunk: key}, Value: v}})
	}
	if err := keep(foldAction(action), f.Root, store.Value{Output: f.Aggregate, Fuel: f.FoldFuel}); err != nil {
		return err
	}
	return keep(endAction(action), input, store.Value{Output: f.Root[:], Fuel: f.Fuel})
}
