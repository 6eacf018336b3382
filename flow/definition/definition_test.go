package definition

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
)

const whole = `# a flow with everything
flow: prices
start: plan
context: settings.cbor
seed: 7
meta: {who: [me, 1]}
limits:
  shop: {rate: 600/m, burst: 10, concurrency: 4, adaptive: true, min: 0.2/s, max: 50/s, key: host}
defaults:
  retry: {retries: 2, backoff: 10ms, backoff_max: 1m, on: [trap, timeout]}
  timeout: 20s
states:
  plan:
    module: plan.wasm
    returns: move
    to: [fetch, skipped]
    children: {join: merge, tolerate: 5%, fold: total.wasm}
    fuel: 1000
    memory: 64MiB
  fetch:
    effect: http
    allow: ["https://shop.example.org/api/"]
    headers: {Authorization: "env:TOKEN"}
    retry_status: [429, 503]
    limit: shop
    uncertain: hold
    next: parse
    on: {guest: rejected, "*": rejected}
  parse: {effect: command, command: [parse, "{path}"], env: [HOME], stdin: json, retry_exit: [75], concurrency: auto, next: pause}
  pause: {wait: 1m, next: merge, max_visits: 3}
  merge: {module: merge.wasm, args: [-x], env: [A=b], stdin: cbor, dirs: ["data:/data"], rate: 5/s, burst: 2, next: done}
  done: {end: true, fold: total.wasm}
  skipped: {end: true}
  rejected: {end: failed}
`

func TestWhole(t *testing.T) {
	d, err := Parse("f.yaml", []byte(whole))
	if err != nil {
		t.Fatal(err)
	}
	l := d.Limits["shop"]
	if l.Rate != 10 || l.Burst != 10 || l.Min != 0.2 || l.Max != 50 || l.Key != "host" || !l.Adaptive || l.Concurrency != 4 {
		t.Errorf("%+v", l)
	}
	plan, fetch, pause := d.States[0], d.States[1], d.States[3]
	if plan.Timeout != 20*time.Second || plan.Retry.Retries != 2 || plan.Memory != 64<<20 || !plan.Children.Percent || plan.Children.Tolerate != 5 {
		t.Errorf("%+v %+v", plan, plan.Children)
	}
	if !fetch.Hold || fetch.On["*"] != "rejected" || pause.Wait != time.Minute || pause.MaxVisits != 3 {
		t.Errorf("%+v", fetch)
	}
	if wrong, doubts := d.Check(); len(wrong)+len(doubts) > 0 {
		t.Errorf("%v %v", wrong, doubts)
	}
	if err := d.Set("shop.rate=5/s"); err != nil || d.Limits["shop"].Rate != 5 {
		t.Errorf("%v %+v", err, d.Limits)
	}
	for _, bad := range []string{"", "shop", "shop.rate", "no.rate=5/s", "shop.rate=5", "shop.more=5", "shop.min=50/s"} {
		if err := d.Set(bad); err == nil {
			t.Errorf("%q was set", bad)
		}
	}
}

// TestProblems checks the text and the place of messages.
func TestProblems(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"empty", "", "f:1:1: empty document: want a map"},
		{"a text", "flow", "f:1:1: invalid definition: want a map, not a text"},
		{"no states", "flow: a", "f:1:1: missing key states"},
		{"no name", "states: {a: {end: true}}", "f:1:1: missing key flow"},
		{"unknown key", "flow: a\nstatse: {}\nstates: {a: {end: true}}", `f:2:1: unknown key "statse" in definition`},
		{"double key", "flow: a\nstates:\n  a: {end: true}\n  a: {end: true}", `f:4:3: duplicate key "a", first in line 3`},
		{"wrong type", "flow: a\nstates:\n  a: {module: 7, next: b}\n  b: {end: true}", "f:3:15: state a: invalid module: want a text, not an integer"},
		{"no kind", "flow: a\nstates:\n  a: {next: b}\n  b: {end: true}", "f:3:3: state a: 0 kinds (): want exactly one of module"},
		{"two kinds", "flow: a\nstates:\n  a: {module: x, wait: 1s, next: b}\n  b: {end: true}", "2 kinds (module, wait)"},
		{"a rate", "flow: a\nlimits: {l: {rate: 5}}\nstates: {a: {end: true}}", `f:2:20: invalid rate "5": want a rate such as 10/s`},
		{"a duration", "flow: a\nstates: {a: {wait: 5, next: b}, b: {end: true}}", `invalid wait "5": want a duration`},
		{"tolerate", "flow: a\nstates: {a: {module: m, children: {join: a, tolerate: 101%}}}", `invalid tolerate "101%"`},
		{"burst", "flow: a\nstates: {a: {module: m, burst: 5, next: b}, b: {end: true}}", "f:2:32: state a: missing rate: burst needs one"},
		{"env", "flow: a\nstates: {a: {effect: command, command: [x], env: [A=B], next: b}, b: {end: true}}", "invalid env: want names of variables"},
		{"empty text", "flow: a\nlimits: {l: {key: \"\"}}\nstates: {a: {end: true}}", "invalid key: want a text that is not empty"},
		{"a route too", "flow: a\nstates:\n  a: {module: m, next: x, fule: 3}\n  b: 7\n  c: {module: m, next: b}", "f:3:24: state a: next: unknown state \"x\""},
		{"a name", "flow: A\nstates: {a: {end: true}}", `f:1:7: invalid flow "A"`},
		{"allow", "flow: a\nstates: {a: {effect: http, next: b}, b: {end: true}}", "missing key allow"},
		{"alias cycle", "flow: a\nstates: &s\n  a: *s", `f:3:6: alias "s" contains itself`},
		{"alias unknown", "flow: *x\nstates: {a: {end: true}}", `unknown anchor "x"`},
		{"bomb", bomb(), "too large: aliases make more than"},
		{"two documents", "flow: a\n---\nflow: b\n", "2 documents"},
		{"syntax", "flow: a\nstates: {a: [}\n", "f:2:"},
		{"depth", "flow: " + strings.Repeat("[", 100_000), "brackets nested more than"},
		{"binary", "flow: \x00\xff", "f:"},
	} {
		_, err := Parse("f", []byte(c.source))
		invalid, ok := errors.AsType[*InvalidError](err)
		if !ok || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, err, c.want)
			continue
		}
		for i := range invalid.Problems {
			line := invalid.Problems[i].Error()
			if strings.Contains(line, `unknown state "b"`) {
				t.Errorf("%s: %s, which is there", c.name, line)
			}
			if strings.ContainsAny(line, "\n\r") {
				t.Errorf("%s: %q has several lines", c.name, line)
			}
		}
	}
}

