package main

import (
	"context"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/host"
)

// bundleEnding is the file name extension of bundles.
const bundleEnding = ".bundle"

// writeBundles writes a bundle for each failed chunk.
func (f *resultFiles) writeBundles(ctx context.Context, result *host.Result) error {
	if f.bundles == nil {
		return nil
	}
	return result.Failed(ctx, func(failed *host.ChunkFailure, chunk []byte) error {
		file, err := result.Bundle(failed, chunk).Encode()
		if err == nil {
			err = f.bundles.Write(failed.ID.FileName()+bundleEnding, file)
		}
		if err != nil {
			return fmt.Errorf("the bundle of chunk %v: %w", failed.ID, err)
		}
		return nil
	})
}
