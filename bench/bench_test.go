package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSidesAgree runs every kernel on every side, three chunks each, and compares the
// outputs with those of the Go function.
func TestSidesAgree(t *testing.T) {
	tools := toolsOf(t)
	for _, k := range kernels() {
		t.Run(k.name, func(t *testing.T) { agree(t, k, tools) })
	}
}

func toolsOf(t *testing.T) *tools {
	tools, err := newTools(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tools.close(); err != nil {
			t.Error(err)
		}
	})
	return tools
}

func agree(t *testing.T, k kernel, tools *tools) {
	w, err := newWork(t.Context(), k, tools)
	if err != nil {
		t.Fatal(err)
	}
	opened, err := openAll(t.Context(), sides(), w)
	if err != nil {
		t.Error(err)
	}
	running := map[string]bool{}
	for _, s := range opened {
		running[s.side.name] = s.reason == nil
		if s.reason != nil {
			t.Logf("%s does not run: %v", s.side.name, s.reason)
		}
	}
	for _, name := range []string{"native", base, "ours-unmetered", "ours-reused", "wazero-new", "wazero-new-timeout", "extism-reused", "extism-new"} {
		if !running[name] {
			t.Errorf("side %s does not run, although it needs nothing that may be missing", name)
		}
	}
	if err := closeAll(opened); err != nil {
		t.Error(err)
	}
}

func TestWords(t *testing.T) {
	for text, want := range map[string]string{
		"":                 "\x80",
		"1 2":              "\x80",
		"a":                "\x81\x82\x61a\x01",
		"a-b a":            "\x82\x82\x61a\x02\x82\x61b\x01",
		"@[`{Zz":           "\x81\x82\x62Zz\x01",
		"the cat, the hat": "\x83\x82\x63the\x02\x82\x63cat\x01\x82\x63hat\x01",
	} {
		chunk := append([]byte{0x40 | byte(len(text))}, text...)
		for name, count := range map[string]func([]byte) ([]byte, error){"native": nativeWords, "standard": standardWords} {
			if got, err := count(chunk); err != nil || string(got) != want {
				t.Errorf("%s, %q: %x, %v, want %x", name, text, got, err, want)
			}
		}
	}
}

func TestNativeRefusesWrongChunks(t *testing.T) {
	for _, k := range kernels() {
		for _, chunk := range []string{"", "\x60", "\x42a", "\x5f\xff"} {
			if got, err := k.native([]byte(chunk)); err == nil {
				t.Errorf("%s: %x gave %x, want an error", k.name, chunk, got)
			}
		}
	}
}

func TestChunksHaveTheirSizes(t *testing.T) {
	sizes := map[string]int{}
	for _, k := range kernels() {
		sizes[k.name] = len(k.chunk)
	}
	want := map[string]int{
		"noop-5B": 5, "sha256-5B": 5, "sha256-1KiB": 1 << 10, "sha256-64KiB": 64 << 10, "sha256-1MiB": 1 << 20,
		"words-64KiB": 64 << 10, "matmul-64KiB": 64<<10 + 5, "json-1KiB": 1 << 10, "json-64KiB": 64 << 10,
	}
	if !maps.Equal(sizes, want) {
		t.Errorf("%v, want %v", sizes, want)
	}
}

// fake takes a fixed time for a chunk, on the clock of a synctest bubble.
type fake struct {
	output string
	each   time.Duration
	err    error
	closed *int
}

func (f *fake) run(_ context.Context, n int) ([]byte, error) {
	time.Sleep(time.Duration(n) * f.each)
	return []byte(f.output), f.err
}

func (f *fake) close() error { *f.closed++; return nil }

func fakeSide(name string, f *fake) side {
	return side{name: name, open: func(context.Context, *work) (runner, error) { return f, nil }}
}

func TestMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := 0
		all := []side{
			fakeSide("quick", &fake{output: "x", each: time.Millisecond, closed: &closed}),
			{name: "missing", open: func(context.Context, *work) (runner, error) { return nil, unavailable("no reason") }},
			fakeSide(base, &fake{output: "x", each: 4 * time.Millisecond, closed: &closed}),
			fakeSide("slow", &fake{output: "x", each: time.Second, closed: &closed}),
			fakeSide("launcher", &fake{output: "x", each: time.Second, closed: &closed}),
		}
		all[4].launches = true
		results, absents, err := measureKernel(t.Context(), &work{kernel: kernel{name: "k"}, want: []byte("x")}, all, 3)
		if err != nil {
			t.Fatal(err)
		}
		want := []result{
			{"k", "quick", results[0].Batch, quartiles{1e6, 1e6, 1e6}, quartiles{0.25, 0.25, 0.25}},
			{"k", base, results[1].Batch, quartiles{4e6, 4e6, 4e6}, quartiles{1, 1, 1}},
			{"k", "slow", 1, quartiles{1e9, 1e9, 1e9}, quartiles{250, 250, 250}},
			{"k", "launcher", launched, quartiles{1e9, 1e9, 1e9}, quartiles{250, 250, 250}},
		}
		if !slices.Equal(results, want) {
			t.Errorf("%+v, want %+v", results, want)
		}
		for i, each := range []time.Duration{1, 4} {
			if took := time.Duration(results[i].Batch) * each * time.Millisecond; took < least || took > 2*least {
				t.Errorf("a batch of %s takes %v, want about %v", results[i].Side, took, least)
			}
		}
		if !slices.Equal(absents, []absent{{"k", "missing", "no reason"}}) {
			t.Errorf("absent: %v", absents)
		}
		if closed != 4 {
			t.Errorf("%d runners closed, want 4", closed)
		}
	})
}

