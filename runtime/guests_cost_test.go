package runtime_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"image"
	"image/draw"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/internal/codeshift"
)

// realGuest is a guest that was not written for measurements, with a chunk for
// it.
type realGuest struct {
	name  string
	wasm  []byte
	chunk []byte
}

// libraryGuests are libraries in C and Rust: see testdata/libraries.
func libraryGuests(t *testing.T) (all []realGuest) {
	for _, g := range []struct {
		library string
		input   []byte
	}{
		{"zlib", documentation(t)},
		{"lz4", documentation(t)},
		{"cjson", readFile(t, "../bench/results.json")},
		{"cmark", documentation(t)},
		{"sqlite", documentation(t)[:8<<10]}, // a join takes the square of it
		{"stb_image", photograph(t)},
		{"regex", documentation(t)},
	} {
		all = append(all, realGuest{g.library, libraryGuest(t, g.library), item(abi.MajorBytes, g.input)})
	}
	return all
}

// realGuests are libraries in C and Rust, word counts over a text in four languages,
// and parts of Go's standard library and gojq. The matrix product is a kernel.
func realGuests(t *testing.T) []realGuest {
	all := libraryGuests(t)
	text := item(abi.MajorText, []byte(strings.Repeat("the quick brown fox jumps over the lazy dog; Über 1234 Füße, don't stop\n", 400)))
	for _, language := range []string{"c", "rust", "zig", "assemblyscript"} {
		all = append(all, realGuest{"word count, " + language, readFile(t, "../guest-examples/wordcount/"+language+"/wordcount.wasm"), text})
	}
	all = append(all, realGuest{"matrix product", testdata(t, "kernels.wasm"), kernelChunk(8, 2)})
	if wasm, err := gojqGuest(); err != nil {
		t.Log("no gojq:", err)
	} else {
		all = append(all, realGuest{"gojq", wasm, item(abi.MajorBytes, readFile(t, "../bench/serve.json"))})
	}
	wasm, err := goGuest()
	if err != nil {
		t.Log("no guests in Go:", err)
		return all
	}
	for i, name := range []string{"Go encoding/json", "Go compress/flate", "Go regexp", "Go go/format", "Go map and sort"} {
		all = append(all, realGuest{name, wasm, kernelChunk(uint64(i), 1)})
	}
	return all
}

// gojqGuest returns a guest with gojq, built once. Its folder is a module of its own, so
// that ours does not require gojq.
var gojqGuest = sync.OnceValues(func() ([]byte, error) { return buildGo("-C", "testdata/gojq", ".") })

// libraryGuest returns a module of testdata/libraries.
func libraryGuest(t *testing.T, name string) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(testdata(t, "libraries/"+name+".wasm.gz")))
	if err != nil {
		t.Fatal(err)
	}
	wasm, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func item(major byte, text []byte) []byte {
	return append(abi.AppendHead(nil, major, uint64(len(text))), text...)
}

// documentation is a text in Markdown of about 100 kB.
func documentation(t *testing.T) (all []byte) {
	names, err := filepath.Glob("../docs/*.md")
	if err != nil || len(names) == 0 {
		t.Fatal("no documentation: ", err)
	}
	for _, name := range names {
		all = append(all, readFile(t, name)...)
	}
	return all
}

