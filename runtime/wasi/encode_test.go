package wasi

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

// TestTreeComesBack encodes a directory, and reads it again: the digest is of the bytes,
// and whatever is cut or changed is refused or another tree.
func TestTreeComesBack(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "1", "b/c": "", "b/d/e": "three", "é": "x"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../b", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	tree, err := ReadTree(t.Context(), dir, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	b := tree.Encode()
	again, err := ParseTree(b)
	if err != nil || again.Digest() != tree.Digest() || again.Files() != 4 || again.Bytes() != tree.Bytes() || !bytes.Equal(again.Encode(), b) {
		t.Fatalf("%v, %+v", err, again)
	}
	for i := range b {
		if _, err := ParseTree(b[:i]); err == nil {
			t.Errorf("%d bytes are a tree", i)
		}
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if other, err := ParseTree(changed); err == nil && other.Digest() == tree.Digest() {
			t.Errorf("byte %d makes no difference", i)
		}
	}
	longest := &node{kind: kindRegular, name: "x"} // of maxPath bytes, which ReadTree accepts
	for range (maxPath - 1) / 2 {
		longest = &node{kind: kindDirectory, name: "d", children: []*node{longest}}
	}
	longest.name += "d"
	if _, err := ParseTree((&node{kind: kindDirectory, children: []*node{longest}}).encode([]byte(treeHead))); err != nil {
		t.Errorf("a path of %d bytes: %v", maxPath, err)
	}
	longest.name += "d"
	if _, err := ParseTree((&node{kind: kindDirectory, children: []*node{longest}}).encode([]byte(treeHead))); err == nil {
		t.Errorf("a path of %d bytes is accepted", maxPath+1)
	}
	for _, name := range []string{"..", ".", "a/b", "a\x00", "\xff"} {
		n := &node{kind: kindDirectory, children: []*node{{kind: kindRegular, name: name}}}
		if _, err := ParseTree(n.encode([]byte(treeHead))); err == nil {
			t.Errorf("%q is a name", name)
		}
	}
}
