package rewrite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// script is one script of the suite, as wast2json writes it.
type script struct {
	Commands []command
	name     string
	dir      string
}

type command struct {
	Type, Name, Filename, As, Text string
	Line                           int
	ModuleType                     string `json:"module_type"`
	Action                         struct {
		Type, Field, Module string
		Args                []value
	}
	Expected []value
}

type value struct {
	Type     string
	LaneType string `json:"lane_type"`
	Value    any
}

func specScripts(t testing.TB, version string) (scripts []*script) {
	paths, err := filepath.Glob(filepath.Join(specDir(t), version, "testdata", "*.json"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no scripts of %s: %v", version, err)
	}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		s := &script{name: version + "/" + strings.TrimSuffix(filepath.Base(path), ".json"), dir: filepath.Dir(path)}
		if err := json.Unmarshal(b, s); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		scripts = append(scripts, s)
	}
	return scripts
}

// engines are the two of wazero.
var engines = []struct {
	name   string
	config func() wazero.RuntimeConfig
}{
	{"compiler", wazero.NewRuntimeConfigCompiler},
	{"interpreter", wazero.NewRuntimeConfigInterpreter},
}

// runner runs one script on one engine.
type runner struct {
	t        testing.TB
	ctx      context.Context
	r        wazero.Runtime
	s        *script
	rewrites *rewrite.Options // nil: the modules as they are
	modules  map[string]api.Module
	last     api.Module
	refused  int
}

