package vectors_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/host/guest/vectors"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func parse(t *testing.T, text string) *vectors.File {
	t.Helper()
	f, err := vectors.ParseDraft([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		fails      string // "" means that it succeeds
	}{
		{"nothing", "", "1:1: unexpected end of JSON input"},
		{"no object", "[]", `1:1: invalid file of vectors: want an object with the key "vectors"`},
		{"no vectors", `{}`, `1:1: no vectors under the key "vectors"`},
		{"an empty list", `{"vectors": []}`, `1:1: no vectors under the key "vectors"`},
		{"no list", `{"vectors": 1}`, `1:14: invalid vectors: want an array`},
		{"one", `{"vectors": [{"name": "a", "chunk": 1, "output": 1}]}`, ""},
		{"null", `{"vectors": [{"name": "a", "chunk": null, "output": null}]}`, ""},
		{"no chunks", `{"vectors": [{"name": "a", "chunks": [], "output": 0}]}`, ""},
		{"all parts", `{"about": "x", "context": {"a": 1}, "seed": 7, "vectors": [{"name": "a", "about": "y", "context": null, "seed": 0, "aggregate": [1, 2], "ids": [0, "a"], "failure": {"class": "trap"}}]}`, ""},
		{"a syntax error", "{\n  \"vectors\": [\n    {\"name\": \"a\" \"chunk\": 1}\n  ]\n}", "3:18: invalid character '\"' after object key:value pair"},
		{"two values", `{} {}`, "1:4: invalid character '{' after top-level value"},
		{"an unknown key", `{"vector": []}`, `1:12: unknown key "vector": want about, context, seed or vectors`},
		{"an invalid seed", `{"seed": -1}`, "1:10: json: cannot unmarshal number -1 into Go value of type uint64"},
		{"an invalid context", `{"context": {"hex": "00ff"}}`, `1:13: invalid CBOR item "00ff": `},
		{"no name", "{\"vectors\": [\n  {\"chunk\": 1, \"output\": 1}\n]}", "2:3: vector 1: missing name"},
		{"the same name", `{"vectors": [{"name": "a", "chunk": 1, "output": 1}, {"name": "a", "chunk": 2, "output": 1}]}`, `1:54: vector "a": duplicate name`},
		{"the list twice", `{"vectors": [{"name": "a", "chunk": 1, "output": 1}], "vectors": []}`, `duplicate key "vectors"`},
		{"an output twice", `{"vectors": [{"name": "a", "chunk": 1, "output": 1, "output": 2}]}`, `vector "a": duplicate key "output"`},
		{"a key in another spelling", `{"vectors": [{"name": "a", "chunk": 1, "Output": 1}]}`, `vector "a": unknown key "Output": want "output"`},
		{"a class twice", `{"vectors": [{"name": "a", "chunk": 1, "failure": {"class": "trap", "class": "fuel"}}]}`, `vector "a": duplicate key "class"`},
		{"no input", `{"vectors": [{"name": "a", "output": 1}]}`, `1:14: vector "a": want exactly one of chunk, chunks, aggregate and merge, got 0`},
		{"two inputs", `{"vectors": [{"name": "a", "chunk": 1, "merge": [], "output": 1}]}`, `1:14: vector "a": want exactly one of chunk, chunks, aggregate and merge, got 2`},
		{"an unknown field", `{"vectors": [{"name": "a", "chnk": 1}]}`, `1:14: vector "a": unknown field "chnk"`},
		{"an invalid input", `{"vectors": [{"name": "a", "merge": [1, {"hex": "0000"}], "output": 1}]}`, `1:14: vector "a": merge, element 1: invalid CBOR item "0000": `},
		{"two invalid inputs", `{"vectors": [{"name": "a", "chunk": 1e999, "merge": [1e999], "output": 1}]}`, "1e999 is too large for a 64-bit float; merge, element 0: "},
		{"ids of chunks", `{"vectors": [{"name": "a", "chunks": [1], "ids": [1], "output": 1}]}`, `invalid ids: want one for each output of aggregate`},
		{"too few ids", `{"vectors": [{"name": "a", "aggregate": [1, 2], "ids": [1], "output": 1}]}`, `invalid ids: want one for each output of aggregate`},
		{"ids out of order", `{"vectors": [{"name": "a", "aggregate": [1, 2], "ids": ["a", 1], "output": 1}]}`, `invalid ids: want ascending order`},
		{"an id twice", `{"vectors": [{"name": "a", "aggregate": [1, 2], "ids": [7, 7], "output": 1}]}`, `invalid ids: want ascending order`},
		{"both expected", `{"vectors": [{"name": "a", "chunk": 1, "output": 1, "failure": {"class": "trap"}}]}`, `both an output and a failure: want one of them`},
		{"no class", `{"vectors": [{"name": "a", "chunk": 1, "failure": {"class": "gues"}}]}`, `unknown class of failure "gues"`},
		{"nothing expected", `{"vectors": [{"name": "a", "chunk": 1}]}`, `1:14: vector "a": missing expectation: want an output or a failure`},
		{"an invalid output", `{"vectors": [{"name": "a", "chunk": 1, "output": 1e999}]}`, `output: `},
		{"an invalid context of a vector", `{"vectors": [{"name": "a", "chunk": 1, "context": 1e999, "output": 1}]}`, `context: `},
		{"deep", strings.Repeat("[", 20000), "exceeded max depth"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := vectors.Parse([]byte(tt.text))
			if tt.fails == "" {
				if err != nil || len(f.Vectors) != 1 {
					t.Errorf("got %v", err)
				}
				return
			}
			e, ok := errors.AsType[*vectors.ParseError](err)
			if !ok || f != nil || !strings.Contains(err.Error(), tt.fails) || e.Line < 1 || e.Column < 1 || strings.Contains(err.Error(), "--") {
				t.Errorf("got %v, want %s", err, tt.fails)
			}
			if errors.Is(err, vectors.ErrNothingExpected) != (tt.name == "nothing expected") {
				t.Errorf("ErrNothingExpected of %v", err)
			}
		})
	}
}

