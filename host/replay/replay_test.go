package replay_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/replay"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

const faulty = "../../guest-examples/faulty/c/faulty.wasm"

func readFile(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// request returns the chunk {"do": action}.
func request(what string) []byte {
	return abi.AppendText(abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 1), "do"), what)
}

// recorded returns the bundle of a chunk that failed with f.
func recorded(wasm, chunk []byte, f abi.Failure) *bundle.Bundle {
	return &bundle.Bundle{
		ID: abi.IntID(7), Chunk: chunk, Module: bundle.Module{SHA256: sha256.Sum256(wasm), Size: len(wasm)},
		Settings: runtime.Settings{Fuel: 1_000_000}, Failure: f,
	}
}

// failed returns the bundle of a request, with its failure.
func failed(t *testing.T, do string) (b *bundle.Bundle, wasm []byte) {
	t.Helper()
	wasm = readFile(t, faulty)
	b = recorded(wasm, request(do), abi.Failure{Class: abi.ClassTrap})
	r := run(t, b, wasm, replay.Options{})
	b.Failure = *r.Replayed.Failure
	return b, wasm
}

func run(t *testing.T, b *bundle.Bundle, wasm []byte, o replay.Options) *replay.Replay {
	t.Helper()
	r, err := replay.Run(t.Context(), b, wasm, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// differing returns the compared properties that differ.
func differing(r *replay.Replay) (names []replay.Property) {
	for _, c := range r.Compared {
		if !c.Same {
			names = append(names, c.What)
		}
	}
	return names
}

func TestTheSameCallEndsTheSame(t *testing.T) {
	for _, do := range []string{"trap", "permanent", "loop", "exit"} {
		t.Run(do, func(t *testing.T) {
			b, wasm := failed(t, do)
			for _, interpreter := range []bool{false, true} {
				r := run(t, b, wasm, replay.Options{Interpreter: interpreter})
				compared, notes := 4, []replay.Note(nil)
				if do == "loop" { // exhausted fuel is noticed at the next check
					compared, notes = 3, []replay.Note{replay.BudgetNoticed}
				}
				if !r.Same() || len(r.Compared) != compared || !slices.Equal(r.Notes, notes) {
					t.Errorf("interpreter %t: differs in %v of %v, notes %v", interpreter, differing(r), r.Compared, r.Notes)
				}
			}
		})
	}
}

func TestWhatDiffersIsNamed(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*bundle.Bundle)
		want   []replay.Property
		notes  []replay.Note
	}{
		{"nothing", func(*bundle.Bundle) {}, nil, nil},
		{"class", func(b *bundle.Bundle) { b.Failure.Class = abi.ClassExit }, []replay.Property{replay.Class}, nil},
		{"message", func(b *bundle.Bundle) { b.Failure.Message = "reachable" }, []replay.Property{replay.Message}, nil},
		{"stack", func(b *bundle.Bundle) { b.Failure.Stack = b.Failure.Stack[1:] }, []replay.Property{replay.Stack}, nil},
		{"fuel", func(b *bundle.Bundle) { b.Failure.Fuel++ }, []replay.Property{replay.Fuel}, nil},
		{"no fuel known", func(b *bundle.Bundle) { b.Failure.Fuel = 0 }, nil, []replay.Note{replay.FuelUnknown}},
		{"a timeout", func(b *bundle.Bundle) { b.Failure.Class = abi.ClassTimeout }, []replay.Property{replay.Class}, []replay.Note{replay.TimeoutVaries}},
		{"a shortened text", func(b *bundle.Bundle) {
			b.Failure.Message, b.Failure.Stack, b.Shortened = b.Failure.Message[:5]+"...", nil, true
		}, nil, []replay.Note{replay.TextShortened}},
		{"a lost stack", func(b *bundle.Bundle) { b.Failure.Stack, b.Shortened = nil, true }, nil, []replay.Note{replay.TextShortened}},
		{"another shortened text", func(b *bundle.Bundle) {
			b.Failure.Message, b.Failure.Stack, b.Shortened = "reach...", nil, true
		}, []replay.Property{replay.Message}, []replay.Note{replay.TextShortened}},
		{"a text that was cut elsewhere", func(b *bundle.Bundle) {
			b.Failure.Message, b.Failure.Stack = b.Failure.Message[:5]+"...", nil
		}, []replay.Property{replay.Message, replay.Stack}, nil},
		{"the host", func(b *bundle.Bundle) { b.Failure.Class = abi.ClassHost }, []replay.Property{replay.Class}, []replay.Note{replay.HostFailed}},
		{"a chunk that succeeds", func(b *bundle.Bundle) { b.Chunk = []byte{1} }, []replay.Property{replay.Class, replay.Message, replay.Stack, replay.Fuel}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, wasm := failed(t, "trap")
			tt.change(b)
			r := run(t, b, wasm, replay.Options{})
			if got := differing(r); !slices.Equal(got, tt.want) || !slices.Equal(r.Notes, tt.notes) || r.Same() != (tt.want == nil) {
				t.Errorf("differs in %v, notes %q; want %v, %q", got, r.Notes, tt.want, tt.notes)
			}
		})
	}
}

