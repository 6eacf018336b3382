package spec_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

func digestOf(n byte) string { return spec.Digest([32]byte{n}) }

// full returns a valid job with every field set.
func full() *spec.Spec {
	failures := 3
	return &spec.Spec{
		Name: "n", Meta: map[string]string{"k": "v"}, Priority: -2,
		Module: spec.File{Path: "/m", Digest: digestOf(1), Size: 10}, Chunks: spec.File{Path: "/c", Digest: digestOf(2), Size: 20}, Total: 5,
		Context: digestOf(3), ContextSize: 4,
		Settings: spec.Settings{
			Seed:       7,
			Limits:     spec.Limits{Memory: 1 << 20, Stack: 1 << 16, Fuel: 9, Timeout: time.Second, FoldTimeout: time.Minute, MaxOutput: 11, MaxAggregate: 12},
			NativeNaNs: true, Metering: 1, EngineFixes: 1, Isolation: "instance",
			Retry:       spec.Retry{Retries: 2, Classes: []abi.Class{abi.ClassTrap, abi.ClassHost}, MaxRequeues: 4, Backoff: time.Millisecond, BackoffMax: time.Second, Deterministic: true},
			MaxFailures: &failures, NoFold: true,
			Command: &spec.Command{
				Args: []string{"a", ""}, Env: []string{"A=1", "B="}, Stdin: spec.StdinCBOR,
				Dirs: []spec.Dir{{Guest: "/d", Digest: digestOf(4), Files: 1, Bytes: 2}, {Guest: "/e", Digest: digestOf(5)}},
			},
		},
		Sources: &spec.Sources{
			Context: "/x", Dirs: map[string]string{"/d": "/here/d", "/e": "/here/e"}, MaxDir: 13,
			Chunks: spec.Chunks{Kind: spec.KindLines, Path: "/c", Size: 20, Lines: 2, AsBytes: true, IDKey: "key", MaxChunk: 14, Select: &spec.Selection{Ranges: "0-9", IDs: "a"}},
		},
	}
}

// minimal returns the valid job with the fewest fields.
func minimal() *spec.Spec {
	return &spec.Spec{
		Module: spec.File{Digest: digestOf(1)}, Chunks: spec.File{Digest: digestOf(2)},
		Settings: spec.Settings{Limits: spec.Limits{Memory: 1}, Metering: 1},
	}
}

