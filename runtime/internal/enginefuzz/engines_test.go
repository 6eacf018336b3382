package enginefuzz

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	wasmbinary "github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// answer is the result of a run.
type answer struct {
	trap   trap
	fuel   int64
	memory [sha256.Size]byte
}

// trap is the reason why a run ended early.
type trap byte

const (
	noTrap trap = iota
	trapUnreachable
	trapDivision
	trapOverflow
	trapConversion
	trapMemory
	trapTable
	trapOther trap = 255
)

// trapTexts are parts of the engine's messages.
var trapTexts = []struct {
	text string
	trap trap
}{
	{"unreachable", trapUnreachable}, {"integer divide by zero", trapDivision}, {"integer overflow", trapOverflow},
	{"invalid conversion to integer", trapConversion}, {"out of bounds memory access", trapMemory},
	{"invalid table access", trapTable}, {"indirect call type mismatch", trapTable},
}

func trapOf(err error) trap {
	if err == nil {
		return noTrap
	}
	for _, t := range trapTexts {
		if strings.Contains(err.Error(), t.text) {
			return t.trap
		}
	}
	return trapOther
}

// engine runs modules, each in its own instance.
type engine struct {
	name    string
	config  func() wazero.RuntimeConfig
	runtime wazero.Runtime
	used    int
	granted int64
	memory  []byte // of the last run
}

func newEngine(name string, config func() wazero.RuntimeConfig) *engine {
	return &engine{name: name, config: config}
}

// fresh makes a new runtime from time to time, because a runtime keeps all types
// that it has seen.
func (e *engine) fresh(ctx context.Context) error {
	if e.used++; e.runtime != nil && e.used%2000 != 0 {
		return nil
	}
	e.close(ctx)
	e.runtime = wazero.NewRuntimeWithConfig(ctx, e.config().WithCoreFeatures(api.CoreFeaturesV2))
	numbers := []api.ValueType{api.ValueTypeI64, api.ValueTypeI64}
	_, err := e.runtime.NewHostModuleBuilder(rewrite.Module).NewFunctionBuilder().
		WithGoModuleFunction(api.GoModuleFunc(e.yield), numbers, numbers[:1]).Export(rewrite.Yield).Instantiate(ctx)
	return err
}

func (e *engine) close(ctx context.Context) {
	if e.runtime != nil {
		e.runtime.Close(ctx)
	}
}

// slice is the fuel that yield grants each time: little, so that checks are passed often.
const slice = 100

func (e *engine) yield(_ context.Context, _ api.Module, stack []uint64) {
	if fuel := int64(stack[0]); fuel < 0 {
		e.granted += slice - fuel
		stack[0] = slice
	}
}

func (e *engine) run(ctx context.Context, wasm []byte) (a answer, err error) {
	if err := e.fresh(ctx); err != nil {
		return a, err
	}
	compiled, err := e.runtime.CompileModule(ctx, wasm)
	if err != nil {
		return a, fmt.Errorf("%s: %w", e.name, err)
	}
	defer compiled.Close(ctx)
	e.granted = 0
	m, err := e.runtime.InstantiateModule(ctx, compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return a, fmt.Errorf("%s: %w", e.name, err)
	}
	defer m.Close(ctx)
	err = m.ExportedFunction("run").CallWithStack(ctx, make([]uint64, 1))
	if a.trap = trapOf(err); a.trap == trapOther {
		return a, fmt.Errorf("%s: %w", e.name, err)
	}
	if fuel := m.ExportedGlobal(rewrite.FuelExport); fuel != nil {
		a.fuel = e.granted - int64(fuel.Get())
	}
	view, _ := m.Memory().Read(0, m.Memory().Size())
	e.memory = append(e.memory[:0], view...)
	a.memory = sha256.Sum256(view)
	return a, nil
}

// node is V8 in node.
type node struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out io.ReadCloser
}

// startNode returns nil if node is not installed.
func startNode(t testing.TB) *node {
	path, err := exec.LookPath("node")
	if err != nil {
		return nil
	}
	n := &node{cmd: exec.Command(path, "testdata/v8.js")}
	n.in, err = n.cmd.StdinPipe()
	if err == nil {
		n.out, err = n.cmd.StdoutPipe()
	}
	if err == nil {
		err = n.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.in.Close(); n.cmd.Wait() })
	return n
}

func (n *node) run(wasm []byte) (a answer, err error) {
	if _, err = n.in.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(wasm))), wasm...)); err != nil {
		return a, err
	}
	var out [41]byte
	if _, err = io.ReadFull(n.out, out[:]); err != nil {
		return a, err
	}
	a.trap, a.fuel = trap(out[0]), int64(binary.LittleEndian.Uint64(out[1:]))
	copy(a.memory[:], out[9:])
	if a.trap == trapOther {
		return a, errors.New("an unknown error of V8")
	}
	return a, nil
}

// rewritten is the module in the form that the product compiles.
func rewritten(wasm []byte, o rewrite.Options) ([]byte, error) {
	m, problems := wasmbinary.Parse(wasm)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	r, err := rewrite.Rewrite(wasm, m, o)
	if err != nil {
		return nil, err
	}
	return r.Wasm, nil
}