// outcomes gives for each command whether it went as the suite says.
func (s *script) run(t testing.TB, config wazero.RuntimeConfig, o *rewrite.Options) (outcomes []string, refused int) {
	ctx := context.Background()
	config = config.WithCoreFeatures(api.CoreFeaturesV2 | coreFeatureExtendedConst)
	x := &runner{t: t, ctx: ctx, r: wazero.NewRuntimeWithConfig(ctx, config), s: s, rewrites: o, modules: map[string]api.Module{}}
	defer x.r.Close(ctx)
	serveMeter(t, ctx, x.r)
	host, err := os.ReadFile(filepath.Join(specDir(t), "testdata", "spectest.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.instantiate(host, "spectest"); err != nil {
		t.Fatalf("spectest: %v", err)
	}
	for i := range s.Commands {
		outcomes = append(outcomes, fmt.Sprintf("%d: %s", s.Commands[i].Line, x.command(i)))
	}
	return outcomes, x.refused
}

func (x *runner) instantiate(wasm []byte, name string) (api.Module, error) {
	if m, problems := binary.Parse(wasm); x.rewrites != nil && len(problems) == 0 {
		r, err := rewrite.Rewrite(wasm, m, *x.rewrites)
		if err != nil {
			x.refused++
			return nil, err
		}
		wasm = r.Wasm
	}
	return x.r.InstantiateWithConfig(x.ctx, wasm, wazero.NewModuleConfig().WithName(name).WithStartFunctions())
}

// command returns "ok" or what went wrong.
func (x *runner) command(i int) string {
	c := &x.s.Commands[i]
	switch c.Type {
	case "module":
		name := ""
		if i+1 < len(x.s.Commands) && x.s.Commands[i+1].Type == "register" {
			name = x.s.Commands[i+1].As
		}
		m, err := x.instantiate(x.s.read(x.t, c.Filename), name)
		if err != nil {
			return "no instance: " + kindOf(err)
		}
		if x.last = m; c.Name != "" {
			x.modules[c.Name] = m
		}
		return "ok"
	case "register":
		return "ok"
	case "assert_malformed", "assert_invalid", "assert_unlinkable", "assert_uninstantiable":
		if !strings.HasSuffix(c.Filename, ".wasm") {
			return "skipped"
		}
		if _, err := x.instantiate(x.s.read(x.t, c.Filename), ""); err == nil {
			return "accepted"
		}
		return "ok"
	}
	return x.action(c)
}

func (x *runner) action(c *command) string {
	m := x.last
	if c.Action.Module != "" {
		m = x.modules[c.Action.Module]
	}
	if m == nil {
		return "no module"
	}
	if c.Action.Type == "get" {
		return compare([]uint64{m.ExportedGlobal(c.Action.Field).Get()}, c.Expected)
	}
	var args []uint64
	for _, a := range c.Action.Args {
		args = append(args, a.words()...)
	}
	f := m.ExportedFunction(c.Action.Field)
	restoreStack(m)
	results, err := f.Call(x.ctx, args...)
	switch c.Type {
	case "assert_return", "action":
		if err != nil {
			return "failed: " + kindOf(err)
		}
		return compare(results, c.Expected)
	case "assert_trap":
		if err == nil {
			return "no trap"
		}
		return "trap: " + kindOf(err)
	case "assert_exhaustion":
		if err == nil || kindOf(err) != "stack overflow" {
			return fmt.Sprintf("no stack overflow: %v", err)
		}
		return "ok"
	}
	return "unknown command " + c.Type
}

// kindOf names an error without addresses and stacks, the same with and
// without rewriting.
func kindOf(err error) string {
	var overflow *overflowError
	if errors.As(err, &overflow) {
		return "stack overflow"
	}
	if inner := errors.Unwrap(err); inner != nil && reflect.TypeOf(inner).String() == "*wasmruntime.Error" {
		return inner.Error()
	}
	text, _, _ := strings.Cut(err.Error(), "\n")
	return text
}

// words returns a value as the engine passes it.
func (v value) words() []uint64 {
	if lanes, ok := v.Value.([]any); ok {
		width := map[string]int{"i8": 8, "i16": 16, "i32": 32, "i64": 64, "f32": 32, "f64": 64}[v.LaneType]
		out := make([]uint64, 2)
		for i, lane := range lanes {
			out[i*width/64] |= number(lane, width) << (i * width % 64)
		}
		return out
	}
	n := number(v.Value, 64)
	if v.Type == "externref" && v.Value != "null" && v.Value != nil {
		n++ // the engine takes 0 for null
	}
	return []uint64{n}
}

func number(v any, width int) uint64 {
	text, ok := v.(string)
	if !ok || text == "null" {
		return 0
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return n
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0 // a kind of NaN, which only results have
	}
	return uint64(n) & (1<<(width-1)<<1 - 1)
}

// compare returns "ok" where the results are the expected ones.
func compare(results []uint64, expected []value) string {
	at := 0
	for _, e := range expected {
		width, lanes := 64, []any{e.Value}
		if list, ok := e.Value.([]any); ok {
			lanes, width = list, 128/len(list)
		} else if e.Type == "i32" || e.Type == "f32" {
			width = 32
		}
		if at+(width*len(lanes)+63)/64 > len(results) {
			return "too few results"
		}
		for i, lane := range lanes {
			got := results[at+i*width/64] >> (i * width % 64) & (1<<(width-1)<<1 - 1)
			if !same(got, lane, width, e) {
				return fmt.Sprintf("lane %d: got %#x, expected %v", i, got, lane)
			}
		}
		at += (width*len(lanes) + 63) / 64
	}
	return "ok"
}

func same(got uint64, want any, width int, e value) bool {
	quiet, sign := uint64(0x7ff8<<48), uint64(1<<63)
	if width == 32 {
		quiet, sign = 0x7fc00000, 1<<31
	}
	switch want {
	case "nan:canonical":
		return got&^sign == quiet
	case "nan:arithmetic":
		return got&quiet == quiet
	case nil:
		return true
	}
	return got == e.lane(want, width)
}

func (e value) lane(v any, width int) uint64 {
	if e.Type == "externref" && v != "null" {
		return number(v, width) + 1
	}
	return number(v, width)
}

// TestSpecSuite runs the W3C core test suite on both engines, as it is and
// rewritten: what a rewritten module does must be what the suite says wherever
// the original does, down to the kind of trap.
func TestSpecSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of modules")
	}
	for _, engine := range engines {
		t.Run(engine.name, func(t *testing.T) {
			t.Parallel()
			assertions, good, modules, refused := 0, 0, 0, 0
			for _, version := range []string{"v1", "v2", "extended-const"} {
				for _, s := range specScripts(t, version) {
					want, _ := s.run(t, engine.config(), nil)
					got, no := s.run(t, engine.config(), &rewrite.Options{Metering: true})
					refused += no
					for i := range want {
						if s.Commands[i].Type == "module" {
							modules++
						} else {
							assertions++
						}
						if strings.HasSuffix(want[i], "ok") || strings.Contains(want[i], "trap: ") {
							good++
						}
						if got[i] != want[i] {
							t.Errorf("%s:%s, rewritten %s", s.name, want[i], got[i])
						}
					}
				}
			}
			t.Logf("%d modules and %d assertions, of which %d hold, all equal with and without rewriting; %d modules refused", modules, assertions, good, refused)
		})
	}
}