func TestValidate(t *testing.T) {
	for _, j := range []*spec.Spec{minimal(), full()} {
		if err := j.Validate(); err != nil {
			t.Errorf("%+v: %v", j, err)
		}
	}
	minus := -1
	for field, change := range map[string]func(j *spec.Spec){
		"Module.Digest":                func(j *spec.Spec) { j.Module.Digest = strings.ToUpper(j.Module.Digest) },
		"Module.Size":                  func(j *spec.Spec) { j.Module.Size = -1 },
		"Chunks.Digest":                func(j *spec.Spec) { j.Chunks.Digest = "" },
		"Total":                        func(j *spec.Spec) { j.Total = -1 },
		"Context":                      func(j *spec.Spec) { j.Context = "sha256:00" },
		"ContextSize":                  func(j *spec.Spec) { j.ContextSize = -1 },
		"Limits.Memory":                func(j *spec.Spec) { j.Settings.Memory = 0 },
		"Limits.Timeout":               func(j *spec.Spec) { j.Settings.Timeout = -1 },
		"Limits.FoldTimeout":           func(j *spec.Spec) { j.Settings.FoldTimeout = -1 },
		"EngineFixes":                  func(j *spec.Spec) { j.Settings.EngineFixes = -1 },
		"Metering":                     func(j *spec.Spec) { j.Settings.NoMetering = true },
		"Isolation":                    func(j *spec.Spec) { j.Settings.Isolation = "none" },
		"Retry.Retries":                func(j *spec.Spec) { j.Settings.Retries = -1 },
		"Retry.Classes":                func(j *spec.Spec) { j.Settings.Classes[1] = "nonsense" },
		"Retry.MaxRequeues":            func(j *spec.Spec) { j.Settings.MaxRequeues = -1 },
		"Retry.Backoff":                func(j *spec.Spec) { j.Settings.Backoff = -1 },
		"Retry.BackoffMax":             func(j *spec.Spec) { j.Settings.BackoffMax = -1 },
		"MaxFailures":                  func(j *spec.Spec) { j.Settings.MaxFailures = &minus },
		"Command.Stdin":                func(j *spec.Spec) { j.Settings.Command.Stdin = "text" },
		"Command.Env":                  func(j *spec.Spec) { j.Settings.Command.Env[1] = "=" },
		"Command.Env twice":            func(j *spec.Spec) { j.Settings.Command.Env[1] = "A=2" },
		"Command.Dirs":                 func(j *spec.Spec) { j.Settings.Command.Dirs[0].Guest = "" },
		"Command.Dirs twice":           func(j *spec.Spec) { j.Settings.Command.Dirs[1] = j.Settings.Command.Dirs[0] },
		"Command.Dirs size":            func(j *spec.Spec) { j.Settings.Command.Dirs[1].Bytes = -1 },
		"Command.Dirs without digest":  func(j *spec.Spec) { j.Settings.Command.Dirs[1].Digest = "sha256:" },
		"Sources.MaxDir":               func(j *spec.Spec) { j.Sources.MaxDir = -1 },
		"Sources.Chunks.Kind":          func(j *spec.Spec) { j.Sources.Chunks.Kind = "xml" },
		"Sources.Chunks.Path":          func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Path: "/c"} },
		"Sources.Chunks.Lines":         func(j *spec.Spec) { j.Sources.Chunks.Bytes = 7 },
		"Sources.Chunks.Size":          func(j *spec.Spec) { j.Sources.Chunks.Size = -1 },
		"Sources.Chunks.Delimiter":     func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindCSV, Path: "/c", Delimiter: "ab"} },
		"Sources.Chunks.Delimiter for": func(j *spec.Spec) { j.Sources.Chunks.Delimiter = ";" },
		"Sources.Chunks.SplitLines":    func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindFiles, Path: "/c", SplitLines: true} },
		"Sources.Chunks.SkipBad":       func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindFiles, Path: "/c", SkipBad: true} },
		"Sources.Chunks.Rows":          func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindParquet, Path: "/c", Rows: -1} },
		"Sources.Chunks.Range":         func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindRange, Range: "3-1"} },
		"Sources.Chunks.Format":        func(j *spec.Spec) { j.Sources.Chunks = spec.Chunks{Kind: spec.KindFile, Path: "/c", Format: "xml"} },
		"Sources.Chunks.IDKey":         func(j *spec.Spec) { j.Sources.Chunks.NoIDKey = true },
		"Sources.Chunks.Select.Ranges": func(j *spec.Spec) { j.Sources.Chunks.Select.Ranges = "x" },
		"Sources.Chunks.Select.IDs":    func(j *spec.Spec) { j.Sources.Chunks.Select.IDs = "," },
		"Manifest":                     func(j *spec.Spec) { j.Sources.Context = j.Module.Path },
		"Manifest of directories":      func(j *spec.Spec) { j.Sources.Dirs["/d"] = j.Sources.Dirs["/e"] },
	} {
		j := full()
		change(j)
		invalid, ok := errors.AsType[*spec.InvalidError](j.Validate())
		if name, _, _ := strings.Cut(field, " "); !ok || len(invalid.Problems) != 1 || invalid.Problems[0].Field != name {
			t.Errorf("%s: %v", field, j.Validate())
		}
	}
}

