// Package sdk_test tests the SDKs of all languages against one table: it runs the
// guest conform of each, and its wordcount, on the real host.
package sdk_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/event"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// language is one SDK. Its module is a file next to its source, or is built by a
// function, which skips the test if it cannot build.
type language struct {
	name               string
	conform, wordcount func(t *testing.T) []byte
}

var languages = []language{
	{"c", file("c/conform.wasm"), file("../guest-examples/wordcount/c/wordcount.wasm")},
	{"c++", cppGuest("c/conform.c"), file("../guest-examples/wordcount/c/wordcount.wasm")},
	{"go", goGuest("./go/conform"), goGuest("../guest-examples/wordcount/go")},
	{"rust", file("rust/conform.wasm"), file("../guest-examples/wordcount/rust/wordcount.wasm")},
	{"assemblyscript", file("assemblyscript/conform.wasm"), file("../guest-examples/wordcount/assemblyscript/wordcount.wasm")},
	{"zig", file("zig/conform.wasm"), file("../guest-examples/wordcount/zig/wordcount.wasm")},
}

func file(path string) func(t *testing.T) []byte {
	return func(t *testing.T) []byte {
		t.Helper()
		wasm, err := os.ReadFile(filepath.FromSlash(path))
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
}

// goGuest builds a guest in Go, only once for all tests.
func goGuest(dir string) func(t *testing.T) []byte {
	build := sync.OnceValues(func() ([]byte, error) {
		out, err := os.CreateTemp("", "guest-*.wasm")
		if err != nil {
			return nil, err
		}
		defer os.Remove(out.Name())
		defer out.Close()
		build := exec.Command("go", "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-w", "-o", out.Name(), dir)
		build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
		if text, err := build.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%w\n%s", err, text)
		}
		return os.ReadFile(out.Name())
	})
	return func(t *testing.T) []byte {
		t.Helper()
		if testing.Short() || raceEnabled {
			t.Skip("a Go guest takes seconds to compile, and 20 under the race detector: run without -short and -race")
		}
		wasm, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
}

// cppGuest builds a guest in C as C++.
func cppGuest(source string) func(t *testing.T) []byte {
	build := sync.OnceValues(func() ([]byte, error) {
		return exec.Command("clang-19", "--target=wasm32-unknown-unknown", "-x", "c++", "-std=c++17", "-fno-exceptions", "-fno-rtti",
			"-O2", "-mbulk-memory", "-Wall", "-Wextra", "-Werror", "-ffreestanding", "-nostdlib", "-Wl,--no-entry,--stack-first", "-o", "/dev/stdout", source).Output()
	})
	return func(t *testing.T) []byte {
		t.Helper()
		if _, err := exec.LookPath("clang-19"); err != nil {
			t.Skip(err)
		}
		wasm, err := build()
		if err != nil {
			t.Fatal(err)
		}
		return wasm
	}
}

// eachConform runs a test with the conform guest of each language.
func eachConform(t *testing.T, test func(t *testing.T, module []byte)) {
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) { test(t, l.conform(t)) })
	}
}

// vector is an item, and the expected output of a conform guest for it.
type vector struct{ name, bytes, preferred string }

func appendixA(t *testing.T) (vectors []vector) {
	b, err := os.ReadFile("../testdata/abi/appendix_a.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Vectors []struct{ Name, Bytes, Preferred string }
	}
	if err := json.Unmarshal(b, &file); err != nil || len(file.Vectors) != 81 {
		t.Fatal(len(file.Vectors), "examples, want 81:", err)
	}
	for _, v := range file.Vectors {
		vectors = append(vectors, vector{v.Name, string(unhex(t, v.Bytes)), string(unhex(t, v.Preferred))})
	}
	return vectors
}

// Every example of RFC 8949, appendix A comes back in its preferred form, from exec,
// and from aggregate with all of them.
func TestAppendixA(t *testing.T) {
	vectors := appendixA(t)
	eachConform(t, func(t *testing.T, module []byte) { testEcho(t, module, vectors) })
}

