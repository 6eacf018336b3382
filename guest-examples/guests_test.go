// Package guestexamples_test runs the example guests on a plain engine, without
// the host of this project, so that the guests are tested only against
// abi/ABI.md.
package guestexamples_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// memoryPages limits the memory of guests to 16 MiB: enough for all tests, and
// quick to fill for the guests that fill it.
const memoryPages = 256

// guest makes a new instance for each call.
type guest struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

// call is the state of the test's host for one call.
type call struct {
	kind    uint32
	message string
	failed  bool
	logged  []string
	beats   int // heartbeats to answer with 1
	stdout  bytes.Buffer
}

type callKey struct{}

func loadFile(t *testing.T, path string) *guest {
	t.Helper()
	return load(t, path, wazero.NewRuntimeConfig())
}

func load(t *testing.T, path string, config wazero.RuntimeConfig) *guest {
	t.Helper()
	wasm, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	g := &guest{runtime: wazero.NewRuntimeWithConfig(ctx, config.WithMemoryLimitPages(memoryPages))}
	t.Cleanup(func() { _ = g.runtime.Close(context.Background()) })
	wasi_snapshot_preview1.MustInstantiate(ctx, g.runtime)
	if err := serve(ctx, g.runtime); err != nil {
		t.Fatal(err)
	}
	if g.module, err = g.runtime.CompileModule(ctx, wasm); err != nil {
		t.Fatal(err)
	}
	return g
}

func serve(ctx context.Context, r wazero.Runtime) error {
	own := r.NewHostModuleBuilder(abi.ImportModule)
	of := func(ctx context.Context) *call { return ctx.Value(callKey{}).(*call) }
	text := func(m api.Module, ptr, size uint32) string {
		b, _ := m.Memory().Read(ptr, size)
		return string(b)
	}
	own.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, kind, ptr, size uint32) {
		c := of(ctx)
		c.failed, c.kind, c.message = true, kind, text(m, ptr, size)
	}).Export(abi.ImportFail)
	own.NewFunctionBuilder().WithFunc(func(ctx context.Context, m api.Module, level int32, ptr, size uint32) {
		of(ctx).logged = append(of(ctx).logged, fmt.Sprint(level, " ", text(m, ptr, size)))
	}).Export(abi.ImportLog)
	own.NewFunctionBuilder().WithFunc(func(ctx context.Context) uint32 {
		of(ctx).beats--
		if of(ctx).beats < 0 {
			return 0
		}
		return 1
	}).Export(abi.ImportHeartbeat)
	_, err := own.Instantiate(ctx)
	return err
}

// failure is a failure that the guest reported.
type failure struct {
	kind    uint32
	message string
}

func (f failure) Error() string { return f.message }

// errResult means that the result lies outside the guest's memory.
var errResult = errors.New("result outside memory")

// run calls an export on a new instance with one input.
func (g *guest) run(ctx context.Context, c *call, export string, input []byte) ([]byte, error) {
	ctx = context.WithValue(ctx, callKey{}, c)
	instance, err := g.instantiate(ctx, c)
	if err != nil {
		return nil, err
	}
	defer instance.Close(context.WithoutCancel(ctx))
	output, err := invoke(ctx, instance, export, input)
	if err == nil && c.failed {
		return nil, failure{c.kind, c.message}
	}
	return output, err
}

func (g *guest) instantiate(ctx context.Context, c *call) (api.Module, error) {
	config := wazero.NewModuleConfig().WithName("").WithStartFunctions(abi.ExportInitialize).
		WithStdout(&c.stdout).WithRandSource(rand.Reader)
	return g.runtime.InstantiateModule(ctx, g.module, config)
}

func invoke(ctx context.Context, instance api.Module, export string, input []byte) ([]byte, error) {
	allocated, err := instance.ExportedFunction(abi.ExportAlloc).Call(ctx, uint64(len(input)))
	if err != nil {
		return nil, err
	}
	if allocated[0] == 0 || !instance.Memory().Write(uint32(allocated[0]), input) {
		return nil, fmt.Errorf("alloc: %d bytes at %d", len(input), allocated[0])
	}
	result, err := instance.ExportedFunction(export).Call(ctx, allocated[0], uint64(len(input)))
	if err != nil {
		return nil, err
	}
	output, ok := instance.Memory().Read(abi.Unpack(result[0]))
	if !ok {
		return nil, errResult
	}
	return bytes.Clone(output), nil
}

// must is run for calls that return one well-formed item.
func (g *guest) must(t *testing.T, export string, input []byte) []byte {
	t.Helper()
	output, err := g.run(t.Context(), &call{}, export, input)
	if err != nil {
		t.Fatalf("%s of %x: %v", export, input[:min(len(input), 50)], err)
	}
	if err := abi.CheckItem(output); err != nil {
		t.Fatalf("%s of %x gave %x: %v", export, input[:min(len(input), 50)], output[:min(len(output), 50)], err)
	}
	return output
}

// unhex returns the bytes of a hex string, which may contain blanks.
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
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := mode.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// entries returns the input of aggregate for outputs with the ids 0, 1, ...
func entries(outputs ...[]byte) []byte {
	b := abi.AppendHead(nil, abi.MajorArray, uint64(len(outputs)))
	for i, output := range outputs {
		b = abi.AppendEntry(b, abi.IntID(uint64(i)), output)
	}
	return b
}

// array returns the input of merge.
func array(items ...[]byte) []byte {
	return append(abi.AppendHead(nil, abi.MajorArray, uint64(len(items))), bytes.Join(items, nil)...)
}

// goGuest builds a guest in Go, or skips the test.
func goGuest(t *testing.T, name string) *guest {
	t.Helper()
	switch {
	case testing.Short():
		t.Skip("building and compiling a Go guest takes seconds: not with -short")
	case raceEnabled:
		t.Skip("compiling a Go guest takes 20 s under the race detector: run without -race")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no Go toolchain to build the guest with:", err)
	}
	out := filepath.Join(t.TempDir(), name+".wasm")
	build := exec.Command(goTool, "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "./"+name+"/go")
	build.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm", "GOFLAGS=")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return loadFile(t, out)
}
