package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// A message about a damaged output names its chunk, if the order is valid.
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
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

// list works on a store that is damaged anywhere. It skips jobs that are lost while it
// reads, and the counts of the others add up to their totals. Chunks are missing only in
// jobs that are named.
func TestListOfDamagedStores(t *testing.T) {
	dir := t.TempDir()
	for _, chunks := range []string{"0-2", "0-3"} {
		mustRun(t, "run", "../../guest-examples/square/c/square.wasm", "--range-of", chunks, "--store", dir, "--progress", "none")
	}
	file, err := os.ReadFile(filepath.Join(dir, "store.db"))
	if err != nil {
		t.Fatal(err)
	}
	for at := 63; at < len(file); at += 2048 - 1 {
		damaged := t.TempDir()
		file[at] ^= 1
		if err := os.WriteFile(filepath.Join(damaged, "store.db"), file, 0o600); err != nil {
			t.Fatal(err)
		}
		file[at] ^= 1
		var out, said bytes.Buffer
		code := Main(t.Context(), []string{"wasm-jobs", "list", "--json", "--store", damaged}, strings.NewReader(""), &out, &said)
		var all []listed
		if err := json.Unmarshal(out.Bytes(), &all); code != exitOK || err != nil {
			t.Errorf("byte %d: exit code %d, error %v: %s", at, code, err, &said)
		}
		for _, l := range all {
			named := strings.Contains(said.String(), l.Job[:shortName]) // as one that lost chunks
			if l.Pending+l.Active+l.Succeeded+l.Failed != l.Total || l.Succeeded != l.Total && !named {
				t.Errorf("byte %d: %+v: %s", at, l, &said)
			}
		}
	}
}
