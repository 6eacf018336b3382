package definition

import (
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
)

// decoder makes a definition from nodes, and collects all problems.
type decoder struct {
	file     string
	state    string       // being read; "" = none
	policy   queue.Policy // of states without a policy
	problems []Problem
}

// maxProblems bounds the problems that are collected.
const maxProblems = 50

// wrong adds a problem. Of several about one place, only the first is added.
func (d *decoder) wrong(n *node, format string, args ...any) {
	if last := len(d.problems) - 1; last >= 0 && d.problems[last].Line == n.line && d.problems[last].Column == n.column {
		return
	}
	if len(d.problems) < maxProblems {
		d.problems = append(d.problems, Problem{File: d.file, Line: n.line, Column: n.column, State: d.state, Reason: fmt.Sprintf(format, args...)})
	}
}

// fields has a function for each key of a map, which reads its value.
type fields map[string]func(n *node)

// each reads a map. Unknown keys are problems.
func (d *decoder) each(n *node, what string, f fields) bool {
	if n.kind != mapping {
		d.wrong(n, "invalid %s: want a map, not %s", what, n.kind)
		return false
	}
	for i, key := range n.keys {
		read, known := f[key.text]
		if !known {
			d.wrong(key, "unknown key %q in %s: want %s", key.text, what, strings.Join(slices.Sorted(maps.Keys(f)), ", "))
			continue
		}
		read(n.items[i])
	}
	return true
}

var (
	nameForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,63}$`) })
	rateForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?)/(ms|s|m|h)$`) })
)

func (d *decoder) definition(root *node) *Definition {
	def := &Definition{File: d.file, root: root, Limits: map[string]flow.Limit{}}
	defaults := &State{Retry: d.policy, Timeout: -1}
	ok := d.each(root, "definition", fields{
		"flow":     func(n *node) { d.name(n, "flow", &def.Name) },
		"start":    func(n *node) { d.text(n, "start", &def.Start) },
		"context":  func(n *node) { d.path(n, "context", &def.Context) },
		"seed":     func(n *node) { d.unsigned(n, "seed", &def.Seed) },
		"limits":   func(n *node) { d.limits(n, def.Limits) },
		"defaults": func(n *node) { d.each(n, "defaults", d.common(defaults)) },
		"states":   func(*node) {}, // after the defaults
		"meta":     func(*node) {},
	})
	if !ok {
		return def
	}
	if root.get("flow") == nil {
		d.wrong(root, "missing key flow: want the flow's name")
	}
	d.states(root, def, defaults)
	return def
}

func (d *decoder) states(root *node, def *Definition, defaults *State) {
	n := root.get("states")
	if n == nil || n.kind != mapping {
		d.wrong(root, "missing key states: want a map of states by name")
		return
	}
	if len(n.keys) == 0 || len(n.keys) > flow.MaxStates {
		d.wrong(n, "%d states: want 1 to %d", len(n.keys), flow.MaxStates)
		return
	}
	for i, key := range n.keys {
		d.state = key.text
		if !nameForm().MatchString(key.text) {
			d.wrong(key, "invalid name: want %s", nameForm())
		}
		def.States = append(def.States, d.oneState(key, n.items[i], defaults))
	}
	d.state = ""
	if def.Start == "" {
		def.Start = n.keys[0].text
	}
}

// common returns the keys of states that defaults have too.
func (d *decoder) common(s *State) fields {
	return fields{
		"retry":   func(n *node) { d.retry(n, &s.Retry) },
		"timeout": func(n *node) { d.duration(n, "timeout", &s.Timeout) },
		"fuel":    func(n *node) { d.unsigned(n, "fuel", &s.Fuel) },
		"memory":  func(n *node) { d.size(n, "memory", &s.Memory) },
	}
}