// testEcho runs a job whose outputs and aggregate are known.
func testEcho(t *testing.T, module []byte, vectors []vector) {
	t.Helper()
	var items [][]byte
	aggregate := abi.AppendHead(nil, abi.MajorArray, uint64(len(vectors)))
	for i, v := range vectors {
		items = append(items, []byte(v.bytes))
		aggregate = abi.AppendEntry(aggregate, abi.IntID(uint64(i)), []byte(v.preferred))
	}
	run := runJob(t, 2, &host.Job{Module: module, Settings: runtime.Settings{MaxOutput: 64 << 20, Memory: 512 << 20}}, items...)
	for _, f := range run.result.Report.Failures {
		t.Errorf("%s: %v", vectors[f.Index].name, &f.Failure)
	}
	for i, v := range vectors {
		if got := run.outputs[i]; got != nil && string(got) != v.preferred {
			t.Errorf("%s: %.50x gave %.50x (%d bytes), want %.50x", v.name, v.bytes, got, len(got), v.preferred)
		}
	}
	if !bytes.Equal(run.result.Aggregate, aggregate) {
		t.Errorf("aggregate gave %d bytes, want %d", len(run.result.Aggregate), len(aggregate))
	}
}

// Items that the appendix has no example of: every width of every head, nesting, long
// strings and containers, and unusual keys.
func TestShapes(t *testing.T) {
	vectors := slices.Concat(heads(), nested(), sized(1<<16), []vector{
		kept("keys out of order, one of them twice", "a4 6162 01 6161 02 6162 03 01 04"),
		kept("keys of all types", "a8 01 00 20 00 4101 00 6101 00 8101 00 a10102 00 c101 00 f5 00"),
		kept("a NaN as a key, twice", "a2 f97e00 01 f97e00 02"),
		kept("simple values", "88 e0 e1 f2 f3 f820 f840 f8fe f8ff"),
		kept("undefined and null are two things", "82 f7 f6"),
		kept("bignums", "84 c240 c241ff c34100 c358200102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"),
		kept("a bignum with zeros in front", "c24400000001"),
		kept("the largest tag", "dbffffffffffffffff f6"),
		kept("a tag of a tag of a map", "d9d9f7 d820 a16161 80"),
		kept("a map that asks for nothing", "a1 62646f 01"),
		{"empty strings in parts", "\x82\x5f\xff\x7f\x60\x60\xff", "\x82\x40\x60"},
		{"indefinite all the way down", "\xbf\x9f\xbf\xff\xff\x9f\x5f\x41\x01\x40\xff\xff\xff", "\xa1\x81\xa0\x81\x41\x01"},
	})
	eachConform(t, func(t *testing.T, module []byte) { testEcho(t, module, vectors) })
}

// kept returns an item that is already in its preferred form.
func kept(name, hexed string) vector {
	b, err := hex.DecodeString(strings.ReplaceAll(hexed, " ", ""))
	if err != nil {
		panic(err)
	}
	return vector{name, string(b), string(b)}
}

// heads returns integers and tags at the limits of each width, in every width that
// holds them.
func heads() (vectors []vector) {
	for _, n := range []uint64{0, 1, 23, 24, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, 1<<63 - 1, 1 << 63, 1<<64 - 1} {
		for _, major := range []byte{abi.MajorUint, abi.MajorNegint, abi.MajorTag} {
			tail := []byte{}
			if major == abi.MajorTag {
				tail = []byte{0x80}
			}
			preferred := append(abi.AppendHead(nil, major, n), tail...)
			for size := range 4 {
				if width := 8 << size; width == 64 || n < 1<<width {
					vectors = append(vectors, vector{fmt.Sprintf("head %d %d in %d bits", major, n, width),
						string(append(wideHead(major, n, size), tail...)), string(preferred)})
				}
			}
			vectors = append(vectors, vector{"head", string(preferred), string(preferred)})
		}
	}
	return vectors
}

// wideHead returns a head with an argument of 8 << size bits.
func wideHead(major byte, n uint64, size int) []byte {
	b := []byte{major<<5 | byte(24+size)}
	for shift := 8<<size - 8; shift >= 0; shift -= 8 {
		b = append(b, byte(n>>shift))
	}
	return b
}

