package rewrite_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// data returns an active segment at an address.
func data(at int32, contents string) []byte {
	place := []byte{0x41}
	for v := at; ; v >>= 7 {
		if v >= -64 && v <= 63 {
			place = append(place, byte(v)&0x7f)
			break
		}
		place = append(place, byte(v)|0x80)
	}
	return join([]byte{0}, place, []byte{0x0b}, uleb(nil, len(contents)), []byte(contents))
}

// withData returns a module with one page of memory, a global i32 of 70 and
// data segments. If it has code, the code refers to segment 0.
func withData(imported bool, code []byte, segments ...[]byte) []byte {
	section := func(id byte, contents []byte) []byte { return join([]byte{id}, uleb(nil, len(contents)), contents) }
	m := join([]byte("\x00asm\x01\x00\x00\x00"), section(1, []byte("\x01\x60\x00\x00")))
	if imported {
		m = join(m, section(2, []byte("\x01\x04host\x03mem\x02\x00\x01")))
	}
	m = join(m, section(3, []byte{1, 0}))
	if !imported {
		m = join(m, section(5, []byte{1, 0, 1}))
	}
	m = join(m, section(6, []byte("\x01\x7f\x00\x41\xc6\x00\x0b")))
	m = join(m, section(7, []byte("\x01\x03mem\x02\x00")))
	m = join(m, section(12, uleb(nil, len(segments))))
	m = join(m, section(10, join([]byte{1}, uleb(nil, len(code)+2), []byte{0}, code, []byte{0x0b})))
	return join(m, section(11, append(uleb(nil, len(segments)), bytes.Join(segments, nil)...)))
}

func segmentsOf(t *testing.T, wasm []byte) int {
	t.Helper()
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		t.Fatalf("%v", problems[0])
	}
	return m.Data
}

// TestJoinedData checks the number of remaining segments, and that the memory
// is unchanged.
func TestJoinedData(t *testing.T) {
	far := data(1000, "far")
	for name, test := range map[string]struct {
		wasm []byte
		want int
	}{
		"close":           {withData(false, nil, data(0, "ab"), data(10, "cd"), data(44, "e")), 1},
		"a gap too wide":  {withData(false, nil, data(0, "ab"), data(35, "cd")), 2},
		"out of order":    {withData(false, nil, far, data(8, "ab"), data(0, "cd")), 2},
		"adjacent, empty": {withData(false, nil, data(0, "ab"), data(2, ""), data(2, "cd"), far), 2},
		"at the end":      {withData(false, nil, data(65530, "ab"), data(65534, "cd")), 1},
		"overlapping":     {withData(false, nil, data(0, "abc"), data(2, "de"), far), 3},
		"a global":        {withData(false, nil, data(0, "ab"), []byte("\x00\x23\x00\x0b\x01x"), data(4, "cd")), 3},
		"passive":         {withData(false, nil, data(0, "ab"), []byte("\x01\x01x"), data(4, "cd")), 3},
		"data.drop":       {withData(false, []byte{0xfc, 9, 0}, data(0, "ab"), data(4, "cd")), 2},
		"imported":        {withData(true, nil, data(0, "ab"), data(4, "cd")), 2},
	} {
		t.Run(name, func(t *testing.T) {
			for _, o := range []rewrite.Options{{}, {Metering: true}} {
				result := rewritten(t, test.wasm, o)
				if got := segmentsOf(t, result.Wasm); got != test.want {
					t.Errorf("%d segments, want %d", got, test.want)
				}
				if name == "imported" || name == "a global" { // WebAssembly 2.0 and modules that need a host are refused by the engine
					continue
				}
				sameMemory(t, test.wasm, result.Wasm)
			}
		})
	}
}

func sameMemory(t *testing.T, a, b []byte) {
	t.Helper()
	var memories [][]byte
	for _, wasm := range [][]byte{a, b} {
		memory := instance(t, wazero.NewRuntimeConfigInterpreter(), wasm).ExportedMemory("mem")
		contents, _ := memory.Read(0, memory.Size())
		memories = append(memories, contents)
	}
	if !bytes.Equal(memories[0], memories[1]) {
		t.Error("the memory differs")
	}
}

// TestJoinedDataBeyondMemory has a segment that does not fit. The module is
// refused with and without the other segments.
func TestJoinedDataBeyondMemory(t *testing.T) {
	for _, last := range [][]byte{data(65535, "ab"), data(65537, ""), data(-1, "a"), data(-1, "")} {
		wasm := withData(false, nil, data(65500, "ab"), last, data(65510, "cd"))
		for _, wasm := range [][]byte{wasm, rewritten(t, wasm, rewrite.Options{}).Wasm} {
			r := wazero.NewRuntimeWithConfig(t.Context(), wazero.NewRuntimeConfigInterpreter())
			if _, err := r.Instantiate(t.Context(), wasm); err == nil {
				t.Errorf("%x was instantiated", last)
			}
			r.Close(t.Context())
		}
	}
}

// TestJoinedDataAtRandom compares memories after segments at random addresses.
func TestJoinedDataAtRandom(t *testing.T) {
	seed := rand.Uint64()
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	joined := 0
	for range 300 {
		var segments [][]byte
		for at, n := int32(0), rng.IntN(40); n > 0; n-- {
			at += rng.Int32N(60) // sometimes inside the previous one
			contents := fmt.Sprintf("%0*d", rng.IntN(20), n)
			segments = append(segments, data(at, contents))
			if rng.IntN(300) > 0 {
				at += int32(len(contents))
			}
		}
		rng.Shuffle(len(segments), func(i, j int) { segments[i], segments[j] = segments[j], segments[i] })
		wasm := withData(false, nil, segments...)
		result := rewritten(t, wasm, rewrite.Options{})
		if segmentsOf(t, result.Wasm) < len(segments) {
			joined++
		}
		sameMemory(t, wasm, result.Wasm)
	}
	if joined < 100 {
		t.Errorf("segments of %d modules were joined", joined)
	}
}