func (d *decoder) oneState(key, n *node, defaults *State) *State {
	s := &State{Name: key.text, Retry: defaults.Retry, Timeout: defaults.Timeout, Fuel: defaults.Fuel, Memory: defaults.Memory, node: n}
	f := d.common(s)
	maps.Copy(f, d.kinds(s))
	maps.Copy(f, d.ways(s))
	maps.Copy(f, d.calls(s))
	maps.Copy(f, d.effects(s))
	if !d.each(n, "state", f) {
		return s
	}
	d.oneKind(key, n, s)
	return s
}

// kindKeys are the keys of which a state has exactly one.
var kindKeys = []string{"module", "effect", "go", "wait", "end"}

func (d *decoder) oneKind(key, n *node, s *State) {
	var has []string
	for _, k := range kindKeys {
		if n.get(k) != nil {
			has = append(has, k)
		}
	}
	if len(has) != 1 {
		d.wrong(key, "%d kinds (%s): want exactly one of %s", len(has), strings.Join(has, ", "), strings.Join(kindKeys, ", "))
		return
	}
	d.onlyOf(n, has[0] == "module", "a module", "fuel", "memory", "args", "dirs")
	d.onlyOf(n, has[0] == "module" || s.Effect == "command", "a module or effect: command", "env", "stdin")
	d.onlyOf(n, s.Effect == "http", "effect: http", "allow", "headers", "retry_status")
	d.onlyOf(n, s.Effect == "command", "effect: command", "command", "retry_exit")
	d.onlyOf(n, s.Effect != "" || s.Go != "", "an effect", "uncertain")
	d.onlyOf(n, has[0] == "end", "an end", "fold")
	if s.Effect == "http" && len(s.Allow) == 0 {
		d.wrong(key, "missing key allow: want a list of URLs that may be reached")
	}
	if s.Effect == "command" && len(s.Command) == 0 {
		d.wrong(key, "missing key command: want a list, the program first")
	}
	if s.Own.Auto && s.Effect == "" {
		d.wrong(n.get("concurrency"), "invalid concurrency auto: want it only for effects")
	}
	if s.Own.Burst > 0 && s.Own.Rate == 0 {
		d.wrong(n.get("burst"), "missing rate: burst needs one")
	}
	if s.Effect == "command" && slices.ContainsFunc(s.Env, func(name string) bool { return name == "" || strings.ContainsAny(name, "=\x00") }) {
		d.wrong(n.get("env"), "invalid env: want names of variables, whose values the command takes from here")
	}
	if s.Limit != "" && s.Own != (flow.Limit{}) {
		d.wrong(n.get("limit"), "limit excludes rate, burst and concurrency: want a shared limit or the state's own")
	}
}

func (d *decoder) onlyOf(n *node, is bool, what string, keys ...string) {
	for _, k := range keys {
		if v := n.get(k); v != nil && !is {
			d.wrong(v, "unexpected key %s: want it only for %s", k, what)
		}
	}
}

func (d *decoder) kinds(s *State) fields {
	return fields{
		"module": func(n *node) { d.path(n, "module", &s.Module) },
		"effect": func(n *node) {
			if d.text(n, "effect", &s.Effect); s.Effect != "http" && s.Effect != "command" {
				d.wrong(n, "invalid effect %q: want http or command", s.Effect)
			}
		},
		"go": func(n *node) { d.text(n, "go", &s.Go) },
		"wait": func(n *node) {
			if d.duration(n, "wait", &s.Wait); s.Wait <= 0 {
				d.wrong(n, "invalid wait: want a duration above 0")
			}
		},
		"end": func(n *node) {
			s.End = n.kind == boolean && n.text == "true"
			s.Failed = n.kind == text && n.text == "failed"
			if !s.End && !s.Failed {
				d.wrong(n, "invalid end %q: want true or failed", n.text)
			}
		},
	}
}