// nested returns items of up to 200 levels.
func nested() (vectors []vector) {
	for _, depth := range []int{1, 2, 16, 100, 200} {
		for _, open := range []string{"81", "a100", "c1", "a18001", "81a1f4"} {
			levels := map[string]int{"81a1f4": 2}[open]
			v := kept(fmt.Sprint(depth, " levels of ", open), strings.Repeat(open, depth/max(levels, 1))+"00")
			if open == "a18001" { // deep through the value, not the key: a map in a map
				v = kept(fmt.Sprint(depth, " keys that are maps"), strings.Repeat("a1", depth)+"00"+strings.Repeat("00", depth))
			}
			vectors = append(vectors, v)
		}
		vectors = append(vectors, vector{fmt.Sprint(depth, " levels without a length"),
			strings.Repeat("\x9f", depth) + "\x20" + strings.Repeat("\xff", depth), strings.Repeat("\x81", depth) + "\x20"})
	}
	return vectors
}

// sized returns strings and containers of size bytes or elements, whole and in
// parts.
func sized(size int) (vectors []vector) {
	content := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	var parts []byte
	for part := range slices.Chunk(content, 1000) {
		parts = append(append(abi.AppendHead(parts, abi.MajorText, uint64(len(part))), part...), 0x60)
	}
	text := append(abi.AppendHead(nil, abi.MajorText, uint64(size)), content...)
	whole := append(abi.AppendHead(nil, abi.MajorBytes, uint64(size)), content...)
	return []vector{
		{"long bytes", string(whole), string(whole)},
		{"long text", string(text), string(text)},
		{"long text in parts", "\x7f" + string(parts) + "\xff", string(text)},
	}
}

// Containers of many elements, and strings of 16 MiB: they need more than one group
// to fold, so that merge is called too.
func TestLarge(t *testing.T) {
	if raceEnabled {
		t.Skip("16 MiB items take a minute under the race detector: run without -race")
	}
	many := 1 << 16
	vectors := []vector{
		{"many integers", string(abi.AppendHead(nil, abi.MajorArray, uint64(many))) + strings.Repeat("\x17", many), ""},
		{"many keys", string(abi.AppendHead(nil, abi.MajorMap, uint64(many))) + strings.Repeat("\x18\x18\xf5", many), ""},
	}
	for i := range vectors {
		vectors[i].preferred = vectors[i].bytes
	}
	eachConform(t, func(t *testing.T, module []byte) {
		testEcho(t, module, vectors)
		testMerge(t, module, sized(16<<20))
	})
}

// testMerge runs a job whose outputs are each a group of their own. The aggregate is
// then the groups' aggregates, merged in pairs.
func testMerge(t *testing.T, module []byte, vectors []vector) {
	t.Helper()
	var items, partials [][]byte
	for i, v := range vectors {
		items = append(items, []byte(v.bytes))
		partials = append(partials, abi.AppendEntry([]byte{0x81}, abi.IntID(uint64(i)), []byte(v.preferred)))
	}
	run := runJob(t, 1, &host.Job{Module: module, Settings: runtime.Settings{MaxOutput: 17 << 20, Memory: 512 << 20}}, items...)
	for i, v := range vectors {
		if got := run.outputs[i]; string(got) != v.preferred {
			t.Errorf("%s: %d bytes gave %d, want %d", v.name, len(v.bytes), len(got), len(v.preferred))
		}
	}
	for len(partials) > 1 {
		var next [][]byte
		for pair := range slices.Chunk(partials, 2) {
			if len(pair) == 2 {
				pair = [][]byte{append(append([]byte{0x82}, pair[0]...), pair[1]...)}
			}
			next = append(next, pair[0])
		}
		partials = next
	}
	if !bytes.Equal(run.result.Aggregate, partials[0]) {
		t.Errorf("merge gave %d bytes, want %d; failures %v", len(run.result.Aggregate), len(partials[0]), run.result.Report.Failures)
	}
}