func TestMeasureRefuses(t *testing.T) {
	closed := 0
	good := fakeSide(base, &fake{output: "right", closed: &closed})
	for name, test := range map[string]struct {
		sides []side
		want  string
	}{
		"another output": {[]side{good, fakeSide("liar", &fake{output: "rigid", closed: &closed})}, "k, side liar: output of 5 bytes differs from the Go function's, of 5 bytes, at byte 3"},
		"an error":       {[]side{good, fakeSide("broken", &fake{err: errors.New("it broke"), closed: &closed})}, "k, side broken: it broke"},
		"no base":        {nil, "missing side ours"},
	} {
		closed = 0
		_, _, err := measureKernel(t.Context(), &work{kernel: kernel{name: "k"}, want: []byte("right")}, test.sides, 1)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
		if closed != len(test.sides) {
			t.Errorf("%s: %d runners closed, want %d", name, closed, len(test.sides))
		}
	}
}

func TestQuartiles(t *testing.T) {
	for _, test := range []struct {
		all  []float64
		want quartiles
	}{
		{[]float64{7}, quartiles{7, 7, 7}},
		{[]float64{4, 2}, quartiles{2.5, 3, 3.5}},
		{[]float64{5, 1, 4, 2, 3}, quartiles{2, 3, 4}},
	} {
		if got := quartilesOf(test.all); got != test.want {
			t.Errorf("%v: %v, want %v", test.all, got, test.want)
		}
	}
}

func ratio(kernel, side string, q ...float64) result {
	return result{Kernel: kernel, Side: side, Ratio: quartiles(q)}
}

func TestCompare(t *testing.T) {
	old := &report{Rounds: 11, Results: []result{
		ratio("k", base, 1, 1, 1), ratio("k", "a", 9, 10, 11), ratio("k", "b", 9, 10, 11), ratio("k", "c", 9, 10, 11),
		ratio("slow", base, 1, 1, 1), ratio("slow", "a", 9, 10, 11), ratio("slow", "b", 9, 10, 11), ratio("slow", "c", 4, 5, 6),
		ratio("gone", "s", 1, 1, 1),
	}}
	now := &report{Rounds: 5, Results: []result{
		ratio("k", base, 1, 1, 1), ratio("k", "a", 1, 2, 3), ratio("k", "b", 8, 8.1, 8.2), ratio("k", "c", 20, 20, 20),
		ratio("slow", base, 1, 1, 1), ratio("slow", "a", 7, 7.9, 8), ratio("slow", "b", 7, 7.9, 8), ratio("slow", "c", 4, 5, 6),
		ratio("k", "new", 1, 1, 1),
	}}
	var said bytes.Buffer
	worse, compared := compare(&said, now, old, 1.25)
	if worse != 1 || compared != 6 {
		t.Errorf("%d of %d worse, want 1 of 6", worse, compared)
	}
	const want = `not compared: k, side new: not in the file
not compared: gone, side s: not measured now
as before: k: relative to 3 sides, ours takes 1.23 (0.87 - 3.12) times as long as before
worse: slow: relative to 3 sides, ours takes 1.27 (1.13 - 1.27) times as long as before
6 ratios of 2 kernels compared, of medians of 5 and 11 rounds; 1 kernels are worse by more than a factor of 1.25
`
	if said.String() != want {
		t.Errorf("got:\n%swant:\n%s", &said, want)
	}
}

