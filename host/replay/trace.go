package replay

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// Trace has the function calls during a call of a guest, as lines: the first
// ones and the last ones, because a failure is at the end. A line has the
// function with its arguments, indented by its depth. If the function called no
// other, the line also has its results; otherwise they are on a separate line.
//
// Names come from the module, are cut after 120 bytes, and may contain
// anything: escape them before printing them to a terminal.
type Trace struct {
	First   []string
	Omitted int // lines between First and Last
	Last    []string
}

// tracer records calls as a trace. It is used by the goroutine that runs the
// guest.
type tracer struct {
	started     bool // earlier calls belong to _initialize and setup
	description *runtime.Description
	limit       int
	first       []string
	last        []string // a ring buffer
	count       int      // lines so far
	open        []*runtime.Function
	pending     string // the line of a call that may turn out to call no other; "" = none
	failing     bool   // the innermost call that did not return was recorded
}

func newTracer(limit int) *tracer { return &tracer{limit: limit} }

// start starts the trace.
func (t *tracer) start(d *runtime.Description) { t.started, t.description = true, d }

// Enter implements [runtime.Tracer].
func (t *tracer) Enter(f *runtime.Function, arguments []uint64) {
	if !t.started {
		return
	}
	t.flush()
	t.pending = t.indent() + t.name(f) + "(" + typed(f.Params, arguments) + ")"
	t.open = append(t.open, f)
	t.failing = false
}

// Leave implements [runtime.Tracer].
func (t *tracer) Leave(f *runtime.Function, results []uint64, returned bool) {
	if !t.started {
		return
	}
	for n := len(t.open); n > 0; n = len(t.open) { // the engine does not report some calls that did not return
		top := t.open[n-1]
		t.open = t.open[:n-1]
		if top == f {
			break
		}
	}
	switch {
	case returned:
		t.returned(f, results)
	case t.failing: // so did all callers of the recorded one
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

// maxIndent is the maximum indentation of lines, in calls; deeper lines state
// their depth.
const maxIndent = 32

func (t *tracer) indent() string {
	depth := len(t.open)
	if depth <= maxIndent {
		return strings.Repeat("  ", depth)
	}
	return strings.Repeat("  ", maxIndent) + "(" + strconv.Itoa(depth) + " deep) "
}

// maxName is the maximum length of a shown name.
const maxName = 120

// name returns the name of a function, if known, and its index in the file of
// the module.
func (t *tracer) name(f *runtime.Function) string {
	name, index := f.Name, f.Index
	if f.Module != "" {
		name, index = f.Module+"."+f.Name, t.description.ImportIndex(f.Module, f.Name)
	}
	if len(name) > maxName {
		name = strings.ToValidUTF8(name[:maxName], "") + "..."
	}
	return name + "[" + strconv.Itoa(index) + "]"
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

// trace returns the recorded trace.
func (t *tracer) trace() *Trace {
	t.flush()
	if t.count <= t.limit {
		return &Trace{First: t.first, Last: t.last}
	}
	next := (t.count - len(t.first)) % len(t.last)
	return &Trace{First: t.first, Omitted: t.count - t.limit, Last: append(slices.Clone(t.last[next:]), t.last[:next]...)}
}

// typed formats values with their types.
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
		default: // a reference; the engine's pointer has no meaning outside
			b.WriteString(map[bool]string{true: "null", false: "not null"}[v == 0])
		}
	}
	return b.String()
}

// floatText formats a float, and a NaN with its bits.
func floatText(f float64, bits int, raw uint64) string {
	if math.IsNaN(f) {
		return fmt.Sprintf("nan:0x%0*x", bits/4, raw)
	}
	return strconv.FormatFloat(f, 'g', -1, bits)
}