func bomb() string {
	var b strings.Builder
	b.WriteString("flow: a\nmeta:\n  a0: &a0 [x, x]\n")
	for i := 1; i < 8; i++ {
		fmt.Fprintf(&b, "  a%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d, ", i-1), 12), ", "))
	}
	return b.String() + "states: {a: {end: true}}\n"
}

// TestWays checks the place of messages about routes.
func TestWays(t *testing.T) {
	for _, c := range []struct{ name, source, want string }{
		{"unknown", "flow: a\nstates:\n  a: {module: m, next: x}\n  b: {end: true}", `f:3:24: state a: next: unknown state "x"`},
		{"unreachable", "flow: a\nstates:\n  a: {module: m, next: c}\n  b: {module: m, next: c}\n  c: {end: true}", "f:4:3: state b: no item can reach it"},
		{"no end", "flow: a\nstates:\n  a: {module: m, returns: move, to: [b, c]}\n  b: {module: m, next: b}\n  c: {end: true}", "f:4:3: state b: no end can be reached from it"},
		{"next and moves", "flow: a\nstates:\n  a: {module: m, returns: move, next: c}\n  c: {end: true}", "the state returns moves"},
		{"limit", "flow: a\nstates:\n  a: {module: m, limit: l, next: c}\n  c: {end: true}", `unknown limit "l"`},
		{"class", "flow: a\nstates:\n  a: {module: m, next: c, on: {gone: c}}\n  c: {end: true}", `unknown class "gone"`},
		{"reserved", "flow: a\nstates:\n  a: {module: m, next: failed}\n  failed: {end: true}", "the name is reserved"},
		{"start", "flow: a\nstart: x\nstates:\n  c: {end: true}", `f:2:8: start: unknown state "x"`},
		{"two folds", "flow: a\nstates:\n  a: {module: m, returns: move, to: [b, c]}\n  b: {end: true, fold: m}\n  c: {end: true, fold: m}", "another end has a fold"},
		{"duplicate", "flow: a\nstates:\n  a: {module: m, returns: move, to: [c, c]}\n  c: {end: true}", `f:3:41: state a: to: duplicate state "c"`},
	} {
		d, err := Parse("f", []byte(c.source))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		wrong, _ := d.Check()
		if len(wrong) == 0 || !strings.Contains((&InvalidError{wrong}).Error(), c.want) {
			t.Errorf("%s: %v, want %s", c.name, wrong, c.want)
		}
	}
}

