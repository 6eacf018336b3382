package rewrite_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tetratelabs/wazero"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// Locals of the functions that jumper makes. The first is the parameter.
const (
	jumpNext = 1
	jumpLeft = 2
)

// jumper makes functions (i32) -> i32 like those of Go's compiler: a loop with
// a table of jumps at its head.
type jumper struct {
	random *rand.Rand
	code   []byte
	blocks int
	depth  int // of the if around this point, 0 or 1
	block  int // whose code is made; the table leads to it by its number
}

func (j *jumper) add(code ...byte) { j.code = append(j.code, code...) }

// jump goes to a block by its number, sometimes not in the way of a compiler.
func (j *jumper) jump(to int) {
	j.add(0x41, byte(to), 0x21, jumpNext)
	if j.random.IntN(8) == 0 {
		j.add(0x01) // the branch does not follow at once
	}
	j.add(0x0c, byte(j.depth+j.blocks-j.block))
}

// function has a block for each number, and one around the loop, to which the
// last label leads. It ends after 40 jumps at most.
func (j *jumper) function(blocks int, random *rand.Rand) []byte {
	*j = jumper{random: random, blocks: blocks}
	j.add(2, 1, 0x7f, 1, 0x7f) // the locals
	j.add(0x41, 40, 0x21, jumpLeft, 0x02, 0x40, 0x03, 0x40)
	for range blocks {
		j.add(0x02, 0x40)
	}
	j.add(0x20, jumpNext, 0x0e, byte(blocks))
	for label := range blocks {
		j.add(byte(label))
	}
	j.add(byte(blocks + 1))
	for j.block = range blocks {
		j.add(0x0b)
		j.body()
	}
	j.block = blocks
	j.add(0x0b, 0x0b, 0x20, 0, 0x0b)
	return j.code
}

// body is the code of a block: it counts, and jumps somewhere if it depends.
func (j *jumper) body() {
	j.add(0x20, 0, 0x41, 31, 0x6c, 0x41, byte(j.block), 0x6a, 0x21, 0)
	j.block++ // its label is closed
	defer func() { j.block-- }()
	j.add(0x20, jumpLeft, 0x41, 1, 0x6b, 0x22, jumpLeft, 0x45, 0x04, 0x40)
	j.depth = 1
	j.jump(j.blocks + j.random.IntN(3))
	j.add(0x0b)
	if j.random.IntN(4) == 0 {
		j.add(0x20, 0, 0x10, 1, 0x21, 0)
	}
	for range j.random.IntN(3) {
		j.add(0x20, 0, 0x41, byte(1<<j.random.IntN(6)), 0x71, 0x04, 0x40)
		j.jump(j.random.IntN(j.blocks + 2))
		j.add(0x0b)
	}
	if j.depth = 0; j.random.IntN(3) == 0 {
		j.jump(j.random.IntN(j.blocks + 1))
	}
}

// TestDispatch checks that jumps through a table give the same results for the
// same fuel when they are made directly.
func TestDispatch(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 11))
	callee := []byte{0, 0x20, 0, 0x41, 3, 0x6a, 0x0b}
	for round := range 200 {
		var j jumper
		wasm := bodies(j.function(1+random.IntN(12), random), callee)
		m, problems := binary.Parse(wasm)
		if len(problems) > 0 {
			t.Fatalf("%v\n%x", problems, wasm)
		}
		naive, _ := counted(wasm, m)
		counting := instance(t, wazero.NewRuntimeConfigInterpreter(), naive)
		metered := instance(t, engines[round%len(engines)].config(), rewritten(t, wasm, rewrite.Options{Metering: true}).Wasm)
		for arg := range uint64(5) {
			before := counting.ExportedGlobal(countExport).Get()
			want, err := counting.ExportedFunction("0").Call(t.Context(), arg)
			if err != nil {
				t.Fatal(err)
			}
			units := counting.ExportedGlobal(countExport).Get() - before
			meter := &meter{budget: unlimited, slice: 1 + int64(random.IntN(50))}
			if got, used, err := meter.call(metered, "0", suiteStack, arg); err != nil || got[0] != want[0] || used != int64(units) {
				t.Fatalf("%d: %v for %d units, %v; want %d for %d\n%x", arg, got, used, err, want, units, wasm)
			}
		}
	}
}

// TestForward checks that only jumps that lead back check the fuel, and that constants beyond the table lead to its last label.
func TestForward(t *testing.T) {
	// Blocks 0 to 2; block 0 jumps to a number, and block 1 back to 0 if the
	// parameter is 0, once.
	code := func(to byte) []byte {
		return []byte{1, 1, 0x7f,
			0x02, 0x40, 0x03, 0x40, 0x02, 0x40, 0x02, 0x40, 0x02, 0x40, 0x20, 1, 0x0e, 3, 0, 1, 2, 4, 0x0b,
			0x20, 0, 0x04, 0x40, 0x41, to, 0x21, 1, 0x0c, 3, 0x0b, 0x0b,
			0x20, 0, 0x10, 1, 0x04, 0x40, 0x41, 0, 0x21, 1, 0x41, 1, 0x21, 0, 0x41, 0, 0x21, 1, 0x0c, 2, 0x0b, 0x0b,
			0x0b, 0x0b, 0x20, 0, 0x0b}
	}
	callee := []byte{0, 0x20, 0, 0x45, 0x0b}
	for _, c := range []struct {
		to     byte
		arg    uint64
		yields int
	}{{2, 1, 0}, {3, 1, 0}, {0x7f, 1, 0}, {2, 0, 1}} {
		t.Run(fmt.Sprint(c.to, c.arg), func(t *testing.T) {
			mod := instance(t, wazero.NewRuntimeConfigInterpreter(), rewritten(t, bodies(code(c.to), callee), rewrite.Options{Metering: true}).Wasm)
			m := &meter{budget: unlimited, slice: 1}
			if _, _, err := m.call(mod, "0", suiteStack, c.arg); err != nil || m.yields != c.yields {
				t.Errorf("%d yields, %v; want %d: one for each jump back", m.yields, err, c.yields)
			}
		})
	}
}