// Every float of 16 bits, and many of 32 and 64 bits near the limits of narrower
// ones.
func TestFloats(t *testing.T) {
	vectors := []vector{halves()}
	seed := rand.New(rand.NewPCG(1, 2))
	for _, shape := range []struct {
		name string
		next func() float64
	}{
		{"random singles", func() float64 { return float64(math.Float32frombits(seed.Uint32())) }},
		{"random doubles", func() float64 { return math.Float64frombits(seed.Uint64()) }},
		{"doubles near halves", func() float64 { return near(float64(fromHalf(uint16(seed.Uint32()))), seed.IntN(3)) }},
		{"doubles near singles", func() float64 {
			return near(float64(math.Float32frombits(seed.Uint32())), seed.IntN(3))
		}},
		{"few bits set", func() float64 {
			return math.Ldexp(float64(1+seed.IntN(4096)), seed.IntN(320)-160)
		}},
	} {
		var wide, short []byte
		const count = 4096
		for range count {
			f := shape.next()
			wide = append(wide, wideHead(7, math.Float64bits(f), 3)...)
			short = appendFloat(short, f)
		}
		head := string(abi.AppendHead(nil, abi.MajorArray, count))
		vectors = append(vectors, vector{shape.name, head + string(wide), head + string(short)})
	}
	vectors = append(vectors,
		vector{"NaNs with payloads", "\x85\xf9\x7e\x01\xf9\xfc\x01\xfa\xff\xc0\x00\x01\xfb\x7f\xf0\x00\x00\x00\x00\x00\x01\xfb\xff\xff\xff\xff\xff\xff\xff\xff",
			"\x85" + strings.Repeat("\xf9\x7e\x00", 5)})
	eachConform(t, func(t *testing.T, module []byte) { testEcho(t, module, vectors) })
}

// near returns a float, or one of its neighbours.
func near(f float64, which int) float64 {
	return []float64{f, math.Nextafter(f, math.Inf(1)), math.Nextafter(f, math.Inf(-1))}[which]
}

func halves() vector {
	var wide, short []byte
	for bits := range 1 << 16 {
		f := fromHalf(uint16(bits))
		wide = append(wide, wideHead(7, uint64(math.Float32bits(f)), 2)...)
		if f != f {
			bits = 0x7e00
		}
		short = append(short, 0xf9, byte(bits>>8), byte(bits))
	}
	head := string(abi.AppendHead(nil, abi.MajorArray, 1<<16))
	return vector{"all halves as singles", head + string(wide), head + string(short)}
}

// fromHalf returns the value of a float of 16 bits, by the library that the tests
// compare with: not the implementation of any SDK.
func fromHalf(bits uint16) (f float32) {
	if err := cbor.Unmarshal([]byte{0xf9, byte(bits >> 8), byte(bits)}, &f); err != nil {
		panic(err)
	}
	return f
}

var shortest = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func appendFloat(b []byte, f float64) []byte {
	short, err := shortest.Marshal(f)
	if err != nil {
		panic(err)
	}
	return append(b, short...)
}

// Random items, each written once in any form and once in the preferred one.
func TestRandomItems(t *testing.T) {
	g := generator{rand.New(rand.NewPCG(3, 4)), nil, nil}
	var vectors []vector
	for i := range 2000 {
		g.any, g.preferred = nil, nil
		g.item(6)
		vectors = append(vectors, vector{fmt.Sprint("random item ", i), string(g.any), string(g.preferred)})
	}
	eachConform(t, func(t *testing.T, module []byte) { testEcho(t, module, vectors) })
}

type generator struct {
	*rand.Rand
	any, preferred []byte
}

func (g *generator) head(major byte, n uint64) {
	least := 0
	for least < 3 && n >= 1<<(8<<least) {
		least++
	}
	wide := wideHead(major, n, least+g.IntN(4-least))
	if n < 24 && g.IntN(2) == 0 {
		wide = []byte{major<<5 | byte(n)}
	}
	g.any, g.preferred = append(g.any, wide...), abi.AppendHead(g.preferred, major, n)
}

func (g *generator) string(major byte) {
	content := []byte(strings.Repeat("aé水", g.IntN(40)))
	if g.IntN(2) == 0 {
		g.head(major, uint64(len(content)))
		g.any, g.preferred = append(g.any, content...), append(g.preferred, content...)
		return
	}
	g.preferred = append(abi.AppendHead(g.preferred, major, uint64(len(content))), content...)
	g.any = append(g.any, major<<5|31)
	for part := range slices.Chunk(content, 6*(1+g.IntN(9))) {
		g.any = append(append(g.any, wideHead(major, uint64(len(part)), g.IntN(4))...), part...)
	}
	g.any = append(g.any, 0xff)
}

