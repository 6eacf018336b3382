package sqlite

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestCursor looks for every key, some and few, in ascending order and with steps back, in
// an action that has gaps, also before its first output and after its last.
func TestCursor(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	s := open(t, t.TempDir(), Options{})
	all := records(0, 6000)
	var put []store.Record
	for i, r := range all {
		if gap := i / 500 % 3; i >= 100 && i < 5900 && gap != 2 && (gap == 0 || rng.IntN(3) > 0) {
			put = append(put, r)
		}
	}
	there := map[store.Digest][]byte{}
	for _, r := range put {
		there[r.Chunk] = r.Output
	}
	if err := s.Put(t.Context(), store.Action{1}, put); err != nil {
		t.Fatal(err)
	}
	swept := 0
	for _, skip := range []int{0, 3, 100, 1000} {
		for _, sweeps := range []bool{false, true} {
			err := s.db.read(t.Context(), func(c *conn) error {
				id, _, err := c.locate(store.Action{1})
				f := cursor{conn: c, action: id, sweeps: sweeps}
				defer f.end()
				for i := 0; i < len(all) && err == nil; i += 1 + rng.IntN(skip+1) {
					key := all[i].Key
					at, ok, wrong := f.to(key)
					if output, want := there[key.Chunk]; ok != want || ok && !bytes.Equal(f.pack.row(at).Output, output) {
						t.Fatalf("steps up to %d, sweeps %v: key %d: found %v, want %v and its output", skip, sweeps, i, ok, want)
					}
					if err = wrong; f.sweep != nil {
						swept++
					}
					if rng.IntN(1000) == 0 {
						i = rng.IntN(i + 1)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if swept < len(put)/2 {
		t.Errorf("of more than %d keys, %d were found in a sweep", len(put), swept)
	}
}