func TestInterpreterEndsEarlier(t *testing.T) {
	b, wasm := failed(t, "stack")
	b.Settings.Fuel = 0
	r := run(t, b, wasm, replay.Options{Interpreter: true})
	if r.Same() || !slices.Contains(r.Notes, replay.InterpreterDepth) {
		t.Errorf("notes %q, replayed %v", r.Notes, r.Replayed.Failure)
	}
}

func TestTraceKeepsBothEnds(t *testing.T) {
	b, wasm := failed(t, "stack")
	whole := run(t, b, wasm, replay.Options{Trace: 1 << 20}).Trace
	if whole.Omitted != 0 || len(whole.First)+len(whole.Last) < 100 || !strings.HasPrefix(whole.First[0], "alloc[") {
		t.Fatalf("%d lines, %d omitted", len(whole.First)+len(whole.Last), whole.Omitted)
	}
	all := slices.Concat(whole.First, whole.Last)
	for _, limit := range []int{1, 2, 9, 10, len(all)} {
		cut := run(t, b, wasm, replay.Options{Trace: limit}).Trace
		kept := len(cut.First) + len(cut.Last)
		if kept != limit || kept+cut.Omitted != len(all) {
			t.Errorf("limit %d: %d lines and %d omitted, of %d", limit, kept, cut.Omitted, len(all))
		}
		if !slices.Equal(cut.First, all[:len(cut.First)]) || !slices.Equal(cut.Last, all[len(all)-len(cut.Last):]) {
			t.Errorf("limit %d: other lines:\n%s", limit, strings.Join(slices.Concat(cut.First, cut.Last), "\n"))
		}
	}
}

func TestMemoryIsThatOfTheEnd(t *testing.T) {
	b, wasm := failed(t, "permanent")
	var memory []byte
	run(t, b, wasm, replay.Options{Trace: 10, Memory: func(m []byte) error {
		if memory != nil {
			t.Error("it is told twice")
		}
		memory = bytes.Clone(m)
		return nil
	}})
	if !bytes.Contains(memory, b.Chunk) {
		t.Errorf("%d bytes of memory have not the chunk", len(memory))
	}
	full := errors.New("full")
	if _, err := replay.Run(t.Context(), b, wasm, replay.Options{Memory: func([]byte) error { return full }}); err != full {
		t.Errorf("got %v, want the error of Memory", err)
	}
}

func TestAnotherModuleIsRefused(t *testing.T) {
	b, wasm := failed(t, "trap")
	other := append(slices.Clone(wasm), 0)
	_, err := replay.Run(t.Context(), b, other, replay.Options{})
	e, ok := errors.AsType[*replay.ModuleError](err)
	if !ok || e.Recorded != b.Module || e.Given.Size != len(other) || strings.Contains(e.Error(), "--") {
		t.Errorf("got %v", err)
	}
	if err := replay.CheckModule(b, wasm); err != nil {
		t.Errorf("its own module: %v", err)
	}
}

func TestDirsAreThoseOfTheBundle(t *testing.T) {
	dir := func(guest, content string) wasi.Dir {
		host := t.TempDir()
		if err := os.WriteFile(filepath.Join(host, "file"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		tree, err := wasi.ReadTree(t.Context(), host, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		return wasi.Dir{Guest: guest, Tree: tree}
	}
	a, b, changed := dir("/a", "a"), dir("/b", "b"), dir("/b", "c")
	bundled := &bundle.Bundle{Dirs: []bundle.Dir{{Guest: "/a", Digest: a.Tree.Digest()}, {Guest: "/b", Digest: b.Tree.Digest()}}}
	for _, tt := range []struct {
		name    string
		given   []wasi.Dir
		problem replay.DirProblem
		guest   string
	}{
		{"none", nil, replay.DirMissing, "/a"},
		{"both", []wasi.Dir{a, b}, "", ""},
		{"in another order", []wasi.Dir{b, a}, "", ""},
		{"one", []wasi.Dir{a}, replay.DirMissing, "/b"},
		{"another content", []wasi.Dir{a, changed}, replay.DirDiffers, "/b"},
		{"too many", []wasi.Dir{a, b, dir("/c", "")}, replay.DirsTooMany, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := replay.MatchDirs(bundled, tt.given)
			if tt.problem == "" {
				if err != nil || !slices.Equal(got, []wasi.Dir{a, b}) {
					t.Errorf("got %v, %v", got, err)
				}
				return
			}
			e, ok := errors.AsType[*replay.DirError](err)
			if !ok || e.Problem != tt.problem || e.Guest != tt.guest || e.Count != len(tt.given) || e.Want != 2 || strings.Contains(e.Error(), "--") {
				t.Errorf("got %v, %+v", err, e)
			}
		})
	}
}

func TestCancelled(t *testing.T) {
	b, wasm := failed(t, "trap")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := replay.Run(ctx, b, wasm, replay.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