func TestValidateSaysAll(t *testing.T) {
	j := spec.Spec{Total: -1, Settings: spec.Settings{Isolation: "none", Retry: spec.Retry{Retries: -1}}}
	want := `Module.Digest "": want sha256: and 64 lower hex digits; Chunks.Digest "": want sha256: and 64 lower hex digits; ` +
		`Total -1 is negative; Limits.Memory is 0: want a limit in bytes; Isolation "none": want reset or instance; Retry.Retries -1 is negative`
	if err := j.Validate(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := (&spec.Settings{}).Validate(); err == nil || err.Error() != "Limits.Memory is 0: want a limit in bytes" {
		t.Error(err)
	}
}

// random returns a job that differs from minimal in a few fields of about a
// hundred combinations.
func random(r *rand.Rand) *spec.Spec {
	j := minimal()
	s := &j.Settings
	changes := []func(){
		func() { j.Name, j.Meta = fmt.Sprint(r.IntN(3)), map[string]string{"k<&>": fmt.Sprint(r.IntN(3))} },
		func() { j.Priority = r.IntN(3) }, func() { j.Module = spec.File{Path: "/m", Digest: digestOf(byte(r.IntN(3)))} },
		func() { j.Chunks.Digest, j.Total = digestOf(byte(r.IntN(3))), r.IntN(2) },
		func() { j.Context = []string{"", spec.Digest(sha256OfNull), digestOf(9)}[r.IntN(3)] },
		func() { s.Seed = r.Uint64N(2) << 63 }, func() { s.Memory = 1 + r.Uint64N(2) }, func() { s.NativeNaNs = true },
		func() { s.EngineFixes = r.IntN(3) },
		func() { s.Stack = []uint64{0, spec.DefaultStack, 1 << 16}[r.IntN(3)] },
		func() { s.NoMetering, s.Metering = true, 0 }, func() { s.NoMetering, s.Metering = false, 2 }, func() { s.Isolation = "reset" },
		func() { s.Timeout, s.FoldTimeout = time.Duration(r.IntN(2)), time.Duration(r.IntN(2)) },
		func() { s.Fuel, s.MaxOutput, s.MaxAggregate = r.Uint64N(2), r.Uint64N(2), r.Uint64N(2) },
		func() { s.Classes = []abi.Class{abi.ClassTrap, abi.ClassHost}[:r.IntN(3)] },
		func() { s.Retries, s.MaxRequeues, s.Deterministic = r.IntN(2), r.IntN(2), r.IntN(2) == 0 },
		func() { s.Backoff, s.BackoffMax = time.Duration(r.IntN(2)), time.Duration(r.IntN(2)) },
		func() { n := r.IntN(2); s.MaxFailures, s.NoFold = &n, r.IntN(2) == 0 },
		func() { s.Command = &spec.Command{Stdin: []string{"", "raw", "cbor"}[r.IntN(3)]} },
		func() {
			s.Command = &spec.Command{Args: []string{"é\"\n", "a"}[r.IntN(2):], Env: []string{"A=", "B="}[r.IntN(2):]}
		},
		func() {
			s.Command = &spec.Command{Dirs: []spec.Dir{{Guest: "/d", Digest: digestOf(byte(r.IntN(2))), Bytes: 1}}}
		},
		func() { j.Sources = full().Sources },
	}
	for range r.IntN(5) {
		changes[r.IntN(len(changes))]()
	}
	return j
}

var sha256OfNull = sha256.Sum256(abi.Null)

func TestJSONComesBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	jobs := []*spec.Spec{minimal(), full()}
	for range 2000 {
		jobs = append(jobs, random(r))
	}
	for _, j := range jobs {
		b, err := json.Marshal(j)
		if err != nil {
			t.Fatal(err)
		}
		got, err := spec.Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(got); err != nil || string(again) != string(b) || len(got.Same(j)) > 0 || got.ID() != j.ID() {
			t.Fatalf("%s came back as %s, %v", b, again, err)
		}
		if !reflect.DeepEqual(got, j) {
			t.Fatalf("%+v came back as %+v", j, got)
		}
	}
}

// TestSame checks many pairs: Same is reflexive and symmetric, and calls two
// jobs different exactly if their ids differ.
func TestSame(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	same, other := 0, 0
	for range 20_000 {
		a, b := random(r), random(r)
		if d := a.Same(a); len(d) > 0 {
			t.Fatalf("%+v is not itself: %v", a, d)
		}
		ab, ba := a.Same(b), b.Same(a)
		for i := range ba {
			ba[i].A, ba[i].B = ba[i].B, ba[i].A
		}
		if !slices.Equal(ab, ba) {
			t.Fatalf("%v, and the other way %v", ab, ba)
		}
		isOther := slices.ContainsFunc(ab, func(d spec.Difference) bool { return d.Other && d.Field != "Total" })
		if isOther != (a.ID() != b.ID()) {
			t.Fatalf("%+v and %+v have the ids %x and %x, and differ in %v", a, b, a.ID(), b.ID(), ab)
		}
		if isOther {
			other++
		} else {
			same++
		}
	}
	if same < 100 || other < 100 {
		t.Errorf("%d pairs are one job, and %d are not", same, other)
	}
}