func (g *generator) container(major byte, depth int) {
	count := g.IntN(6)
	indefinite := g.IntN(2) == 0
	if indefinite {
		g.any, g.preferred = append(g.any, major<<5|31), abi.AppendHead(g.preferred, major, uint64(count))
	} else {
		g.head(major, uint64(count))
	}
	for range count * int(1+major-abi.MajorArray) {
		g.item(depth - 1)
	}
	if indefinite {
		g.any = append(g.any, 0xff)
	}
}

func (g *generator) item(depth int) {
	kind := byte(g.IntN(8))
	if depth == 0 && (kind == abi.MajorArray || kind == abi.MajorMap || kind == abi.MajorTag) {
		kind = abi.MajorUint
	}
	switch kind {
	case abi.MajorUint, abi.MajorNegint:
		g.head(kind, g.Uint64()>>g.IntN(64))
	case abi.MajorBytes, abi.MajorText:
		g.string(kind)
	case abi.MajorArray, abi.MajorMap:
		g.container(kind, depth)
	case abi.MajorTag:
		g.head(abi.MajorTag, g.Uint64()>>g.IntN(64))
		g.item(depth - 1)
	default:
		g.simple()
	}
}

func (g *generator) simple() {
	if g.IntN(2) == 0 {
		f := math.Ldexp(float64(g.IntN(4096)-2048), g.IntN(60)-30)
		g.any, g.preferred = append(g.any, wideHead(7, math.Float64bits(f), 3)...), appendFloat(g.preferred, f)
		return
	}
	b := []byte{0xe0 | byte(g.IntN(24))}
	if g.IntN(2) == 0 {
		b = []byte{0xf8, byte(32 + g.IntN(224))}
	}
	g.any, g.preferred = append(g.any, b...), append(g.preferred, b...)
}

// A text that is not UTF-8 is an error or is kept, and never changed.
func TestTextThatIsNotUTF8(t *testing.T) {
	eachConform(t, func(t *testing.T, module []byte) {
		items := [][]byte{{0x61, 0xff}, {0x63, 0xed, 0xa0, 0x80}, {0x62, 0xc0, 0x80}, {0x7f, 0x61, 0xc3, 0x61, 0x28, 0xff}}
		whole := [][]byte{items[0], items[1], items[2], {0x62, 0xc3, 0x28}}
		run := runJob(t, 1, &host.Job{Module: module}, items...)
		for _, f := range run.result.Report.Failures {
			if f.Class != abi.ClassGuest || !strings.Contains(f.Message, "UTF-8") {
				t.Errorf("%x: %v", items[f.Index], &f.Failure)
			}
		}
		for i, got := range run.outputs {
			if got != nil && !bytes.Equal(got, whole[i]) {
				t.Errorf("%x gave %x", items[i], got)
			}
		}
	})
}

type m map[string]any

// Everything that a guest tells the host arrives unchanged.
func TestFailures(t *testing.T) {
	long := strings.Repeat("why ", 1000)
	for _, tt := range []struct {
		name     string
		chunk    m
		class    abi.Class
		message  string // the whole message; "" = any
		attempts int
	}{
		{"permanent", m{"do": "fail", "kind": 0, "message": "näin ei käy"}, abi.ClassGuest, "näin ei käy", 1},
		{"permanent without a message", m{"do": "fail", "kind": 0, "message": ""}, abi.ClassGuest, "", 1},
		{"a long message", m{"do": "fail", "kind": 0, "message": long}, abi.ClassGuest, long, 1},
		{"retryable", m{"do": "fail", "kind": 1, "message": "later"}, abi.ClassGuestRetryable, "later", 3},
		{"requeue", m{"do": "fail", "kind": 2, "message": "not now"}, abi.ClassRequeued, "not now", 6},
		{"trap", m{"do": "trap"}, abi.ClassTrap, "", 2},
	} {
		eachConform(t, func(t *testing.T, module []byte) {
			policy := host.RetryPolicy{Retries: 2, MaxRequeues: 5}
			run := runJob(t, 1, &host.Job{Module: module, Retry: policy}, encode(t, tt.chunk))
			failures := run.result.Report.Failures
			if len(failures) != 1 {
				t.Fatalf("%s: %d failures", tt.name, len(failures))
			}
			f := failures[0]
			if f.Class != tt.class || f.Attempts != tt.attempts || !strings.Contains(f.Message, tt.message) {
				t.Errorf("%s: %v after %d attempts, want %v after %d", tt.name, &f.Failure, f.Attempts, tt.class, tt.attempts)
			}
		})
	}
}