func (d *decoder) ways(s *State) fields {
	return fields{
		"next": func(n *node) { d.text(n, "next", &s.Next) },
		"returns": func(n *node) {
			var returns string
			d.text(n, "returns", &returns)
			if s.Moves = returns == "move"; !s.Moves && returns != "data" {
				d.wrong(n, "invalid returns %q: want move or data", returns)
			}
		},
		"to":         func(n *node) { d.texts(n, "to", &s.To) },
		"on":         func(n *node) { d.textMap(n, "on", &s.On) },
		"limit":      func(n *node) { d.text(n, "limit", &s.Limit) },
		"max_visits": func(n *node) { d.count(n, "max_visits", &s.MaxVisits) },
		"children":   func(n *node) { d.children(n, s) },
		"fold":       func(n *node) { d.path(n, "fold", &s.Fold) },
		"meta":       func(*node) {},
		"concurrency": func(n *node) {
			if s.Own.Auto = n.kind == text && n.text == "auto"; !s.Own.Auto {
				d.count(n, "concurrency", &s.Own.Concurrency)
			}
		},
		"rate":  func(n *node) { d.rate(n, "rate", &s.Own.Rate) },
		"burst": func(n *node) { d.count(n, "burst", &s.Own.Burst) },
	}
}

func (d *decoder) calls(s *State) fields {
	return fields{
		"args":  func(n *node) { d.texts(n, "args", &s.Args) },
		"env":   func(n *node) { d.texts(n, "env", &s.Env) },
		"stdin": func(n *node) { d.oneOf(n, "stdin", &s.Stdin, "none", "raw", "cbor", "json") },
		"dirs":  func(n *node) { d.texts(n, "dirs", &s.Dirs) },
	}
}

func (d *decoder) effects(s *State) fields {
	return fields{
		"allow":        func(n *node) { d.texts(n, "allow", &s.Allow) },
		"headers":      func(n *node) { d.textMap(n, "headers", &s.Headers) },
		"retry_status": func(n *node) { d.numbers(n, "retry_status", &s.RetryStatus, 100, 599) },
		"command":      func(n *node) { d.texts(n, "command", &s.Command) },
		"retry_exit":   func(n *node) { d.numbers(n, "retry_exit", &s.RetryExit, 1, 255) },
		"uncertain": func(n *node) {
			var way string
			d.oneOf(n, "uncertain", &way, "rerun", "hold")
			s.Hold = way == "hold"
		},
	}
}

func (d *decoder) children(n *node, s *State) {
	c := &Children{}
	s.Children = c
	d.each(n, "children", fields{
		"join":     func(n *node) { d.text(n, "join", &c.Join) },
		"tolerate": func(n *node) { d.tolerate(n, c) },
		"fold":     func(n *node) { d.path(n, "fold", &c.Fold) },
	})
	if n.kind == mapping && n.get("join") == nil {
		d.wrong(n, "missing key join in children: want the state that the item enters")
	}
}

func (d *decoder) tolerate(n *node, c *Children) {
	number, percent := strings.CutSuffix(n.text, "%")
	v, err := strconv.ParseFloat(number, 64)
	whole := err == nil && v == math.Trunc(v)
	if n.kind == boolean || err != nil || v < 0 || percent && v > 100 || !percent && !whole || math.IsNaN(v) {
		d.wrong(n, "invalid tolerate %q: want a number of children, or a share such as 5%%", n.text)
		return
	}
	c.Tolerate, c.Percent = v, percent
}

func (d *decoder) limits(n *node, limits map[string]flow.Limit) {
	if n.kind != mapping {
		d.wrong(n, "invalid limits: want a map of limits by name")
		return
	}
	for i, key := range n.keys {
		if !nameForm().MatchString(key.text) {
			d.wrong(key, "invalid name %q: want %s", key.text, nameForm())
		}
		limits[key.text] = d.limit(n.items[i], "limit "+key.text)
	}
}