// TestSameNamesFields checks each field separately.
func TestSameNamesFields(t *testing.T) {
	for field, change := range map[string]func(j *spec.Spec){
		"":                    func(j *spec.Spec) { j.Name, j.Meta, j.Module.Path, j.Chunks.Path, j.Sources = "", nil, "", "", nil },
		" sizes":              func(j *spec.Spec) { j.Module.Size, j.ContextSize, j.Settings.Command.Dirs[0].Files = 0, 0, 0 },
		" order of classes":   func(j *spec.Spec) { slices.Reverse(j.Settings.Classes) },
		"Module":              func(j *spec.Spec) { j.Module.Digest = digestOf(9) },
		"Chunks":              func(j *spec.Spec) { j.Chunks.Digest = digestOf(9) },
		"Total":               func(j *spec.Spec) { j.Total = 9 },
		"Context":             func(j *spec.Spec) { j.Context = "" },
		"Priority":            func(j *spec.Spec) { j.Priority = 9 },
		"Seed":                func(j *spec.Spec) { j.Settings.Seed = 9 },
		"NativeNaNs":          func(j *spec.Spec) { j.Settings.NativeNaNs = false },
		"Metering":            func(j *spec.Spec) { j.Settings.Metering = 9 },
		"EngineFixes":         func(j *spec.Spec) { j.Settings.EngineFixes = 0 },
		"Isolation":           func(j *spec.Spec) { j.Settings.Isolation = "" },
		"MaxFailures":         func(j *spec.Spec) { j.Settings.MaxFailures = nil },
		"NoFold":              func(j *spec.Spec) { j.Settings.NoFold = false },
		"Limits.Memory":       func(j *spec.Spec) { j.Settings.Memory = 9 },
		"Limits.Stack":        func(j *spec.Spec) { j.Settings.Stack = 0 },
		"Limits.Fuel":         func(j *spec.Spec) { j.Settings.Fuel = 0 },
		"Limits.Timeout":      func(j *spec.Spec) { j.Settings.Timeout = 9 },
		"Limits.FoldTimeout":  func(j *spec.Spec) { j.Settings.FoldTimeout = 9 },
		"Limits.MaxOutput":    func(j *spec.Spec) { j.Settings.MaxOutput = 9 },
		"Limits.MaxAggregate": func(j *spec.Spec) { j.Settings.MaxAggregate = 9 },
		"Retry.Retries":       func(j *spec.Spec) { j.Settings.Retries = 9 },
		"Retry.Classes":       func(j *spec.Spec) { j.Settings.Classes = []abi.Class{} },
		"Retry.MaxRequeues":   func(j *spec.Spec) { j.Settings.MaxRequeues = 9 },
		"Retry.Backoff":       func(j *spec.Spec) { j.Settings.Backoff = 9 },
		"Retry.BackoffMax":    func(j *spec.Spec) { j.Settings.BackoffMax = 9 },
		"Retry.Deterministic": func(j *spec.Spec) { j.Settings.Deterministic = false },
		"Command.Args":        func(j *spec.Spec) { slices.Reverse(j.Settings.Command.Args) },
		"Command.Env":         func(j *spec.Spec) { slices.Reverse(j.Settings.Command.Env) },
		"Command.Stdin":       func(j *spec.Spec) { j.Settings.Command.Stdin = spec.StdinRaw },
		"Command.Dirs":        func(j *spec.Spec) { slices.Reverse(j.Settings.Command.Dirs) },
	} {
		j := full()
		change(j)
		var fields []string
		for _, d := range full().Same(j) {
			fields = append(fields, d.Field)
		}
		if name, _, _ := strings.Cut(field, " "); strings.Join(fields, " ") != name {
			t.Errorf("%s: %v", field, fields)
		}
	}
	a, b := full(), full()
	a.Settings.Fuel, b.Settings.Seed = 1, 1
	if d := a.Same(b); len(d) != 2 || d[0].Field != "Seed" || d[0].String() != "Seed: 7 and 1" || d[1].Other {
		t.Errorf("%v", d)
	}
}