// A chunk of another type than the handler's fails permanently, and the message names
// the field.
func TestWrongChunks(t *testing.T) {
	for _, tt := range []struct{ name, chunk, names string }{
		{"a missing field", "a2 62646f 646661696c 646b696e64 00", "message"},
		{"another missing field", "a2 62646f 646661696c 676d657373616765 60", "kind"},
		{"a field of another type", "a3 62646f 646661696c 646b696e64 00 676d657373616765 01", "message"},
		{"null for a field", "a3 62646f 646661696c 646b696e64 f6 676d657373616765 60", "kind"},
		{"a float for an integer", "a3 62646f 646661696c 646b696e64 f93c00 676d657373616765 60", "kind"},
		{"a negative kind", "a3 62646f 646661696c 646b696e64 20 676d657373616765 60", "kind"},
		{"an integer that is too large", "a3 62646f 646661696c 646b696e64 1b0000000100000000 676d657373616765 60", "kind"},
		{"an unknown kind", "a3 62646f 646661696c 646b696e64 03 676d657373616765 60", "kind"},
		{"a duplicate field", "a4 62646f 646661696c 646b696e64 00 646b696e64 01 676d657373616765 60", "kind"},
		{"a text that is not UTF-8", "a3 62646f 646661696c 646b696e64 00 676d657373616765 61ff", "message"},
		{"a level out of range", "a3 62646f 636c6f67 656c6576656c 1bffffffffffffffff 676d657373616765 60", "level"},
	} {
		eachConform(t, func(t *testing.T, module []byte) {
			run := runJob(t, 1, &host.Job{Module: module, Retry: host.DefaultRetry()}, unhex(t, tt.chunk))
			failures := run.result.Report.Failures
			if len(failures) != 1 || failures[0].Class != abi.ClassGuest || !strings.Contains(failures[0].Message, tt.names) {
				t.Errorf("%s: got %x, %+v; want a failure that names %s", tt.name, run.outputs[0], failures, tt.names)
			}
		})
	}
}

func TestLogs(t *testing.T) {
	eachConform(t, func(t *testing.T, module []byte) {
		var items [][]byte
		var want []string
		for _, level := range []int{-4, 0, 4, 8} {
			for _, message := range []string{"", "one line", "käännös 水", strings.Repeat("x", 4000)} {
				items = append(items, encode(t, m{"do": "log", "level": level, "message": message}))
				want = append(want, fmt.Sprint(level, " ", message))
			}
		}
		run := runJob(t, 1, &host.Job{Module: module}, items...)
		for i, got := range run.outputs {
			if !bytes.Equal(got, abi.Null) {
				t.Errorf("%x gave %x", items[i], got)
			}
		}
		slices.Sort(want)
		slices.Sort(run.logs)
		if !slices.Equal(run.logs, want) {
			t.Errorf("logged %.200q, want %.200q", run.logs, want)
		}
	})
}

func TestHeartbeat(t *testing.T) {
	eachConform(t, func(t *testing.T, module []byte) {
		run := runJob(t, 1, &host.Job{Module: module}, encode(t, m{"do": "heartbeat"}))
		if got := run.outputs[0]; !bytes.Equal(got, []byte{0xf5}) {
			t.Errorf("got %x, want true", got)
		}
	})
}

func TestSetup(t *testing.T) {
	eachConform(t, func(t *testing.T, module []byte) {
		for _, context := range [][]byte{nil, abi.Null, {0x01}, encode(t, m{"any": []int{1}})} {
			run := runJob(t, 1, &host.Job{Module: module, Settings: runtime.Settings{Context: context}}, []byte{1})
			if !bytes.Equal(run.outputs[0], []byte{1}) {
				t.Errorf("context %x: got %x", context, run.outputs[0])
			}
		}
		context := encode(t, m{"do": "fail", "kind": 0, "message": "no such context"})
		_, err := tryJob(t, 1, &host.Job{Module: module, Settings: runtime.Settings{Context: context}}, []byte{1})
		var setup *runtime.InitError
		if !errors.As(err, &setup) || setup.Step != abi.ExportSetup || setup.Failure.Class != abi.ClassGuest || setup.Failure.Message != "no such context" {
			t.Errorf("got %v", err)
		}
	})
}