func (d *decoder) limit(n *node, what string) (l flow.Limit) {
	d.each(n, what, fields{
		"rate":        func(n *node) { d.rate(n, "rate", &l.Rate) },
		"burst":       func(n *node) { d.count(n, "burst", &l.Burst) },
		"concurrency": func(n *node) { d.count(n, "concurrency", &l.Concurrency) },
		"adaptive":    func(n *node) { d.boolean(n, "adaptive", &l.Adaptive) },
		"min":         func(n *node) { d.rate(n, "min", &l.Min) },
		"max":         func(n *node) { d.rate(n, "max", &l.Max) },
		"key":         func(n *node) { d.text(n, "key", &l.Key) },
	})
	switch {
	case l.Rate == 0 && (l.Burst > 0 || l.Adaptive || l.Min > 0 || l.Max > 0):
		d.wrong(n, "%s: missing rate: burst, adaptive, min and max need one", what)
	case l.Min > l.Rate || l.Max > 0 && l.Max < l.Rate:
		d.wrong(n, "%s: want min <= rate <= max", what)
	}
	return l
}

func (d *decoder) retry(n *node, p *queue.Policy) {
	var on []string
	d.each(n, "retry", fields{
		"retries": func(n *node) {
			var v uint64
			if d.unsigned(n, "retries", &v); v > 1_000_000 {
				d.wrong(n, "invalid retries %d: want at most 1000000", v)
			}
			p.Retries = int(v)
		},
		"backoff":     func(n *node) { d.duration(n, "backoff", &p.Backoff) },
		"backoff_max": func(n *node) { d.duration(n, "backoff_max", &p.BackoffMax) },
		"on": func(n *node) {
			d.texts(n, "on", &on)
			p.Classes = []abi.Class{}
			for _, c := range on {
				if !slices.Contains(flow.Classes(), abi.Class(c)) {
					d.wrong(n, "unknown class %q", c)
				}
				p.Classes = append(p.Classes, abi.Class(c))
			}
		},
	})
}

func classes(on map[string]string) map[abi.Class]string {
	out := map[abi.Class]string{}
	for class, to := range on {
		out[abi.Class(class)] = to
	}
	return out
}

func (d *decoder) text(n *node, what string, to *string) {
	if n.kind != text {
		d.wrong(n, "invalid %s: want a text, not %s", what, n.kind)
		return
	}
	if n.text == "" {
		d.wrong(n, "invalid %s: want a text that is not empty", what)
		return
	}
	*to = n.text
}

func (d *decoder) name(n *node, what string, to *string) {
	if d.text(n, what, to); n.kind == text && !nameForm().MatchString(n.text) {
		d.wrong(n, "invalid %s %q: want %s", what, n.text, nameForm())
	}
}

func (d *decoder) path(n *node, what string, to *string) {
	if d.text(n, what, to); strings.ContainsRune(*to, 0) {
		d.wrong(n, "invalid %s: want a path without zero bytes", what)
	}
}

func (d *decoder) texts(n *node, what string, to *[]string) {
	if n.kind != list {
		d.wrong(n, "invalid %s: want a list of texts, not %s", what, n.kind)
		return
	}
	*to = []string{}
	for _, item := range n.items {
		if item.kind != text {
			d.wrong(item, "invalid element of %s: want a text, not %s", what, item.kind)
			continue
		}
		*to = append(*to, item.text)
	}
}

func (d *decoder) textMap(n *node, what string, to *map[string]string) {
	if n.kind != mapping {
		d.wrong(n, "invalid %s: want a map of texts, not %s", what, n.kind)
		return
	}
	*to = map[string]string{}
	for i, key := range n.keys {
		var value string
		d.text(n.items[i], what+" of "+key.text, &value)
		(*to)[key.text] = value
	}
}

func (d *decoder) oneOf(n *node, what string, to *string, values ...string) {
	if d.text(n, what, to); !slices.Contains(values, *to) {
		d.wrong(n, "invalid %s %q: want %s", what, n.text, strings.Join(values, ", "))
	}
}

func (d *decoder) boolean(n *node, what string, to *bool) {
	if n.kind != boolean {
		d.wrong(n, "invalid %s: want true or false, not %s", what, n.kind)
	}
	*to = n.text == "true"
}

