package merkle_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// naive is a literal translation of RFC 6962, section 2.1.
func naive(leaves [][]byte) [32]byte {
	switch len(leaves) {
	case 0:
		return sha256.Sum256(nil)
	case 1:
		return sha256.Sum256(append([]byte{0}, leaves[0]...))
	}
	k := 1
	for k*2 < len(leaves) {
		k *= 2
	}
	left, right := naive(leaves[:k]), naive(leaves[k:])
	return sha256.Sum256(append(append([]byte{1}, left[:]...), right[:]...))
}

func TestRootIsThatOfTheDefinition(t *testing.T) {
	var leaves [][]byte
	var tree merkle.Tree
	for n := range 301 {
		if got, want := tree.Root(), naive(leaves); got != want {
			t.Fatalf("%d leaves: root %x, want %x", n, got, want)
		}
		if tree.Len() != uint64(n) {
			t.Fatalf("Len() = %d, want %d", tree.Len(), n)
		}
		leaf := fmt.Appendf(nil, "leaf %d", n)
		leaves = append(leaves, leaf)
		tree.Add(leaf)
	}
}

// The leaves and roots are the test vectors of Certificate Transparency logs.
func TestKnownRoots(t *testing.T) {
	leaves := []string{"", "00", "10", "2021", "3031", "40414243", "5051525354555657",
		"606162636465666768696a6b6c6d6e6f"}
	roots := []string{
		"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
		"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
		"fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
		"aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
		"d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
		"4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
		"76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
		"ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
		"5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
	}
	var tree merkle.Tree
	for n, want := range roots {
		if got := tree.Root(); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d leaves: root %x, want %s", n, got, want)
		}
		if n < len(leaves) {
			leaf, err := hex.DecodeString(leaves[n])
			if err != nil {
				t.Fatal(err)
			}
			tree.Add(leaf)
		}
	}
}

func TestAddEntryHashesTheEntry(t *testing.T) {
	entries := []struct {
		id   abi.ID
		item []byte
	}{
		{abi.IntID(0), []byte{0xf6}},
		{abi.IntID(1 << 40), []byte{0x82, 0x01, 0x02}},
		{abi.TextID(""), []byte{0x60}},
		{abi.TextID(strings.Repeat("long", 100)), []byte{0x41, 0xff}},
		{abi.TextID("b"), nil},
	}
	var byEntry, byLeaf merkle.Tree
	for _, e := range entries {
		byEntry.AddEntry(e.id, e.item)
		byLeaf.Add(abi.AppendEntry(nil, e.id, e.item))
		if byEntry.Root() != byLeaf.Root() {
			t.Fatalf("after entry %v: AddEntry and Add differ", e.id)
		}
	}
}

// TestSpans cuts trees of every size anywhere: a span gives the same root as its
// leaves.
func TestSpans(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	item := []byte{0x01}
	for total := range 200 {
		var whole, parts merkle.Tree
		var span merkle.Span
		for from := 0; from < total; {
			to := from + 1 + rng.IntN(total-from)
			span.Reset(uint64(from))
			for i := from; i < to; i++ {
				whole.AddEntry(abi.IntID(uint64(i)), item)
				if rng.IntN(10) == 0 && span.Len() == 0 && i == from { // a single leaf, too
					parts.AddEntry(abi.IntID(uint64(i)), item)
					span.Reset(uint64(i + 1))
					continue
				}
				span.AddEntry(abi.IntID(uint64(i)), item)
			}
			parts.Append(&span)
			from = to
		}
		if whole.Root() != parts.Root() || whole.Len() != parts.Len() {
			t.Fatalf("%d leaves: the root of spans differs", total)
		}
	}
}

func TestSpanElsewhere(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a span was appended where it does not belong")
		}
	}()
	var tree merkle.Tree
	var span merkle.Span
	span.Reset(1)
	tree.Append(&span)
}

func TestLeavesAreNotNodes(t *testing.T) {
	var two, one merkle.Tree
	two.Add([]byte("a"))
	two.Add([]byte("b"))
	left, right := naive([][]byte{[]byte("a")}), naive([][]byte{[]byte("b")})
	one.Add(append(left[:], right[:]...))
	if two.Root() == one.Root() {
		t.Error("a leaf made of two hashes has the root of the tree over them")
	}
}

func TestLeavesAllocateNothing(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector makes code allocate")
	}
	var tree merkle.Tree
	id, item := abi.TextID("an id"), make([]byte, 1000)
	tree.AddEntry(id, item)
	var span merkle.Span
	for range 2000 { // until its list of subtrees has its final length
		span.AddEntry(id, item)
	}
	if n := testing.AllocsPerRun(1000, func() { tree.AddEntry(id, item); tree.Add(item); span.AddEntry(id, item) }); n != 0 {
		t.Errorf("%v allocations a leaf, want none", n)
	}
}

func BenchmarkAddEntry(b *testing.B) {
	for _, size := range []int{5, 1 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var tree merkle.Tree
			item := make([]byte, size)
			b.SetBytes(int64(size))
			for n := range b.N {
				tree.AddEntry(abi.IntID(uint64(n)), item)
			}
		})
	}
}

// TestNodes sends spans as their nodes: the tree is the same. Nodes at another place, or cut,
// are an error.
func TestNodes(t *testing.T) {
	for total := range 40 {
		var plain, tree merkle.Tree
		for i := range total {
			plain.AddEntry(abi.IntID(uint64(i)), []byte{byte(i)})
		}
		for from := 0; from < total; {
			to := min(total, from+1+rand.IntN(9))
			var s merkle.Span
			s.Reset(uint64(from))
			for i := from; i < to; i++ {
				s.AddEntry(abi.IntID(uint64(i)), []byte{byte(i)})
			}
			nodes := s.AppendNodes(nil)
			if err := tree.AddNodes(nodes); err != nil {
				t.Fatal(err)
			}
			if err := tree.AddNodes(nodes[:32]); err == nil {
				t.Fatal("half of a node is taken")
			}
			from = to
		}
		if tree.Len() != uint64(total) || tree.Root() != plain.Root() {
			t.Fatalf("%d leaves: another root", total)
		}
	}
	var tree merkle.Tree
	tree.Add(nil)
	if err := tree.AddNodes(make([]byte, 33)); err != nil {
		t.Error(err)
	}
	if err := tree.AddNodes(append([]byte{2}, make([]byte, 32)...)); err == nil {
		t.Error("a subtree of four leaves begins at leaf 2")
	}
	if err := tree.AddNodes(append([]byte{200}, make([]byte, 32)...)); err == nil {
		t.Error("level 200")
	}
}
