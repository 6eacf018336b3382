package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// tracer notes the calls of a guest as lines: the first ones and the last ones,
// since the last are those before a failure. A call that makes no other is one
// line; of another, a second line has the results. It is used by the goroutine
// that runs the guest.
type tracer struct {
	started     bool // calls that came before are those of _initialize and setup
	description *runtime.Description
	limit       int
	first       []string
	last        []string // a ring
	count       int      // lines so far
	open        []*runtime.Function
	pending     string // the line of a call that may have no other in it; "" = none
	failing     bool   // the innermost call that did not return was noted
}

func newTracer(limit int) *tracer { return &tracer{limit: limit} }

// start begins the trace.
func (t *tracer) start(d *runtime.Description) { t.started, t.description = true, d }

// Enter implements [runtime.Calls].
func (t *tracer) Enter(f *runtime.Function, arguments []uint64) {
	if !t.started {
		return
	}
	t.flush()
	t.pending = t.indent() + t.name(f) + "(" + typed(f.Params, arguments) + ")"
	t.open = append(t.open, f)
	t.failing = false
}

// Leave implements [runtime.Calls].
func (t *tracer) Leave(f *runtime.Function, results []uint64, returned bool) {
	if !t.started {
		return
	}
	for n := len(t.open); n > 0; n = len(t.open) { // the engine tells nothing of some that did not return
		top := t.open[n-1]
		t.open = t.open[:n-1]
		if top == f {
			break
		}
	}
	switch {
	case returned:
		t.returned(f, results)
	case t.failing: // so do all around the one that was noted
	case t.pending != "":
		t.pending += " did not return"
		t.flush()
	default:
		t.line(t.indent() + t.name(f) + " did not return")
	}
	t.failing = !returned
}

func (t *tracer) returned(f *runtime.Function, results []uint64) {
	after := ""
	if len(f.Results) > 0 {
		after = " -> " + typed(f.Results, results)
	}
	if t.pending != "" {
		t.pending += after
		t.flush()
	} else if after != "" {
		t.line(t.indent() + t.name(f) + after)
	}
}

// maxIndent is how far lines are indented at most, in calls; beyond it, they
// say how deep they are.
const maxIndent = 32

func (t *tracer) indent() string {
	depth := len(t.open)
	if depth <= maxIndent {
		return strings.Repeat("  ", depth)
	}
	return strings.Repeat("  ", maxIndent) + "(" + strconv.Itoa(depth) + " deep) "
}

// maxName bounds what is shown of a name.
const maxName = 120

// name returns what is known of a function: its name, and its index in the
// file of the module.
func (t *tracer) name(f *runtime.Function) string {
	name, index := f.Name, f.Index
	if f.Module != "" {
		name, index = f.Module+"."+f.Name, t.description.ImportIndex(f.Module, f.Name)
	}
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "..."
	}
	return printable(name) + "[" + strconv.Itoa(index) + "]"
}

func (t *tracer) flush() {
	if t.pending != "" {
		t.line(t.pending)
		t.pending = ""
	}
}

func (t *tracer) line(s string) {
	half := t.limit / 2
	switch {
	case t.count < half:
		t.first = append(t.first, s)
	case t.count < t.limit:
		t.last = append(t.last, s)
	default:
		t.last[(t.count-half)%len(t.last)] = s
	}
	t.count++
}

// lines returns the trace.
func (t *tracer) lines() []string {
	t.flush()
	all := t.first
	if t.count <= t.limit {
		return append(all, t.last...)
	}
	all = append(all, fmt.Sprintf("... %d lines are not shown: --trace-limit shows more", t.count-t.limit))
	next := (t.count - len(t.first)) % len(t.last)
	return append(append(all, t.last[next:]...), t.last[:next]...)
}

// typed shows values with their types.
func typed(types []binary.ValueType, values []uint64) string {
	var b strings.Builder
	at := 0
	next := func() (v uint64) {
		if at < len(values) {
			v = values[at]
		}
		at++
		return v
	}
	for i, kind := range types {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(kind.String() + " ")
		switch v := next(); kind {
		case binary.I32:
			b.WriteString(strconv.FormatInt(int64(int32(v)), 10))
		case binary.I64:
			b.WriteString(strconv.FormatInt(int64(v), 10))
		case binary.F32:
			b.WriteString(floatText(float64(math.Float32frombits(uint32(v))), 32, v))
		case binary.F64:
			b.WriteString(floatText(math.Float64frombits(v), 64, v))
		case binary.V128:
			fmt.Fprintf(&b, "0x%016x%016x", next(), v)
		default: // a reference, of which the engine's pointer says nothing
			b.WriteString(map[bool]string{true: "null", false: "not null"}[v == 0])
		}
	}
	return b.String()
}

// floatText shows a float; of a NaN, its bits.
func floatText(f float64, bits int, raw uint64) string {
	if math.IsNaN(f) {
		return fmt.Sprintf("nan:0x%0*x", bits/4, raw)
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}