func (d *decoder) unsigned(n *node, what string, to *uint64) {
	v, err := strconv.ParseUint(n.text, 10, 64)
	if n.kind != integer || err != nil {
		d.wrong(n, "invalid %s %q: want an unsigned integer", what, n.text)
		return
	}
	*to = v
}

func (d *decoder) count(n *node, what string, to *int) {
	var v uint64
	if d.unsigned(n, what, &v); n.kind == integer && (v == 0 || v > 1<<20) {
		d.wrong(n, "invalid %s %q: want 1 to %d", what, n.text, 1<<20)
	}
	*to = int(min(v, 1<<20))
}

func (d *decoder) numbers(n *node, what string, to *[]int, least, most int) {
	if n.kind != list {
		d.wrong(n, "invalid %s: want a list of numbers", what)
		return
	}
	*to = []int{}
	for _, item := range n.items {
		v, err := strconv.Atoi(item.text)
		if item.kind != integer || err != nil || v < least || v > most {
			d.wrong(item, "invalid element %q of %s: want %d to %d", item.text, what, least, most)
			continue
		}
		*to = append(*to, v)
	}
}

func (d *decoder) duration(n *node, what string, to *time.Duration) {
	v, err := time.ParseDuration(n.text)
	if n.kind == integer && n.text == "0" {
		v, err = 0, nil
	} else if n.kind != text {
		err = strconv.ErrSyntax
	}
	if err != nil || v < 0 {
		d.wrong(n, "invalid %s %q: want a duration such as 500ms, 30s or 1h", what, n.text)
		return
	}
	*to = v
}

func (d *decoder) size(n *node, what string, to *uint64) {
	v, err := humanize.ParseBytes(n.text)
	if n.kind != text && n.kind != integer || err != nil || v == 0 || v > 1<<40 {
		d.wrong(n, "invalid %s %q: want a size such as 64KiB or 256MiB", what, n.text)
		return
	}
	*to = v
}

// rate reads a number of steps in a time, and returns steps a second.
func (d *decoder) rate(n *node, what string, to *float64) {
	m := rateForm().FindStringSubmatch(n.text)
	var v float64
	if m != nil {
		v, _ = strconv.ParseFloat(m[1], 64)
		v /= map[string]float64{"ms": 0.001, "s": 1, "m": 60, "h": 3600}[m[2]]
	}
	if n.kind != text || m == nil || v <= 0 || v > 1e9 {
		d.wrong(n, "invalid %s %q: want a rate such as 10/s or 600/m", what, n.text)
		return
	}
	*to = v
}

// Set changes a field of a limit, given as NAME.FIELD=VALUE, as if the file had that
// value.
func (d *Definition) Set(assignment string) error {
	target, value, ok := strings.Cut(assignment, "=")
	dot := strings.LastIndexByte(target, '.')
	if !ok || dot < 0 {
		return fmt.Errorf("want NAME.FIELD=VALUE, such as shop.rate=5/s")
	}
	name, field := target[:dot], target[dot+1:]
	if _, known := d.Limits[name]; !known {
		return fmt.Errorf("unknown limit %q", name)
	}
	n := &node{kind: mapping}
	for i, key := range d.root.get("limits").get(name).keys {
		if key.text != field {
			n.set(key.text, d.root.get("limits").get(name).items[i])
		}
	}
	n.set(field, scalarOf(value))
	check := &decoder{file: d.File}
	l := check.limit(n, "limit "+name)
	if len(check.problems) > 0 {
		return fmt.Errorf("%s", check.problems[0].Reason)
	}
	d.Limits[name] = l
	i := slices.IndexFunc(d.root.get("limits").keys, func(k *node) bool { return k.text == name })
	d.root.get("limits").items[i] = n
	return nil
}

func scalarOf(s string) *node {
	switch _, err := strconv.ParseUint(s, 10, 64); {
	case err == nil:
		return &node{kind: integer, text: s}
	case s == "true" || s == "false":
		return &node{kind: boolean, text: s}
	}
	return &node{kind: text, text: s}
}
