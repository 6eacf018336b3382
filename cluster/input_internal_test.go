package cluster

import (
	"bytes"
	"testing"
)

// TestDecodeSegment reads chunks of all kinds of sizes back, and refuses segments that are
// damaged or have another number of chunks.
func TestDecodeSegment(t *testing.T) {
	var b []byte
	var chunks [][]byte
	for i := range 1000 {
		chunks = append(chunks, bytes.Repeat([]byte{byte(i)}, i%300))
		b = appendChunk(b, chunks[i])
	}
	spans, ok := decodeSegment(b, len(chunks))
	if !ok || len(spans) != len(chunks) {
		t.Fatalf("%d chunks, %v", len(spans), ok)
	}
	s := segment{7, b, spans}
	for i, want := range chunks {
		if got := s.chunk(7 + i); !bytes.Equal(got, want) || cap(got) != len(want) {
			t.Fatalf("chunk %d is %x with room for %d, want %x", i, got, cap(got), want)
		}
	}
	if s.has(6) || !s.has(7) || !s.has(1006) || s.has(1007) {
		t.Error("has is wrong at an end")
	}
	for name, bad := range map[string]struct {
		b     []byte
		count int
	}{
		"one chunk less":  {b, len(chunks) + 1},
		"one chunk more":  {b, len(chunks) - 1},
		"negative":        {b, -1},
		"cut":             {b[:len(b)-1], len(chunks)},
		"length too long": {[]byte{3, 1, 2}, 1},
		"huge length":     {append(bytes.Repeat([]byte{0xff}, 9), 1), 1},
		"no length":       {bytes.Repeat([]byte{0x80}, 11), 1},
	} {
		if _, ok := decodeSegment(bad.b, bad.count); ok {
			t.Errorf("%s: it was accepted", name)
		}
	}
	if n := testing.AllocsPerRun(10, func() { decodeSegment(b, len(chunks)) }); n > 1 {
		t.Errorf("it makes %v allocations, want one for all chunks", n)
	}
}
