package host

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestActionOfCommands checks that everything that a WASI command can see is
// part of the key of its outputs. If nothing is set, the key is the same as
// before commands existed.
func TestActionOfCommands(t *testing.T) {
	tree := func(content string) *wasi.Tree {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "f"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tree, err := wasi.ReadTree(t.Context(), dir, 100)
		if err != nil {
			t.Fatal(err)
		}
		return tree
	}
	action := func(c runtime.Command) store.Action {
		job := Job{Settings: runtime.Settings{Command: c}}
		return job.action(sha256.Sum256(nil), 0)
	}
	plain := action(runtime.Command{})
	nothing := sha256.Sum256(nil)
	before := sha256.Sum256(fmt.Appendf(nil, "wasm-jobs action 1\nabi %d\nmodule %x\nmetering %d\ncontext %x\nseed 0\nmemory %d\n",
		abi.Version, nothing, runtime.MeteringVersion, sha256.Sum256(abi.Null), runtime.DefaultMemory))
	if plain != before {
		t.Errorf("key without a command: %x, want %x", plain, before)
	}
	if action(runtime.Command{Stdin: runtime.StdinRaw}) != plain {
		t.Error("the default settings have another key than no settings")
	}
	seen := map[store.Action]int{plain: -1}
	for i, c := range []runtime.Command{
		{Args: []string{""}},
		{Args: []string{"a"}},
		{Args: []string{"a", ""}},
		{Args: []string{"a", "b"}},
		{Args: []string{"b", "a"}},
		{Args: []string{"a b"}},
		{Args: []string{"a\"\narg \"b"}},
		{Args: []string{"\xff"}},
		{Args: []string{"\ufffd"}},
		{Env: []string{"a="}},
		{Env: []string{"a=", "b="}},
		{Env: []string{"b=", "a="}},
		{Stdin: runtime.StdinCBOR},
		{Dirs: []wasi.Dir{{Guest: "d", Tree: tree("1")}}},
		{Dirs: []wasi.Dir{{Guest: "e", Tree: tree("1")}}},
		{Dirs: []wasi.Dir{{Guest: "d", Tree: tree("2")}}},
		{Dirs: []wasi.Dir{{Guest: "d", Tree: tree("1")}, {Guest: "e", Tree: tree("1")}}},
		{Dirs: []wasi.Dir{{Guest: "e", Tree: tree("1")}, {Guest: "d", Tree: tree("1")}}},
	} {
		a := action(c)
		if other, ok := seen[a]; ok {
			t.Errorf("commands %d and %d have the same key", other, i)
		}
		seen[a] = i
	}
	one, same := wasi.Dir{Guest: "d", Tree: tree("1")}, wasi.Dir{Guest: "d", Tree: tree("1")}
	if action(runtime.Command{Dirs: []wasi.Dir{one}}) != action(runtime.Command{Dirs: []wasi.Dir{same}}) {
		t.Error("two directories with the same content have different keys")
	}
}
