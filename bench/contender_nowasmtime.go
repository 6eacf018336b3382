//go:build !cgo || (!amd64 && (!arm64 || windows)) || (!linux && !darwin && !windows)

package main

import "context"

func wasmtimeSides() []side {
	none := func(context.Context, *work) (runner, error) {
		return nil, unavailable("wasmtime-go needs cgo, and a system that its library supports")
	}
	return []side{inProcess("wasmtime-new", "wasmtime-go (Cranelift)", none), inProcess("wasmtime-new-epoch", "the same with epoch interruption", none)}
}
