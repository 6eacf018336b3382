package receipt

import (
	"strings"
	"testing"
)

// A document that is too large to be read again is not written.
func TestTooLargeToBeRead(t *testing.T) {
	p := &Proof{Output: Hex{0}, Path: []HashText{}, Size: 1, Version: Version}
	b, err := encode(p, MaxProofSize)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := encode(p, len(b)); err != nil || len(again) != len(b) {
		t.Errorf("%d bytes, and as many allowed: %v", len(b), err)
	}
	if _, err := encode(p, len(b)-1); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("%d bytes, and one less allowed: %v", len(b), err)
	}
	if err := decode(b, new(Proof), len(b), ErrProofForm); err != nil {
		t.Error(err)
	}
}
