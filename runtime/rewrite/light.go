package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// A function that makes calls checks the fuel at its entry, unless it is light:
// it calls only functions that are light or make no calls, and all of them
// together spend little. Recursion is therefore never light. Calls that are
// followed by unreachable, such as those that report a failed assertion, are not
// counted, because the fuel is checked before them.

// unbounded is the work of a function that is not light, and lightLimit the
// maximum work of one that is.
const (
	lightLimit = leafLimit
	unbounded  = lightLimit + 1
)

// isLast reports whether the code after a call is not meant to be reached.
func isLast(wasm []byte, call binary.Instr) bool { return wasm[call.End] == byte(binary.OpUnreachable) }

// weigh returns the work of a function, after that of those that it calls. depth
// is the number of calls that led to it; a light function is not the start of
// more than lightLimit.
func (w *module) weigh(f *summary, depth int) int64 {
	switch {
	case f.work > 0:
		return f.work
	case f.leaf:
		f.work = min(leafLimit, f.units)
		return f.work
	case depth > lightLimit:
		return unbounded
	}
	f.work = unbounded // if it calls itself
	work := f.units
	for _, callee := range f.calls {
		c := w.body(callee)
		if c == nil {
			work = unbounded
		}
		if work >= unbounded {
			break
		}
		work += w.weigh(c, depth+1)
	}
	f.work = min(work, unbounded)
	return f.work
}

// light reports whether a function makes calls without a check of the fuel at
// its entry.
func (f *summary) light() bool { return !f.leaf && f.work <= lightLimit }