func TestCompareClaims(t *testing.T) {
	one := func(least bool, q ...float64) *commandReport {
		return &commandReport{Claims: []claim{{Name: "c", Ratio: quartiles(q), Least: least}}}
	}
	for _, test := range []struct {
		name     string
		now, old *commandReport
		worse    int
	}{
		{"longer", one(false, 1.4, 1.5, 1.6), one(false, 1, 1.1, 1.2), 1},
		{"a little longer", one(false, 1.3, 1.3, 1.3), one(false, 1, 1.1, 1.2), 0},
		{"longer, perhaps", one(false, 1.1, 1.5, 1.6), one(false, 1, 1.1, 1.2), 0},
		{"smaller lead", one(true, 30, 31, 32), one(true, 40, 42, 44), 1},
		{"smaller lead, perhaps", one(true, 30, 31, 41), one(true, 40, 42, 44), 0},
		{"larger lead", one(true, 60, 60, 60), one(true, 40, 42, 44), 0},
	} {
		if worse := compareClaims(io.Discard, test.now, test.old, 1.25); worse != test.worse {
			t.Errorf("%s: %d worse", test.name, worse)
		}
	}
}

func TestReplaceSection(t *testing.T) {
	for _, test := range []struct{ name, file, want string }{
		{"empty", "", ""},
		{"no end", "a\n<!-- peers -->\nold", ""},
		{"wrong order", "<!-- /peers -->\n<!-- peers -->\n", ""},
		{"nothing between", "<!-- peers -->\n<!-- /peers -->\n", "<!-- peers -->\nnew\n<!-- /peers -->\n"},
		{"the rest stays", "# a\n<!-- peers -->\nold\n<!-- /peers -->\n<!-- scale -->\nb", "# a\n<!-- peers -->\nnew\n<!-- /peers -->\n<!-- scale -->\nb"},
	} {
		got, err := replaceSection(test.file, "new\n")
		if got != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}

// runs calls the program as main does.
func runs(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	code = run(t.Context(), args, &out, &err)
	return code, out.String(), err.String()
}

func TestWrongUse(t *testing.T) {
	dir := t.TempDir()
	foreign := filepath.Join(dir, "foreign.json")
	if err := os.WriteFile(foreign, []byte(`{"version": 7}`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"noop"}, `unexpected argument "noop": want only flags`},
		{[]string{"-rounds", "0"}, "invalid -rounds 0: want at least 1"},
		{[]string{"-flows", "-most", "0"}, "invalid -most 0: want at least 1"},
		{[]string{"-tolerance", "0.5"}, "invalid -tolerance 0.5: want a factor"},
		{[]string{"-tolerance", "NaN"}, "invalid -tolerance NaN: want a factor"},
		{[]string{"-kernels", "sha256,sha"}, `-kernels: unknown name "sha"`},
		{[]string{"-sides", "theirs"}, `-sides: unknown name "theirs"`},
		{[]string{"-compare", filepath.Join(dir, "none")}, "no such file"},
		{[]string{"-compare", foreign}, "version 7"},
	} {
		if code, _, stderr := runs(t, test.args...); code != exitFailed || !strings.Contains(stderr, test.want) {
			t.Errorf("%v: code %d, %q, want %q", test.args, code, stderr, test.want)
		}
	}
}

// TestProgram measures briefly and compares the result with itself: no ratio is a
// million times worse unless the file was changed.
func TestProgram(t *testing.T) {
	dir := t.TempDir()
	jsonFile, markdown := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.md")
	common := []string{"-rounds", "1", "-kernels", "noop", "-sides", "native,wapc-new", "-tolerance", "1e6"}
	code, stdout, stderr := runs(t, append(common, "-json", jsonFile, "-markdown", markdown)...)
	if code != exitOK {
		t.Fatalf("code %d: %s", code, stderr)
	}
	tables, err := os.ReadFile(markdown)
	if err != nil {
		t.Fatal(err)
	}
	for text, wants := range map[string][]string{
		stdout:         {"noop-5B", "  native ", "  ours ", "wapc-new  not run: github.com/wapc"},
		string(tables): {opening, "| side | noop-5B |", "| `ours` | 1.00 |", "| `wapc-new` | - |", "- `wapc-new`: github.com/wapc", closing},
	} {
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("%q is not in:\n%s", want, text)
			}
		}
	}
	if code, stdout, _ := runs(t, append(common, "-compare", jsonFile)...); code != exitOK || !strings.Contains(stdout, "1 ratios of 1 kernels compared") {
		t.Errorf("comparison with itself: code %d, %s", code, stdout)
	}
	old, err := readReport(jsonFile)
	if err != nil {
		t.Fatal(err)
	}
	for i := range old.Results {
		old.Results[i].Ratio = quartiles{1e12, 1e12, 1e12}
	}
	b, _ := json.Marshal(old)
	if err := os.WriteFile(jsonFile, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, stdout, _ := runs(t, append(common, "-compare", jsonFile)...); code != exitWorse || !strings.Contains(stdout, "worse: noop-5B: relative to 1 sides, ours takes") {
		t.Errorf("comparison with better ratios: code %d, %s", code, stdout)
	}
}