// TestParseEarlier checks that a record with the fields of the first version is
// read with its meaning at that time.
func TestParseEarlier(t *testing.T) {
	j, err := spec.Parse([]byte(`{"name":"n","module":{"path":"/m","digest":"d"},"chunks":{"digest":"e"},"total":3,"context":"f",
		"settings":{"seed":1,"memory":2,"native_nans":true,"fuel":3,"timeout_ns":4,"fold_timeout_ns":5,"max_output":6,"max_aggregate":7,
			"isolation":"reset","retries":8,"retry_on":["trap"],"max_requeues":9,
			"command":{"args":["a"],"env":["K=V"],"stdin":"raw","dirs":[{"guest":"/d","digest":"g","files":1,"bytes":2}]}},
		"command":{"module":"/m"},"later":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := &spec.Spec{
		Name: "n", Module: spec.File{Path: "/m", Digest: "d"}, Chunks: spec.File{Digest: "e"}, Total: 3, Context: "f",
		Settings: spec.Settings{
			Seed: 1, Limits: spec.Limits{Memory: 2, Fuel: 3, Timeout: 4, FoldTimeout: 5, MaxOutput: 6, MaxAggregate: 7}, NativeNaNs: true, Metering: 1, Isolation: "reset",
			Retry:   spec.Retry{Retries: 8, Classes: []abi.Class{abi.ClassTrap}, MaxRequeues: 9, Backoff: 50 * time.Millisecond, BackoffMax: 5 * time.Second},
			Command: &spec.Command{Args: []string{"a"}, Env: []string{"K=V"}, Stdin: "raw", Dirs: []spec.Dir{{Guest: "/d", Digest: "g", Files: 1, Bytes: 2}}},
		},
		Command: json.RawMessage(`{"module":"/m"}`),
	}
	if !reflect.DeepEqual(j, want) {
		t.Errorf("%+v, want %+v", j, want)
	}
	if j, err = spec.Parse([]byte(`{"settings":{"no_metering":true}}`)); err != nil || j.Settings.Metering != 0 {
		t.Errorf("%+v, %v", j, err)
	}
	for _, bad := range []string{``, `[]`, `{"total":"x"}`, `{"settings":{"seed":-1}}`} {
		if j, err := spec.Parse([]byte(bad)); err == nil {
			t.Errorf("%s is %+v", bad, j)
		}
	}
}

func TestManifest(t *testing.T) {
	j := full()
	j.Sources.Dirs["/f"] = "/nobody's"
	want := []spec.Part{
		{Role: spec.RoleModule, File: j.Module},
		{Role: spec.RoleContext, File: spec.File{Path: "/x", Digest: digestOf(3), Size: 4}},
		{Role: spec.RoleDir, File: spec.File{Path: "/here/d", Digest: digestOf(4), Size: 2}},
		{Role: spec.RoleDir, File: spec.File{Path: "/here/e", Digest: digestOf(5)}},
		{Role: spec.RoleChunks, File: spec.File{Path: "/c", Digest: digestOf(2), Size: 20}},
	}
	if got := j.Manifest(); !slices.Equal(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
	j.Settings.Command.Dirs[1].Digest, j.Sources.Dirs["/e"] = digestOf(4), "/here/d" // one directory under two names
	j.Sources.Context, j.Sources.Chunks.Path = "/c", "-"
	want = slices.Delete(want, 3, 5)
	want[1].Path = "/c"
	if got := j.Manifest(); !slices.Equal(got, want) || j.Validate() != nil {
		t.Errorf("%+v, want %+v, %v", got, want, j.Validate())
	}
	if got := minimal().Manifest(); len(got) > 0 {
		t.Errorf("%+v", got)
	}
}

// TestStackInTheKey checks that the key includes the limit of nested calls if
// it is counted and not the default.
func TestStackInTheKey(t *testing.T) {
	with := func(stack uint64, unmetered bool) *spec.Spec {
		j := minimal()
		if j.Settings.Stack = stack; unmetered {
			j.Settings.NoMetering, j.Settings.Metering = true, 0
		}
		return j
	}
	for _, tt := range []struct {
		a, b *spec.Spec
		same bool
	}{
		{with(0, false), with(spec.DefaultStack, false), true},
		{with(0, false), with(spec.DefaultStack-8, false), false},
		{with(1<<16, false), with(1<<17, false), false},
		{with(0, true), with(1<<16, true), true},
	} {
		if same := tt.a.ID() == tt.b.ID(); same != tt.same || (len(tt.a.Same(tt.b)) == 0) != tt.same {
			t.Errorf("stacks of %d and %d bytes: one id is %t, differences are %v", tt.a.Settings.Stack, tt.b.Settings.Stack, same, tt.a.Same(tt.b))
		}
	}
}

// TestCommandsHaveOneID checks that a command with nothing set is the same as
// no command.
func TestCommandsHaveOneID(t *testing.T) {
	plain, raw := minimal(), minimal()
	raw.Settings.Command = &spec.Command{Stdin: spec.StdinRaw}
	if plain.ID() != raw.ID() || len(plain.Same(raw)) > 0 {
		t.Errorf("%x, %x, %v", plain.ID(), raw.ID(), plain.Same(raw))
	}
}
