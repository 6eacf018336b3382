package merkle_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// TestDigesterIsATree has portions that end by their count, and portions that end
// by their size in the middle of subtrees.
func TestDigesterIsATree(t *testing.T) {
	big := bytes.Repeat([]byte{7}, 1<<20)
	r := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{0, 1, 2, 3, 4095, 4096, 4097, 20_000} {
		for _, bigOnes := range []int{0, 5} {
			var tree merkle.Tree
			d := merkle.NewDigester(nil)
			for i := range n {
				item := fmt.Appendf(nil, "item %d", i)
				if bigOnes > 0 && r.IntN(n) < bigOnes {
					item = append(item, big[:r.IntN(len(big))]...)
				}
				id := abi.IntID(uint64(i))
				if i%3 == 0 {
					id = abi.TextID(fmt.Sprint("chunk ", i))
				}
				tree.AddEntry(id, item)
				d.Add(id, item)
				clear(item) // It was copied.
			}
			if got := d.Root(); got != tree.Root() || d.Len() != tree.Len() {
				t.Errorf("%d leaves, %d of them large: root %x of %d, expected %x", n, bigOnes, got, d.Len(), tree.Root())
			}
			d.Close()
		}
	}
}

// TestDigesterProves compares with a Prover that hashes one leaf after another.
func TestDigesterProves(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, n := range []int{1, 2, 3, 100, 4096, 4097, 30_000} {
		for _, share := range []float64{0, 0.01, 0.3, 1} {
			var indices []uint64
			for i := range n {
				if r.Float64() < share {
					indices = append(indices, uint64(i))
				}
			}
			var alone merkle.Prover
			side := merkle.NewProver(indices)
			d := merkle.NewDigester(side)
			next := indices
			large := r.IntN(n)
			for i := range n {
				item := fmt.Appendf(nil, "item %d", i)
				if i == large {
					item = append(item, make([]byte, 1<<20)...)
				}
				if len(next) > 0 && next[0] == uint64(i) {
					alone.Keep()
					next = next[1:]
				}
				alone.AddEntry(abi.IntID(uint64(i)), item)
				d.Add(abi.IntID(uint64(i)), item)
			}
			if got, want := d.Root(), alone.Root(); got != want || side.Root() != want {
				t.Fatalf("%d leaves: root %x, expected %x", n, got, want)
			}
			d.Close()
			for _, index := range indices {
				got, err := side.Proof(index)
				want, wantErr := alone.Proof(index)
				if err != nil || wantErr != nil || got.Index != want.Index || got.Size != want.Size || !slices.Equal(got.Path, want.Path) {
					t.Fatalf("%d leaves: proof of %d is %v, %v; expected %v, %v", n, index, got, err, want, wantErr)
				}
			}
			if _, err := side.Proof(uint64(n)); err == nil {
				t.Errorf("%d leaves: one more is proved", n)
			}
		}
	}
}

// TestProvesAgreesWithProofs asks in any order, and with wrong leaves and roots
// before and after right ones.
func TestProvesAgreesWithProofs(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, n := range []uint64{1, 2, 3, 7, 64, 100, 5000} {
		var indices []uint64
		for i := range n {
			if n < 10 || r.IntN(5) == 0 {
				indices = append(indices, i)
			}
		}
		p := merkle.NewProver(indices)
		d := merkle.NewDigester(p)
		for i := range n {
			d.Add(abi.IntID(i), fmt.Append(nil, i))
		}
		root := d.Root()
		d.Close()
		leaf := func(i uint64) [32]byte { return merkle.HashEntry(abi.IntID(i), fmt.Append(nil, i)) }
		for _, index := range indices {
			if !p.Proves(index, leaf(index), root) {
				t.Fatalf("%d leaves: leaf %d is not proved", n, index)
			}
		}
		for range 300 {
			index, asked, want := r.Uint64N(n), r.Uint64N(n), root
			if r.IntN(2) == 0 {
				index = asked
			}
			if r.IntN(10) == 0 {
				want[r.IntN(len(want))] ^= 1
			}
			proof, err := p.Proof(index)
			got, rootErr := proof.Root(leaf(asked))
			holds := err == nil && rootErr == nil && got == want
			if holds != (index == asked && err == nil && want == root) || p.Proves(index, leaf(asked), want) != holds {
				t.Fatalf("%d leaves: leaf %d as leaf %d: the proof holds: %v, and Proves says %v", n, asked, index, holds, !holds)
			}
		}
	}
}

func TestDigesterOfFewerLeavesThanAreToBeProved(t *testing.T) {
	p := merkle.NewProver([]uint64{0, 5, 1 << 40})
	d := merkle.NewDigester(p)
	defer d.Close()
	d.Add(abi.IntID(0), abi.Null)
	root := d.Root()
	proof, err := p.Proof(0)
	if got, rootErr := proof.Root(merkle.HashEntry(abi.IntID(0), abi.Null)); err != nil || rootErr != nil || got != root {
		t.Errorf("root %x, errors %v and %v; expected %x", got, err, rootErr, root)
	}
	for _, index := range []uint64{1, 5, 1 << 40} {
		if _, err := p.Proof(index); err == nil || p.Proves(index, merkle.HashEntry(abi.IntID(0), abi.Null), root) {
			t.Errorf("leaf %d is proved, of a tree of one", index)
		}
	}
}

// BenchmarkDigester hashes small entries; if any are proved, one in a hundred is.
// An operation is an entry.
func BenchmarkDigester(b *testing.B) {
	item := []byte{0x1a, 1, 2, 3, 4}
	for _, every := range []int{0, 100} {
		b.Run(fmt.Sprint("proofs of ", every), func(b *testing.B) {
			var indices []uint64
			for i := 0; every > 0 && i < b.N; i += every {
				indices = append(indices, uint64(i))
			}
			d := merkle.NewDigester(merkle.NewProver(indices))
			defer d.Close()
			for i := range b.N {
				d.Add(abi.IntID(uint64(i)), item)
			}
			d.Root()
		})
	}
}
