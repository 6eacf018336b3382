package host_test

import (
	"context"
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/enginetest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// The fake and the real engine pass the same suite, so that tests with the fake
// are valid for the real engine.
func TestEngines(t *testing.T) {
	wasm, err := os.ReadFile("../guest-examples/square/c/square.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func(t *testing.T) host.Engine{
		"fake": func(*testing.T) host.Engine {
			f := squares()
			f.exec = func(chunk []byte, _ int) ([]byte, error) {
				if chunk[0]>>5 == abi.MajorText {
					return nil, abi.Failf(abi.ClassGuest, "not an integer")
				}
				return square(chunk)
			}
			return f
		},
		"runtime": func(t *testing.T) host.Engine {
			r, err := runtime.New(t.Context(), runtime.Config{})
			if err != nil {
				t.Fatal(err)
			}
			return host.NewEngine(r)
		},
	} {
		t.Run(name, func(t *testing.T) {
			enginetest.Run(t, wasm, func(t *testing.T) enginetest.Engine { return testedEngine{open(t)} })
		})
	}
}

// The suite asks of an engine the same methods as host. Only the names of the
// returned interfaces differ.
type (
	testedEngine struct{ host.Engine }
	testedModule struct{ host.Module }
	testedPool   struct{ host.Pool }
)

func (e testedEngine) Admit(ctx context.Context, wasm []byte, o runtime.Options) (enginetest.Module, error) {
	m, err := e.Engine.Admit(ctx, wasm, o)
	return testedModule{m}, err
}

func (m testedModule) Prepare(ctx context.Context, s runtime.Settings) (enginetest.Pool, error) {
	p, err := m.Module.Prepare(ctx, s)
	return testedPool{p}, err
}

func (p testedPool) Borrow(log runtime.Log) enginetest.Instance { return p.Pool.Borrow(log) }