// TestTruncated cuts the definition at every byte. Each part gives a definition, or
// messages of one line with a place.
func TestTruncated(t *testing.T) {
	for n := range len(whole) {
		_, err := Parse("f", []byte(whole[:n]))
		if _, invalid := errors.AsType[*InvalidError](err); err != nil && !invalid {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestManyStates(t *testing.T) {
	var b strings.Builder
	b.WriteString("flow: many\nstates:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  s%d: {module: m, next: done}\n", i)
	}
	b.WriteString("  done: {end: true}\n")
	if _, err := Parse("f", []byte(b.String())); err == nil || !strings.Contains(err.Error(), "10001 states: want 1 to 1000") {
		t.Error(err)
	}
}

func noModule(string) (sum [sha256.Size]byte) { return sum }

// TestCanonical: comments, order, limits and the format do not change the canonical
// form; all else does.
func TestCanonical(t *testing.T) {
	canonical := func(source string) string {
		t.Helper()
		d, err := Parse("f", []byte(source))
		if err != nil {
			t.Fatal(err)
		}
		return string(d.Canonical(noModule))
	}
	const zero = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
	base := canonical("flow: a\nstates:\n  a: {module: m, next: b}\n  b: {end: true}\n")
	want := `{"flow":"a","start":"a","states":{"a":{"module":"` + zero + `","next":"b"},"b":{"end":true}}}`
	if base != want {
		t.Errorf("%s, want %s", base, want)
	}
	for _, same := range []string{
		`{"states": {"a": {"next": "b", "module": "other"}, "b": {"end": true}}, "start": "a", "flow": "a"}`,
		"# x\nflow: a\nmeta: 7\nlimits: {l: {rate: 1/s}}\nstates:\n  a: &x {module: m, next: b, retry: {retries: 9}, concurrency: 2, meta: {x: y}}\n  b: {end: true}\n",
	} {
		if got := canonical(same); got != base {
			t.Errorf("%s: %s", same, got)
		}
	}
	if canonical("flow: a\nstates:\n  a: {module: m, next: b, fuel: 5}\n  b: {end: true}\n") == base {
		t.Error("fuel changes nothing")
	}
	got := string(appendJSON(nil, &node{kind: mapping, keys: []*node{{text: "b"}, {text: "a"}}, items: []*node{{kind: text, text: "\"\\\n\x01é<"}, {kind: float, text: formatFloat(1e21)}}}))
	if got != `{"a":1e+21,"b":"\"\\\n\u0001é<"}` {
		t.Error(got)
	}
	for f, want := range map[float64]string{0: "0", 1.5: "1.5", 1e-7: "1e-7", 123456789: "123456789", -0.000001: "-0.000001"} {
		if got := formatFloat(f); got != want {
			t.Errorf("%v: %s", f, got)
		}
	}
}

// TestSchemaKnowsTheKeys compares the keys of the schema and of the decoder.
func TestSchemaKnowsTheKeys(t *testing.T) {
	type object struct {
		Properties map[string]any `json:"properties"`
	}
	var schema struct {
		object
		Defs map[string]object `json:"$defs"`
	}
	if err := json.Unmarshal(Schema, &schema); err != nil {
		t.Fatal(err)
	}
	d := &decoder{}
	s := &State{}
	known := map[string]bool{}
	for _, f := range []fields{d.common(s), d.kinds(s), d.ways(s), d.calls(s), d.effects(s)} {
		for key := range f {
			known[key] = true
		}
	}
	if a, b := slices.Sorted(maps.Keys(known)), slices.Sorted(maps.Keys(schema.Defs["state"].Properties)); !slices.Equal(a, b) {
		t.Errorf("the decoder knows %v, and the schema %v", a, b)
	}
	for _, key := range []string{"flow", "start", "context", "seed", "limits", "defaults", "states", "meta"} {
		if schema.Properties[key] == nil {
			t.Errorf("the schema has no %s", key)
		}
	}
}

// FuzzParse asserts that reading never panics, and that an accepted definition has a
// canonical form, which reads back as itself.
func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"flow": "a", "states": {"a": {"end": true}}}`))
	f.Add([]byte("flow: a\nstates: &s\n  a: *s"))
	f.Fuzz(func(t *testing.T, source []byte) {
		d, err := Parse("f", source)
		if err != nil {
			if _, invalid := errors.AsType[*InvalidError](err); !invalid {
				t.Fatalf("%v", err)
			}
			return
		}
		d.Check()
		d.Mermaid()
		one := d.Canonical(noModule)
		if !json.Valid(one) {
			t.Fatalf("not JSON: %s", one)
		}
		if again, err := Parse("f", one); err != nil {
			if !strings.Contains(err.Error(), "limit") && !strings.Contains(err.Error(), "rate") {
				t.Fatalf("%v: %s", err, one)
			}
		} else if two := again.Canonical(noModule); !bytes.Equal(one, two) {
			t.Fatalf("%s\n%s", one, two)
		}
	})
}

// TestDeepLists reads lists that begin inside one another without brackets.
func TestDeepLists(t *testing.T) {
	for _, source := range []string{
		strings.Repeat("- ", 100_000), "flow: f\nstates:\n  " + strings.Repeat("? ", 5_000), strings.Repeat("- &a !b ", 5_000),
		strings.Repeat("-\t", 5_000) + "\n",
	} {
		_, err := Parse("f.yaml", []byte(source))
		if err == nil || !strings.Contains(err.Error(), "too deep") {
			t.Errorf("%.20q...: %v, want too deep", source, err)
		}
	}
}