// The wordcount of every language gives the same bytes as the one in C, for any number
// of workers.
func TestWordcount(t *testing.T) {
	var items [][]byte
	for i := range 40 {
		text := words(rand.New(rand.NewPCG(5, uint64(i))), 40*i)
		switch i % 4 {
		case 0:
			items = append(items, encode(t, string(text)))
		case 1:
			items = append(items, encode(t, text))
		case 2:
			items = append(items, encode(t, m{"id": i, "text": text}))
		default:
			items = append(items, encode(t, m{"other": []any{nil, 1.5}, "text": string(text)}))
		}
	}
	items = append(items, encode(t, ""), []byte("\x65ab\xff\x00c"), []byte("\x7f\x63one\x64 two\xff"))
	want := runJob(t, 2, &host.Job{Module: file("../guest-examples/wordcount/c/wordcount.wasm")(t)}, items...)
	for _, l := range languages {
		t.Run(l.name, func(t *testing.T) {
			module := l.wordcount(t)
			for _, workers := range []int{1, 2, 16} {
				got := runJob(t, workers, &host.Job{Module: module}, items...)
				for i := range items {
					if !bytes.Equal(got.outputs[i], want.outputs[i]) {
						t.Errorf("%d workers, chunk %d: got %.100x, want %.100x", workers, i, got.outputs[i], want.outputs[i])
					}
				}
				if len(want.result.Aggregate) < 1000 || !bytes.Equal(got.result.Aggregate, want.result.Aggregate) {
					t.Errorf("%d workers: got an aggregate of %d bytes, want %d", workers, len(got.result.Aggregate), len(want.result.Aggregate))
				}
			}
		})
	}
}

// words returns a text of n words, most of which repeat.
func words(r *rand.Rand, n int) (text []byte) {
	for range n {
		text = fmt.Appendf(text, "%s%x%s", []string{"", "The", "x"}[r.IntN(3)], r.IntN(500), []string{" ", ",\n", "-", "é"}[r.IntN(4)])
	}
	return text
}

// jobRun is the result of a job. An output has the position of its chunk, and is nil if
// the chunk failed.
type jobRun struct {
	result  *host.Result
	outputs [][]byte
	logs    []string
}

func (r *jobRun) Progress(string, host.Counts) {}
func (r *jobRun) Wants() event.Detail          { return event.Chunks }
func (r *jobRun) Observe(events []host.Event) {
	for _, e := range events {
		if e.Kind == event.KindLog {
			r.logs = append(r.logs, fmt.Sprint(e.Level, " ", e.Message))
		}
	}
}

func runJob(t *testing.T, workers int, job *host.Job, items ...[]byte) *jobRun {
	t.Helper()
	run, err := tryJob(t, workers, job, items...)
	if err != nil {
		t.Fatal(err)
	}
	return run
}

// engine compiles each module only once for the whole test binary.
var engine host.Engine

func TestMain(m *testing.M) {
	r, err := runtime.New(context.Background(), runtime.Config{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	engine = host.NewEngine(r)
	code := m.Run()
	_ = engine.Close(context.Background())
	os.Exit(code)
}

// tryJob runs a job whose chunks have their positions as ids: keys "id" in the chunks
// are ordinary values here.
func tryJob(t *testing.T, workers int, job *host.Job, items ...[]byte) (*jobRun, error) {
	t.Helper()
	f, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	run := &jobRun{outputs: make([][]byte, len(items))}
	c, err := host.New(t.Context(), host.Config{Workers: workers, Engine: engine, Observer: run})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.WithoutCancel(t.Context()))
	job.Chunks, job.Outputs = f, true
	if run.result, err = c.Run(t.Context(), job); err != nil {
		return run, err
	}
	position := map[abi.ID]int{}
	for i := range f.Len() {
		position[f.ID(i)] = f.Position(i)
	}
	for o, err := range run.result.Outputs(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		run.outputs[position[o.ID]] = bytes.Clone(o.Output)
	}
	return run, nil
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// encode returns the deterministic encoding of v.
func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := shortest.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
