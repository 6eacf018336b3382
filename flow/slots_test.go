package flow

import "testing"

// TestSlots keeps data of a root: memory that others may have is not used again, and a
// digest counts for one step only.
func TestSlots(t *testing.T) {
	s := &slots{}
	s.hold(5, 7)
	it := s.root(6)
	it.data = s.keep(it, []byte("first"), true)
	shared := it.data
	if it.data = s.keep(it, []byte("other"), false); string(shared) != "first" {
		t.Errorf("data that others have is %q, want first", shared)
	}
	if _, known := s.sumOf(it); known {
		t.Error("a digest is known before any was noted")
	}
	sum := digestOf(it.data)
	s.note(it, sum)
	it.steps++
	if got, known := s.sumOf(it); !known || got != sum {
		t.Errorf("digest %x, known %v, want %x", got, known, sum)
	}
	it.steps++
	if _, known := s.sumOf(it); known {
		t.Error("the digest of an earlier step counts")
	}
}
