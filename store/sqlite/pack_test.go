package sqlite

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// packsOf returns the packs of an action in order, and fails the test if they overlap
// or one is not whole.
func packsOf(t testing.TB, s *Store, action store.Action) (packs []pack) {
	t.Helper()
	err := s.do(t.Context(), "read", func(db *database) error {
		return db.read(t.Context(), func(c *conn) error {
			at, ok, err := c.locate(action)
			if err != nil || !ok {
				return err
			}
			return c.rows(func(r *columns) {
				var p pack
				p.read(r.blob(), r.blob(), r.blob(), r.blob())
				packs = append(packs, p)
			}, "select ord, chunk, places, body from packs where action=? order by ord, chunk", at)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	var last *row
	for i, p := range packs {
		rows := p.rows()
		if !p.whole || len(rows) == 0 || !bytes.Equal(rows[0].order, p.order) || !bytes.Equal(rows[0].chunk, p.chunk) {
			t.Fatalf("pack %d has %d outputs, whole %v, and begins with %x", i, len(rows), p.whole, p.order)
		}
		for j := range rows {
			if last != nil && compareRows(*last, rows[j]) >= 0 {
				t.Fatalf("output %d of pack %d comes after the one that it should follow", j, i)
			}
			last = &rows[j]
		}
	}
	return packs
}

// TestPacksDoNotOverlap puts outputs in random pieces and removes some: the packs
// stay in order and well filled, and nothing is lost.
func TestPacksDoNotOverlap(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	s := open(t, t.TempDir(), Options{})
	all := records(0, 4000)
	for i := range all {
		if rng.IntN(50) == 0 {
			all[i].Output = bytes.Repeat(all[i].Chunk[:], rng.IntN(400))
		}
		if rng.IntN(50) == 0 { // an id that is a long text
			all[i].Order = append(all[i].Order, bytes.Repeat([]byte{'x'}, rng.IntN(3000))...)
		}
	}
	there := map[store.Digest]store.Record{}
	shuffled := slices.Clone(all)
	rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for len(shuffled) > 0 {
		n := min(len(shuffled), 1+rng.IntN(300))
		if err := s.Put(t.Context(), store.Action{1}, shuffled[:n]); err != nil {
			t.Fatal(err)
		}
		for _, r := range shuffled[:n] {
			there[r.Chunk] = r
		}
		shuffled = shuffled[n:]
		if rng.IntN(4) > 0 {
			continue
		}
		var gone []store.Digest
		for chunk := range there {
			if gone = append(gone, chunk); len(gone) == 20 {
				break
			}
		}
		if err := s.remove(t.Context(), store.Action{1}, gone); err != nil {
			t.Fatal(err)
		}
		for _, chunk := range gone {
			delete(there, chunk)
		}
		packsOf(t, s, store.Action{1})
	}
	packs := packsOf(t, s, store.Action{1})
	if len(packs) > len(there)/4 {
		t.Errorf("%d packs for %d outputs", len(packs), len(there))
	}
	var keys []store.Key
	for _, r := range there {
		keys = append(keys, r.Key)
	}
	found := 0
	err := s.Get(t.Context(), store.Action{1}, keys, func(i int, v store.Value) error {
		if found++; !bytes.Equal(v.Output, there[keys[i].Chunk].Output) {
			t.Errorf("a wrong output under %x", keys[i].Order)
		}
		return nil
	})
	if err != nil || found != len(there) {
		t.Errorf("%d of %d outputs, %v", found, len(there), err)
	}
}

// TestPacksFillPages shows that a job of tiny outputs takes hardly more space than
// they do, with one page for each pack.
func TestPacksFillPages(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	fill(t, s, store.Action{1}, 20_000, 5000)
	var pages int64
	err := s.do(t.Context(), "read", func(db *database) error {
		return db.read(t.Context(), func(c *conn) error {
			_, err := c.ints("pragma page_count", []*int64{&pages})
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	packs := packsOf(t, s, store.Action{1})
	log := int64(20_000*18/pageSize + 20)
	if most := int64(len(packs)) + int64(len(packs)/40) + log; pages > most {
		t.Errorf("%d packs and their log take %d pages, want at most %d", len(packs), pages, most)
	}
	if len(packs) > 20_000/38 {
		t.Errorf("%d packs", len(packs))
	}
}

// TestView reads the outputs through the view, as users with other tools do.
func TestView(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	all := records(0, 200)
	for i := range all {
		all[i].Fuel = uint64(i)
	}
	all[7].Output = nil
	all[9].Output = bytes.Repeat([]byte{1, 0, 2}, 5000)
	if err := s.Put(t.Context(), store.Action{1}, all); err != nil {
		t.Fatal(err)
	}
	i := 0
	err := s.do(t.Context(), "read", func(db *database) error {
		return db.read(t.Context(), func(c *conn) error {
			return c.rows(func(r *columns) {
				sum, _ := checksum(store.Action{1}, all[i].Key, all[i].Value, nil)
				got := fmt.Sprintf("%x %x %x %d %x", r.blob(), r.blob(), r.blob(), r.int(), r.blob())
				if want := fmt.Sprintf("%x %x %x %d %x", all[i].Order, all[i].Chunk, sum, i, all[i].Output); got != want {
					t.Errorf("output %d: %.200s, want %.200s", i, got, want)
				}
				i++
			}, "select ord, chunk, checksum, fuel, output from outputs order by ord")
		})
	})
	if err != nil || i != len(all) {
		t.Errorf("%d outputs, %v", i, err)
	}
}

// FuzzPack reads packs of a damaged file: the outputs are within their pack.
func FuzzPack(f *testing.F) {
	b := &packer{}
	for _, r := range records(0, 3) {
		b.addNew(store.Action{1}, &r)
	}
	for _, p := range b.all() {
		f.Add(p.places, p.body)
	}
	for _, places := range []string{"", "[", "[[", "[[]]", "[[0,0,0,0]", "[[0,0,0,0],", "[[0,0,0,0]]", "[[1,2,3,18446744073709551615]]",
		"[[1,2,3,18446744073709551616]]", "[[18446744073709551615,1,1,1]]", "[[2147483647,2147483647,2147483647,1]]", "[[0,,0,0]]", "[[00,0,0,0]]"} {
		f.Add([]byte(places), make([]byte, 48))
	}
	f.Fuzz(func(t *testing.T, places, body []byte) {
		var p pack
		p.read(nil, nil, places, body)
		total := 0
		for _, r := range p.rows() {
			if len(r.chunk) != len(store.Digest{}) || len(r.sum) != checksumSize {
				t.Fatal(len(r.chunk), len(r.sum))
			}
			total += len(r.order) + len(r.Output)
		}
		if most := len(p.slots) * len(body); total > most {
			t.Errorf("%d bytes of outputs, at most %d", total, most)
		}
		p.find(records(0, 1)[0].Key)
		if len(p.slots) > 0 {
			p.last()
		}
	})
}