func TestTooLarge(t *testing.T) {
	if _, err := vectors.Parse(make([]byte, vectors.MaxSize+1)); err == nil || !strings.Contains(err.Error(), "more than 67108864 bytes") {
		t.Errorf("got %v", err)
	}
}

func TestDraft(t *testing.T) {
	v := parse(t, `{"vectors": [{"name": "a", "chunk": 1}]}`).Vectors[0]
	four := guest.CallResult{Done: true, Output: []byte{4}}
	five := guest.CallResult{Done: true, Output: []byte{5}}
	fails := guest.CallResult{Done: true, Failure: abi.Failf(abi.ClassGuest, "not an integer")}
	if v.Holds(&four) || v.Holds(&fails) || !slices.Equal(v.Diff(&four), []string{"- nothing yet", "+ 4"}) {
		t.Errorf("nothing is expected, and %q", v.Diff(&four))
	}
	v.Expect(&four)
	if !v.Holds(&four) || v.Holds(&five) || v.Holds(&fails) || string(v.Output) != "4" {
		t.Errorf("4 is expected: %s", v.Output)
	}
	v.Expect(&fails)
	if v.Holds(&four) || !v.Holds(&fails) || v.Output != nil || v.Failure.Message != "not an integer" {
		t.Errorf("a failure is expected: %+v", v.Failure)
	}
}

