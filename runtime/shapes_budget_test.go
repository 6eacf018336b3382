package runtime_test

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

var (
	shapesFlag = flag.String("shapes", "", "of TestShapes: the largest modules below 1 MB of shapes whose names contain this; * = all. An hour of one core")
	shapeSize  = flag.Int("shapesize", 1_000_000, "of -shapes: the largest size in bytes")
)

// Limits of admitting and compiling any module below 1 MB, on one core.
const (
	compileTime   = 10 * time.Second
	compileMemory = 1 << 30
)

// TestShapes compiles, for each shape, the largest module of up to 6 KB that is
// admitted. By the factors that drive the compiler's work, it is the most
// expensive one. With -shapes, the size goes up to 1 MB.
func TestShapes(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector needs additional time and memory")
	}
	limit, chosen := 6000, "*"
	if *shapesFlag != "" {
		limit, chosen = *shapeSize, *shapesFlag
	}
	for _, s := range shapes {
		if chosen == "*" || strings.Contains(s.name, chosen) {
			t.Run(s.name, func(t *testing.T) { compileLargest(t, s, limit) })
		}
	}
}

func compileLargest(t *testing.T, s shape, limit int) {
	wasm := largest(s, limit)
	if wasm == nil {
		t.Skipf("no module of up to %d bytes is admitted", limit)
	}
	file := filepath.Join(t.TempDir(), "shape.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	child := exec.Command(os.Args[0], "-test.run=^TestCompileShape$")
	child.Env = append(os.Environ(), compileShape+"="+file, "GOMAXPROCS=1")
	out, err := child.CombinedOutput()
	if err != nil {
		t.Fatalf("%d bytes: %v: %.1000s", len(wasm), err, out)
	}
	took, memory := processUsage(child.ProcessState)
	t.Logf("%d bytes: %.2f s, %d MiB", len(wasm), took.Seconds(), memory>>20)
	if took > compileTime || memory > compileMemory {
		t.Errorf("%d bytes took %.2f s and %d MiB: want at most %v and %d MiB", len(wasm), took.Seconds(), memory>>20, compileTime, compileMemory>>20)
	}
}

// largest returns the largest module of a shape that is admitted, of at most
// limit bytes.
func largest(s shape, limit int) (found []byte) {
	low, high := 0, limit+1
	for size := limit; high-low > max(64, low/16); size = (low + high) / 2 {
		if wasm := s.make(size); runtime.Inspect(wasm).Accepted {
			low, found = size, wasm
		} else {
			high = size
		}
	}
	return found
}

const compileShape = "WASM_JOBS_TEST_SHAPE"

// TestCompileShape runs in the process that TestShapes measures.
func TestCompileShape(t *testing.T) {
	file := os.Getenv(compileShape)
	if file == "" {
		t.Skip("TestShapes runs it")
	}
	boundProcess(t, compileTime+2*time.Second, 3*compileMemory)
	wasm, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = newRuntime(t, runtime.Config{}).Compile(t.Context(), wasm, runtime.Options{})
	if _, refused := errors.AsType[*runtime.RefusedError](err); err != nil && !refused { // refusals by the rewriter are fast too
		t.Fatal(err)
	}
}

// TestProductsAndSums checks that modules within the limits of each single
// number are refused, in one line that names the function.
func TestProductsAndSums(t *testing.T) {
	const loops = 3000
	nest := void(loops, repeat(loops, opLoop, empty), increments(loops), repeat(loops, opGet, 0, opBrIf, 0, opEnd))
	tables := void(0, repeat(3, branchTable(65000, 0)...))
	values := void(0, repeat(1000, opConst, 0), repeat(200_000, opBlock, typeNext, opEnd), repeat(1000, opDrop))
	branches := void(1, []byte{opBlock, empty}, repeat(240_000, opGet, 0, opBrIf, 0), []byte{opEnd})
	for name, g := range map[string]*guest{
		"loops times locals":    {bodies: []body{nest}},
		"br_table targets":      {bodies: slices.Repeat([]body{tables}, 5)},
		"values through blocks": {types: [][]byte{wide(1000)}, bodies: []body{values}},
		"values through calls":  {types: [][]byte{wide(1000)}, bodies: []body{{kind: typeNext, code: each(1000, func(i int) []byte { return op(opGet, i) })}, void(0, repeat(1000, opConst, 0), repeat(200_000, opCall, 2), repeat(1000, opDrop))}},
		"branches to a label":   {bodies: []body{branches}},
		"a sum of functions":    {bodies: slices.Repeat([]body{void(200, repeat(200, opLoop, empty), increments(200), repeat(200, opGet, 0, opBrIf, 0, opEnd))}, 200)},
	} {
		d := runtime.Inspect(g.bytes())
		if d.Accepted || len(d.Problems) != 1 || !strings.Contains(d.Problems[0], "function ") || !strings.Contains(d.Problems[0], "for a module of this size") {
			t.Errorf("%s: accepted %v, %q", name, d.Accepted, d.Problems)
		}
	}
}

// TestGuestsAreWithinTheBudget inspects every guest of the examples and of the
// SDK.
func TestGuestsAreWithinTheBudget(t *testing.T) {
	seen := 0
	for _, pattern := range []string{"../guest-examples/*/*/*.wasm", "../sdk/*/*.wasm", "../testdata/command/*.wasm"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			wasm, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if d := runtime.Inspect(wasm); !d.Accepted {
				t.Errorf("%s: %q", file, d.Problems)
			}
			seen++
		}
	}
	if seen < 5 {
		t.Errorf("only %d guests were found", seen)
	}
}
