package rewrite_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// compiles reports whether the engine accepts a module. The engine panics on
// some invalid ones.
func compiles(r wazero.Runtime, wasm []byte) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	m, err := r.CompileModule(context.Background(), wasm)
	if err != nil {
		return false
	}
	m.Close(context.Background())
	return true
}

// withoutCustom removes the custom sections, because the engine refuses some
// valid ones.
func withoutCustom(wasm []byte, m *binary.Module) []byte {
	out := slices.Clone(wasm[:8])
	for _, s := range m.Sections {
		if s.ID != 0 {
			out = append(out, wasm[s.Head:s.End]...)
		}
	}
	return out
}

// checkRewrite checks that a module that the engine accepts is rewritten to one
// that it accepts and whose size is bounded, and that a module that it refuses
// does not become one that it accepts.
func checkRewrite(t *testing.T, r wazero.Runtime, wasm []byte) (rewrote, sound bool) {
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		return false, false
	}
	wasm = withoutCustom(wasm, m)
	m, _ = binary.Parse(wasm)
	sound = compiles(r, wasm)
	for _, o := range []rewrite.Options{{}, {Metering: true}, {Metering: true, NativeNaNs: true}} {
		result, err := rewrite.Rewrite(wasm, m, o)
		if err != nil {
			if sound {
				t.Errorf("%+v: refused: %v\n%x", o, err, wasm)
			}
			continue
		}
		if taken := compiles(r, result.Wasm); taken != sound {
			t.Errorf("%+v: compiles %v, and originally %v\n%x", o, taken, sound, wasm)
		}
		if len(result.Wasm) > 12*len(wasm)+500 {
			t.Errorf("%+v: %d bytes became %d\n%x", o, len(wasm), len(result.Wasm), wasm)
		}
		if _, problems := binary.Parse(result.Wasm); len(problems) > 0 && sound {
			t.Errorf("%+v: the result is unsound: %v\n%x", o, problems, wasm)
		}
		rewrote = true
	}
	return rewrote, sound
}

func newCompiler(t testing.TB) wazero.Runtime {
	// The interpreter checks the same as the compiler, and compiles faster.
	config := wazero.NewRuntimeConfigInterpreter().WithCoreFeatures(api.CoreFeaturesV2 | coreFeatureExtendedConst).WithMemoryLimitPages(65536)
	r := wazero.NewRuntimeWithConfig(context.Background(), config)
	t.Cleanup(func() { r.Close(context.Background()) })
	return r
}

func FuzzRewrite(f *testing.F) {
	modules := specModules(f)
	for i, name := range slices.Sorted(maps.Keys(modules)) {
		if i%10 == 0 {
			f.Add(modules[name])
		}
	}
	f.Add(casesWasm)
	f.Add(kernelsWasm)
	r := newCompiler(f)
	f.Fuzz(func(t *testing.T, wasm []byte) { checkRewrite(t, r, wasm) })
}

// TestMutations flips bytes of modules for a few seconds.
func TestMutations(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	modules := specModules(t)
	names := slices.Sorted(maps.Keys(modules))
	random := rand.New(rand.NewPCG(1, 2))
	r := newCompiler(t)
	tried, rewrote, sound := 0, 0, 0
	for start := time.Now(); time.Since(start) < 5*time.Second && !t.Failed(); tried++ {
		wasm := slices.Clone(modules[names[random.IntN(len(names))]])
		for range random.IntN(4) {
			at := 8 + random.IntN(max(len(wasm)-8, 1))
			if at < len(wasm) {
				wasm[at] = [...]byte{byte(random.Uint32()), wasm[at] + 1, wasm[at] - 1, wasm[at] ^ 1<<random.IntN(8)}[random.IntN(4)]
			}
		}
		did, ok := checkRewrite(t, r, wasm)
		if did {
			rewrote++
		}
		if ok {
			sound++
		}
	}
	t.Logf("%d tried, %d rewritten, %d sound", tried, rewrote, sound)
}