// photograph is a JPEG of 400 by 300.
func photograph(t *testing.T) []byte {
	picture, err := png.Decode(bytes.NewReader(readFile(t, "../docs/ui.png")))
	if err != nil {
		t.Fatal(err)
	}
	part := image.NewRGBA(image.Rect(0, 0, 400, 300))
	draw.Draw(part, part.Bounds(), picture, picture.Bounds().Min, draw.Src)
	var b bytes.Buffer
	if err := jpeg.Encode(&b, part, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestRealGuests runs the guests in C and Rust of the table of costs: each checks the
// results of its library, and metering must not change them.
func TestRealGuests(t *testing.T) {
	if raceEnabled {
		t.Skip("compiles a megabyte of code twice")
	}
	for _, g := range libraryGuests(t) {
		plain := caller(t, poolOf(t, g.wasm, runtime.Options{NoMetering: true}, limits), g.chunk, false)
		metered := caller(t, poolOf(t, g.wasm, runtime.Options{}, limits), g.chunk, false)
		if len(plain.output) != 5 || !bytes.Equal(plain.output, metered.output) {
			t.Errorf("%s: output %x, with metering %x", g.name, plain.output, metered.output)
		}
	}
}

// instancesOfAPlace are measured for each place of the code, because code that keeps values on the engine's
// stack is up to 1.4 times as slow on some instances as on others: it depends on the
// address of an instance's stack (see METERING.md).
const instancesOfAPlace = 2

// poolsOf returns a pool for each place of the code in memory: which one is good for
// a loop is chance, with and without metering.
func poolsOf(t *testing.T, wasm []byte, o runtime.Options) (pools []*runtime.Pool) {
	for n := range codeshift.Positions {
		moved, err := codeshift.Shift(wasm, n)
		if err != nil {
			t.Fatal(err)
		}
		pools = append(pools, poolOf(t, moved, o, limits))
	}
	return pools
}

// costOfGuests compares metered guests with the same guests without metering.
// Their outputs must be equal. Both are reset before each call: these guests
// rely on it, and never free memory.
func costOfGuests(t *testing.T, rounds int) {
	table := newTable("", "us", "metered", "slowest to fastest instance", "the same, metered")
	var of *byte // the module of the pools: the guests of one are adjacent
	var pools [2][]*runtime.Pool
	var medians []float64
	for _, g := range realGuests(t) {
		t.Run(g.name, func(s *testing.T) {
			if of != &g.wasm[0] {
				of = &g.wasm[0]
				pools = [2][]*runtime.Pool{poolsOf(t, g.wasm, runtime.Options{NoMetering: true}), poolsOf(t, g.wasm, runtime.Options{})}
			}
			plain, metered := callers(s, pools[0], g.chunk), callers(s, pools[1], g.chunk)
			for i := range plain {
				if !bytes.Equal(plain[0].output, plain[i].output) || !bytes.Equal(plain[0].output, metered[i].output) {
					s.Error("with metering or at another place, the output differs")
				}
			}
			times := measureInstances(rounds, plain, metered)
			ratio := ratios(mean(times[1]), mean(times[0]))
			table.row(g.name, spread(mean(times[0])), spread(ratio), fmt.Sprintf("%.2f", apart(times[0])), fmt.Sprintf("%.2f", apart(times[1])))
			medians = append(medians, quartile(ratio, 2))
		})
	}
	if len(medians) == 0 {
		return
	}
	product := 1.0
	for _, m := range medians {
		product *= m
	}
	table.row("geometric mean", "", fmt.Sprintf("%.2f", math.Pow(product, 1/float64(len(medians)))))
	table.row("worst", "", fmt.Sprintf("%.2f", slices.Max(medians)))
	table.log(t)
}

// callers returns the instances of a side. They are made one after the other, so that
// their stacks begin at different places in a page.
func callers(t *testing.T, pools []*runtime.Pool, chunk []byte) (all []*call) {
	for _, p := range pools {
		for range instancesOfAPlace {
			all = append(all, caller(t, p, chunk, false))
		}
	}
	return all
}

// measureInstances measures each instance of both sides, all in each round, alternately.
func measureInstances(rounds int, plain, metered []*call) (times [2][][]time.Duration) {
	batch := max(1, int(time.Millisecond/max(1, onThread(func() { plain[0].run(1) }))))
	var sides []side
	for i := range plain {
		sides = append(sides, side{batch: batch, run: plain[i].run}, side{batch: batch, run: metered[i].run})
	}
	for i, of := range measure(rounds, sides) {
		times[i%2] = append(times[i%2], of)
	}
	return times
}

// mean returns the mean over instances, round by round.
func mean(times [][]time.Duration) []time.Duration {
	all := make([]time.Duration, len(times[0]))
	for r := range all {
		for _, of := range times {
			all[r] += of[r] / time.Duration(len(times))
		}
	}
	return all
}

// apart returns how much longer the slowest instance takes than the fastest one.
func apart(times [][]time.Duration) float64 {
	var medians []time.Duration
	for _, of := range times {
		medians = append(medians, quartile(of, 2))
	}
	return float64(slices.Max(medians)) / float64(slices.Min(medians))
}

// costOfCompiling measures how long modules of several sizes take until they can run:
// programs of Go's toolchain, in processor time of all threads.
func costOfCompiling(t *testing.T) {
	const rounds = 3 // of seconds each
	table := newTable("module", "MB", "compiled, ms", "from the cache, ms")
	for _, source := range []string{"../guest-examples/square/go", "cmd/link", "cmd/go"} {
		t.Run(source, func(t *testing.T) {
			mode := "c-shared"
			if strings.HasPrefix(source, "cmd/") {
				mode = "exe"
			}
			wasm, err := buildGo("-buildmode="+mode, source)
			if err != nil {
				t.Skip("no program in Go:", err)
			}
			var cold, cached []time.Duration
			for range rounds {
				dir := t.TempDir()
				cold = append(cold, timeToCompile(t, dir, wasm))
				cached = append(cached, timeToCompile(t, dir, wasm))
			}
			table.row(source, fmt.Sprintf("%.1f", float64(len(wasm))/1e6), inMilliseconds(cold), inMilliseconds(cached))
		})
	}
	table.log(t)
}

func timeToCompile(t *testing.T, dir string, wasm []byte) time.Duration {
	r, err := runtime.New(t.Context(), runtime.Config{CacheDir: dir})
	if err != nil {
		t.Fatal(err)
	}
	start := processTime()
	if _, err := r.Compile(t.Context(), wasm, runtime.Options{}); err != nil {
		t.Fatal(err)
	}
	spent := processTime() - start
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	return spent
}

func inMilliseconds(all []time.Duration) string {
	return fmt.Sprintf("%.0f (%.0f-%.0f)", quartile(all, 2).Seconds()*1e3, slices.Min(all).Seconds()*1e3, slices.Max(all).Seconds()*1e3)
}
