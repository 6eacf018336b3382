package merkle_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// path is a literal translation of RFC 6962, section 2.1.1.
func path(m int, leaves [][]byte) [][sha256.Size]byte {
	if len(leaves) <= 1 {
		return nil
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	if m < k {
		return append(path(m, leaves[:k]), rootOf(leaves[k:]))
	}
	return append(path(m-k, leaves[k:]), rootOf(leaves[:k]))
}

func rootOf(leaves [][]byte) [sha256.Size]byte {
	var t merkle.Tree
	for _, leaf := range leaves {
		t.Add(leaf)
	}
	return t.Root()
}

func numbered(n int) (leaves [][]byte) {
	for i := range n {
		leaves = append(leaves, fmt.Appendf(nil, "leaf %d", i))
	}
	return leaves
}

// prove returns the root, and a proof for each of the indices.
func prove(t *testing.T, leaves [][]byte, indices ...uint64) ([sha256.Size]byte, []merkle.Proof) {
	t.Helper()
	var p merkle.Prover
	for i, leaf := range leaves {
		if slices.Contains(indices, uint64(i)) {
			p.Keep()
		}
		p.Add(leaf)
	}
	root := p.Root()
	var proofs []merkle.Proof
	for _, index := range indices {
		proof, err := p.Proof(index)
		if err != nil {
			t.Fatal(err)
		}
		proofs = append(proofs, proof)
	}
	return root, proofs
}

func leafHash(leaf []byte) [sha256.Size]byte { return sha256.Sum256(append([]byte{0}, leaf...)) }

func TestProofsAreTheAuditPathsOfTheRFC(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := numbered(n)
		var all []uint64
		for i := range n {
			all = append(all, uint64(i))
		}
		root, proofs := prove(t, leaves, all...)
		if want := rootOf(leaves); root != want {
			t.Fatalf("%d leaves: root %x, expected %x", n, root, want)
		}
		for i, proof := range proofs {
			_, alone := prove(t, leaves, uint64(i))
			want := path(i, leaves)
			for _, p := range []merkle.Proof{proof, alone[0]} {
				if fmt.Sprint(p.Path) != fmt.Sprint(want) {
					t.Fatalf("leaf %d of %d: the path differs from the RFC's", i, n)
				}
				if got, err := p.Root(leafHash(leaves[i])); err != nil || got != root {
					t.Fatalf("leaf %d of %d: root %x, error %v, expected %x", i, n, got, err, root)
				}
			}
		}
	}
}

func TestProofsOfSomeLeavesOfMany(t *testing.T) {
	const n = 5000
	leaves := numbered(n)
	r := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		var indices []uint64
		for range 1 + r.IntN(40) { // some of them twice
			indices = append(indices, r.Uint64N(n))
		}
		root, proofs := prove(t, leaves, indices...)
		for k, proof := range proofs {
			if got, err := proof.Root(leafHash(leaves[indices[k]])); err != nil || got != root {
				t.Fatalf("leaf %d: root %x, error %v, expected %x", indices[k], got, err, root)
			}
		}
	}
}

// TestProofsOfAnythingElseFail changes each part of a proof.
func TestProofsOfAnythingElseFail(t *testing.T) {
	for n := 1; n <= 20; n++ {
		leaves := numbered(n)
		for i := range n {
			root, proofs := prove(t, leaves, uint64(i))
			holds := func(p merkle.Proof, leaf []byte) bool {
				got, err := p.Root(leafHash(leaf))
				return err == nil && got == root
			}
			good := proofs[0]
			if holds(good, []byte("another")) {
				t.Fatalf("leaf %d of %d: another leaf passes", i, n)
			}
			for j := range n {
				if moved := (merkle.Proof{Index: uint64(j), Size: uint64(n), Path: good.Path}); j != i && holds(moved, leaves[i]) {
					t.Fatalf("leaf %d of %d passes for leaf %d", i, n, j)
				}
			}
			for k := range good.Path {
				bent := merkle.Proof{Index: good.Index, Size: good.Size, Path: append([][sha256.Size]byte{}, good.Path...)}
				bent.Path[k][3] ^= 1
				if holds(bent, leaves[i]) {
					t.Fatalf("leaf %d of %d: a changed hash %d passes", i, n, k)
				}
			}
			long := merkle.Proof{Index: good.Index, Size: good.Size, Path: append(append([][sha256.Size]byte{}, good.Path...), root)}
			if _, err := long.Root(leafHash(leaves[i])); !errors.Is(err, merkle.ErrProof) {
				t.Fatalf("leaf %d of %d: a longer path gives %v", i, n, err)
			}
			if len(good.Path) > 0 {
				short := merkle.Proof{Index: good.Index, Size: good.Size, Path: good.Path[1:]}
				if _, err := short.Root(leafHash(leaves[i])); !errors.Is(err, merkle.ErrProof) {
					t.Fatalf("leaf %d of %d: a shorter path gives %v", i, n, err)
				}
			}
		}
	}
	outside := merkle.Proof{Index: 1, Size: 1}
	if _, err := outside.Root(leafHash(nil)); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("an index beyond the leaves gives %v", err)
	}
	none := merkle.Proof{}
	if _, err := none.Root(leafHash(nil)); !errors.Is(err, merkle.ErrProof) {
		t.Errorf("a tree of no leaves gives %v", err)
	}
}

func TestProofIsOfKeptLeavesAlone(t *testing.T) {
	var p merkle.Prover
	if root := p.Root(); root != sha256.Sum256(nil) {
		t.Errorf("no leaves have the root %x", root)
	}
	p.Add([]byte("a"))
	p.Keep()
	p.Add([]byte("b"))
	p.Keep() // of a leaf that never comes
	p.Root()
	for _, index := range []uint64{0, 2, 3} {
		if _, err := p.Proof(index); err == nil {
			t.Errorf("a proof was made of leaf %d", index)
		}
	}
	if _, err := p.Proof(1); err != nil {
		t.Error(err)
	}
}

func TestHashEntryIsALeaf(t *testing.T) {
	entry := abi.AppendEntry(nil, abi.TextID("a"), []byte{7})
	if got := merkle.HashEntry(abi.TextID("a"), []byte{7}); got != leafHash(bytes.Clone(entry)) {
		t.Errorf("%x is not the leaf of [id, item]", got)
	}
}

func FuzzProof(f *testing.F) {
	f.Add(uint64(3), uint64(7), []byte("path"))
	f.Fuzz(func(t *testing.T, index, size uint64, path []byte) {
		p := merkle.Proof{Index: index, Size: size}
		for len(path) >= sha256.Size {
			p.Path = append(p.Path, [sha256.Size]byte(path))
			path = path[sha256.Size:]
		}
		sum, err := p.Root(leafHash(nil))
		if err != nil && !errors.Is(err, merkle.ErrProof) {
			t.Errorf("error %v", err)
		}
		if err == nil && len(p.Path) == 0 && (size != 1 || sum != leafHash(nil)) {
			t.Errorf("a proof without a path holds in a tree of %d", size)
		}
	})
}