func TestDiff(t *testing.T) {
	output := func(b ...byte) guest.CallResult { return guest.CallResult{Done: true, Output: b} }
	fails := guest.CallResult{Done: true, Failure: abi.Failf(abi.ClassGuest, "no")}
	for _, tt := range []struct {
		name, expected string
		got            guest.CallResult
		want           []string
	}{
		{"outputs", `"output": 4`, output(5), []string{"- 4", "+ 5"}},
		{"a failure", `"output": 4`, fails, []string{"- 4", "+ failure guest: no"}},
		{"no failure", `"failure": {"class": "trap"}`, output(5), []string{"- failure trap: ", "+ 5"}},
		{"failures", `"failure": {"class": "trap", "message": "un"}`, fails, []string{"- failure trap: un", "+ failure guest: no"}},
		{"the same output in other bytes", `"output": 4`, output(0x18, 4), []string{"- h'04'", "+ h'1804'"}},
	} {
		v := parse(t, `{"vectors": [{"name": "a", "chunk": 1, `+tt.expected+`}]}`).Vectors[0]
		if got := v.Diff(&tt.got); v.Holds(&tt.got) || !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// An encoded file is read as the same vectors, and encoded to the same bytes again.
func FuzzEncode(f *testing.F) {
	f.Add([]byte(`{"about": "x", "seed": 1, "context": [1, {"a": 0.5}], "vectors": [{"name": "a\"\\<b", "chunk": "x,  y: z", "output": {"hex": "f7"}}]}`))
	f.Add([]byte(`{"vectors": [{"name": "a", "aggregate": [], "ids": [], "failure": {"class": "guest", "message": "m"}}, {"name": "b", "merge": [1]}]}`))
	f.Add([]byte(`{"vectors": [{"name": "a", "chunks": [{"id": "é"}], "seed": 0, "context": null}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		file, err := vectors.ParseDraft(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("%q", err)
			}
			return
		}
		once := file.Encode()
		again, err := vectors.ParseDraft(once)
		if err != nil {
			t.Fatalf("%s is written as %s: %v", text, once, err)
		}
		if twice := again.Encode(); !bytes.Equal(once, twice) || len(again.Vectors) != len(file.Vectors) {
			t.Errorf("%s is written as %s, and then as %s", text, once, twice)
		}
	})
}

func TestEncode(t *testing.T) {
	f := parse(t, `{"vectors": [{"output": 4, "chunk": {"n":[1,2]}, "name": "a: b,  c"}, {"name": "b", "seed": 0, "aggregate": [], "ids": [], "failure": {"class": "trap"}}], "seed": 1}`)
	want := `{
  "seed": 1,
  "vectors": [
    {
      "name": "a: b,  c",
      "chunk": {"n": [1, 2]},
      "output": 4
    },
    {
      "name": "b",
      "seed": 0,
      "aggregate": [],
      "ids": [],
      "failure": {"class": "trap"}
    }
  ]
}
`
	if got := string(f.Encode()); got != want {
		t.Errorf("got\n%s", got)
	}
}

// tester returns a tester of a module of the repository.
func tester(t *testing.T, path string, s runtime.Settings) *vectors.Tester {
	t.Helper()
	wasm, err := os.ReadFile(filepath.Join("../../..", path))
	if err != nil {
		t.Fatal(err)
	}
	r, err := runtime.New(t.Context(), runtime.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(context.Background()) })
	m, err := r.Compile(t.Context(), wasm, runtime.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tester := vectors.NewTester(m, s)
	t.Cleanup(func() { tester.Close() })
	return tester
}

const square = "guest-examples/square/c/square.wasm"

func TestTry(t *testing.T) {
	for _, tt := range []struct{ name, module, vectors string }{
		{"square", square, `{"vectors": [
			{"name": "two", "chunk": 2, "output": 4},
			{"name": "no number", "chunk": "x", "failure": {"class": "guest", "message": "not an"}},
			{"name": "a job", "chunks": [{"id": 9, "n": 2}, {"id": 1, "n": 3}], "output": 13},
			{"name": "a job of nothing", "chunks": [], "output": 0},
			{"name": "a job that fails", "chunks": [1, "x"], "failure": {"class": "guest", "message": "chunk 1: not an integer"}},
			{"name": "outputs", "aggregate": [4, 9], "ids": [7, "a"], "output": 13},
			{"name": "partial sums", "merge": [13, 25], "output": 38}]}`},
		{"contexts", "testdata/wasm/context.wasm", `{"context": [1, 2], "vectors": [
			{"name": "that of the file", "chunk": 0, "output": [1, 2]},
			{"name": "its own", "chunk": 0, "context": {"a": 0.5}, "output": {"a": 0.5}},
			{"name": "null", "chunk": 0, "context": null, "output": null}]}`},
		{"setup", "testdata/wasm/setup-fails.wasm", `{"vectors": [{"name": "a", "chunk": 0, "failure": {"class": "guest", "message": "no such context"}}]}`},
		{"the order of ids", "testdata/wasm/echo-aggregate.wasm", `{"vectors": [{"name": "a", "chunks": [{"id": "b"}, 5, {"id": 0}], "output": [[0, {"id": 0}], [1, 5], ["b", {"id": "b"}]]}]}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tester := tester(t, tt.module, runtime.Settings{})
			for _, v := range parse(t, tt.vectors).Vectors {
				got, err := tester.Try(t.Context(), v)
				if err != nil || !v.Holds(&got) {
					t.Errorf("%s: %v\n%s", v.Name, err, strings.Join(v.Diff(&got), "\n"))
				}
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	tester := tester(t, "guest-examples/faulty/c/faulty.wasm", runtime.Settings{Seed: 9})
	outputs := map[string]string{}
	for _, v := range parse(t, `{"seed": 1, "vectors": [
		{"name": "one", "chunk": {"do": "random"}},
		{"name": "one again", "chunk": {"do": "random"}, "seed": 1},
		{"name": "two", "chunk": {"do": "random"}, "seed": 2}]}`).Vectors {
		got, err := tester.Try(t.Context(), v)
		if err != nil || got.Failure != nil {
			t.Fatal(err, got.Failure)
		}
		outputs[v.Name] = string(got.Output)
	}
	if outputs["one"] != outputs["one again"] || outputs["one"] == outputs["two"] {
		t.Errorf("got %x", outputs)
	}
}

func TestWhatCannotBeTried(t *testing.T) {
	echo := tester(t, "testdata/wasm/echo.wasm", runtime.Settings{})
	try := func(tester *vectors.Tester, vector string) error {
		_, err := tester.Try(t.Context(), parse(t, `{"vectors": [{"name": "a", `+vector+`}]}`).Vectors[0])
		return err
	}
	for function, vector := range map[string]string{"aggregate": `"chunks": [1]`, "merge": `"merge": [1]`} {
		e, ok := errors.AsType[*vectors.MissingExportError](try(echo, vector))
		if !ok || *e != (vectors.MissingExportError{Vector: "a", Function: function}) {
			t.Errorf("%s: %v", function, e)
		}
	}
	sum := tester(t, square, runtime.Settings{})
	if e, ok := errors.AsType[*vectors.InputError](try(sum, `"chunks": [{"id": 1}, 1]`)); !ok || e.Error() != `vector "a": duplicate id 1` {
		t.Errorf("two chunks with one id: %v", e)
	}
	if e, ok := errors.AsType[*vectors.InputError](try(sum, `"chunks": [{"id": -1}]`)); !ok || !strings.HasPrefix(e.Error(), `vector "a": chunk 0: `) {
		t.Errorf("an invalid id: %v", e)
	}
	if _, ok := errors.AsType[*runtime.RefusedError](try(sum, `"chunk": 1, "context": 7`)); !ok {
		t.Error("a context without setup is accepted")
	}
	if err := try(sum, `"chunk": 1`); err != nil {
		t.Errorf("after vectors that could not be tried: %v", err)
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	v := parse(t, `{"vectors": [{"name": "a", "chunk": 1}]}`).Vectors[0]
	if _, err := tester(t, square, runtime.Settings{}).Try(ctx, v); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}
