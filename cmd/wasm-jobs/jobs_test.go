package main

import (
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// A damaged output is named by its chunk, where its order tells.
func TestDamageLine(t *testing.T) {
	for _, tt := range []struct {
		order []byte
		want  string
	}{
		{abi.IntID(17).AppendOrderKey(nil), "the output of chunk 17 (chunk sha256 0100000000000000) is damaged"},
		{abi.TextID("a").AppendOrderKey(nil), `the output of chunk "a" (chunk sha256 0100000000000000) is damaged`},
		{nil, "the output (chunk sha256 0100000000000000) is damaged"},
	} {
		d := sqlite.Damage{Key: store.Key{Chunk: store.Digest{1}, Order: tt.order}}
		if got := damageLine(d); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%q, expected %q", got, tt.want)
		}
	}
}
