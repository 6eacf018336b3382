package rewrite_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// script is one script of the suite, as written by wast2json.
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

// engines are the two engines of wazero.
var engines = []struct {
	name   string
	config func() wazero.RuntimeConfig
}{
	{"compiler", wazero.NewRuntimeConfigCompiler},
	{"interpreter", wazero.NewRuntimeConfigInterpreter},
}

// runner runs one script on one engine.
type runner struct {
	t       testing.TB
	ctx     context.Context
	r       wazero.Runtime
	s       *script
	change  func(wasm []byte, m *binary.Module) ([]byte, error) // changes each valid module; nil: none
	counter string                                              // export of the counting global
	meter   *meter
	modules map[string]api.Module
	all     []api.Module
	last    api.Module
}

// outcome is the result of a command of a script: "ok", an error, or the kind
// of trap.
type outcome struct {
	how  string
	used int64
}

// run returns the outcome of each command.
func (x *runner) run(config wazero.RuntimeConfig) (outcomes []outcome) {
	x.meter = &meter{budget: math.MaxInt64, slice: x.meter.slice}
	x.ctx = context.WithValue(context.Background(), meterKey{}, x.meter)
	x.r = wazero.NewRuntimeWithConfig(x.ctx, config.WithCoreFeatures(api.CoreFeaturesV2|coreFeatureExtendedConst))
	defer x.r.Close(x.ctx)
	x.modules = map[string]api.Module{}
	serveMeter(x.t, x.ctx, x.r)
	host, err := os.ReadFile(filepath.Join(specDir(x.t), "testdata", "spectest.wasm"))
	if err != nil {
		x.t.Fatal(err)
	}
	if _, err := x.instantiate(host, "spectest"); err != nil {
		x.t.Fatalf("spectest: %v", err)
	}
	before := int64(0)
	for i := range x.s.Commands {
		how := x.command(i)
		used := x.used()
		outcomes = append(outcomes, outcome{how, used - before})
		before = used
	}
	return outcomes
}

// used returns the total fuel of all instances.
func (x *runner) used() int64 {
	used := x.meter.granted
	for _, m := range x.all {
		if g := m.ExportedGlobal(x.counter); g != nil {
			used -= int64(g.Get())
		}
	}
	return used
}

func (x *runner) instantiate(wasm []byte, name string) (api.Module, error) {
	if m, problems := binary.Parse(wasm); x.change != nil && len(problems) == 0 {
		var err error
		if wasm, err = x.change(wasm, m); err != nil {
			return nil, err
		}
	}
	m, err := x.r.InstantiateWithConfig(x.ctx, wasm, wazero.NewModuleConfig().WithName(name).WithStartFunctions())
	if err == nil {
		x.all = append(x.all, m)
	}
	return m, err
}

// command returns "ok" or an error.
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
			var refused *rewrite.Error
			if errors.As(err, &refused) {
				return "refused: " + err.Error()
			}
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
	restoreStack(m, suiteStack)
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
		return "trap: stack overflow"
	}
	return "unknown command " + c.Type
}

// kindOf describes an error without addresses and stacks, so that it is the
// same with and without rewriting.
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

// words returns a value in the engine's form.
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
		n++ // null is 0 in the engine
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

// compare returns "ok" if the results are the expected ones.
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

// suiteStack is a stack that ends before the 2,000 frames of the interpreter.
const suiteStack = 10_000

// meteredModule rewrites with metering.
func meteredModule(wasm []byte, m *binary.Module) ([]byte, error) {
	r, err := rewrite.Rewrite(wasm, m, rewrite.Options{Metering: true, Stack: suiteStack})
	if err != nil {
		return nil, err
	}
	return r.Wasm, nil
}

// TestSpecSuite runs the W3C core test suite on both engines, original and
// rewritten. A rewritten module must behave like the original, down to the kind
// of trap. Its fuel must be the same on both engines, with different slices. If
// a command succeeds, the fuel must be the count of a counter before every
// instruction.
func TestSpecSuite(t *testing.T) {
	if testing.Short() {
		t.Skip("thousands of modules")
	}
	var total tally
	t.Run("all", func(t *testing.T) {
		for _, version := range []string{"v1", "v2", "extended-const"} {
			for i, s := range specScripts(t, version) {
				if raceEnabled && i%20 != 0 {
					continue // takes minutes
				}
				t.Run(s.name, func(t *testing.T) {
					t.Parallel()
					total.add(s.test(t))
				})
			}
		}
	})
	t.Logf("%+v", total.counts)
	if total.Refused > 0 || total.Assertions < 60_000 && !raceEnabled {
		t.Error("too few assertions, or modules refused")
	}
}

// counts are the results of one engine.
type counts struct{ Modules, Refused, Assertions, Failing, Fuel, Counted int }

type tally struct {
	sync.Mutex
	counts
}

func (t *tally) add(c counts) {
	t.Lock()
	defer t.Unlock()
	t.Modules += c.Modules
	t.Refused += c.Refused
	t.Assertions += c.Assertions
	t.Failing += c.Failing
	t.Fuel += c.Fuel
	t.Counted += c.Counted
}

func (s *script) test(t *testing.T) (n counts) {
	var fuel [2][]outcome
	for i, engine := range engines {
		original := &runner{t: t, s: s, meter: &meter{}}
		metered := &runner{t: t, s: s, change: meteredModule, counter: rewrite.FuelExport, meter: &meter{slice: []int64{7, 1e6}[i]}}
		want, got := original.run(engine.config()), metered.run(engine.config())
		for i, c := range s.Commands {
			if got[i].how != want[i].how {
				t.Errorf("%s, line %d: %s, and rewritten %s", engine.name, c.Line, want[i].how, got[i].how)
			}
		}
		fuel[i] = got
	}
	counting := &runner{t: t, s: s, change: counted, counter: countExport, meter: &meter{}}
	counter := counting.run(wazero.NewRuntimeConfigInterpreter())
	for i, c := range s.Commands {
		how, a, b := fuel[0][i].how, fuel[0][i].used, fuel[1][i].used
		if c.Type == "module" {
			n.Modules++
			if strings.HasPrefix(how, "refused") {
				n.Refused++
				t.Logf("line %d: %s", c.Line, how)
			}
		} else if how != "skipped" && c.Type != "register" {
			n.Assertions++
			if how != "ok" && !strings.HasPrefix(how, "trap") {
				n.Failing++
				t.Logf("line %d: %s", c.Line, how)
			}
		}
		if a != b {
			t.Errorf("line %d: %d units on the compiler, but %d on the interpreter", c.Line, a, b)
		}
		n.Fuel++
		if how != "ok" || c.Type != "assert_return" && c.Type != "action" && c.Type != "module" {
			continue
		}
		n.Counted++
		if want := -counter[i].used; a != want {
			t.Errorf("line %d: %d units, but %d counted instructions", c.Line, a, want)
		}
	}
	return n
}
