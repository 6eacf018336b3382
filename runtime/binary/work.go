package binary

import "fmt"

// The engine's time and memory for a function grow with products of its counts,
// so that a few kilobytes can take minutes and gigabytes. work holds the factors,
// each counted in one pass as an upper bound. The prices below were measured with
// the functions of TestShapes (package runtime), metered, on one core of a
// machine that compiles a guest of 3 MB from Go in 1.3 s; on other machines only
// their ratios matter.
//
//	edges x locals      2.2 us, 290 bytes: at each join of code, the engine makes
//	                    a value of each local that is used
//	edges x locals^2    2 ns: each round that removes such values compares all
//	values              0.37 us, 120 bytes: an operand that lives across a
//	                    branch, join or call, or is passed on by it
//	squares of arities  2 ns: as edges x locals^2, for values that blocks pass on
//	loops around edges  150 ns, and 5 for each local: a value that lives in a loop
//	                    lives in all loops inside, and each level takes a round
//	branches to a label, squared
//	                    12 ns: each is searched for among all
//	blocks^2            3 ns: dominators and loops are found by walking up
//	blocks              3 us, 1,200 bytes
//
// Real modules take up to 3.7 s for each megabyte by these prices, and less by the clock:
// SQLite 3.6, PHP 3.1, Ruby 2.8, esbuild (Go) 1.8.
const (
	priceOfLocals  = 2200 // ns
	priceOfPairs   = 2
	priceOfValues  = 370
	priceOfSquares = 2
	priceOfNested  = 5
	priceOfRounds  = 150
	priceOfSources = 12
	priceOfWalks   = 3
	priceOfBlocks  = 3000

	bytesOfLocals = 290
	bytesOfValues = 120
	bytesOfBlocks = 1200
)

// work has the counts that a compiler's time and memory for one function grow with.
type work struct {
	blocks  int // of straight code, with the blocks that metering adds
	edges   int // branches and ends of blocks that lead to a join of code
	values  int // operands that live at joins, branches or calls, summed
	squares int // squares of the numbers of values that branches pass on, summed
	sources int // squares of the numbers of branches to each label, summed
	nested  int // number of loops around each edge, summed
	locals  int // that are read or set
}

// time returns the price in nanoseconds.
func (w *work) time() int {
	return priceOfLocals*w.edges*w.locals + priceOfPairs*w.edges*w.locals*w.locals + priceOfValues*w.values +
		priceOfSquares*w.squares + w.nested*(priceOfNested*w.locals+priceOfRounds) + priceOfSources*w.sources + priceOfWalks*w.blocks*w.blocks + priceOfBlocks*w.blocks
}

// memory returns the price in bytes.
func (w *work) memory() int {
	return bytesOfLocals*w.edges*w.locals + bytesOfValues*w.values + bytesOfBlocks*w.blocks
}

// String returns the factors.
func (w *work) String() string {
	return fmt.Sprintf("%d branches and joins, %d locals, %d values passed through them, %d blocks", w.edges, w.locals, w.values, w.blocks)
}

// JoinTime is what the joins that a rewrite adds to a module of this size may
// take, in units of MaxWork.
func JoinTime(size int) int { return MaxWork / 6 * max(size, workPerBytes) / workPerBytes }

// JoinMemory is the memory in bytes that they may take in one function.
const JoinMemory = MaxWorkMemory / 8

// Joins are ifs with an else and one result that a rewrite adds to a function: code
// joins behind each.
type Joins struct {
	Count  int
	Locals int // of the function, with its parameters
	Height int // maximum number of operands on its stack
	Depth  int // maximum number of blocks that are open in it
	Size   int // of its code, in bytes
}

const (
	blocksOfJoin = blocksOfIf + 1
	edgesOfJoin  = edgesOfIf + 2
	bytesOfBlock = 2 // of code, at least
)

// work returns upper bounds of all counts but the blocks.
func (j Joins) work() *work {
	edges := edgesOfJoin * j.Count
	return &work{edges: edges, values: edges * (j.Height + 1), squares: edges, nested: edges * j.Depth, locals: j.Locals}
}

// Time returns what the joins add to the time of compiling, in units of MaxWork.
func (j Joins) Time() int {
	before := work{blocks: j.Size / bytesOfBlock}
	after := work{blocks: before.blocks + blocksOfJoin*j.Count}
	return j.work().time() + after.time() - before.time()
}

// Memory returns what the joins add to the memory of compiling, in bytes.
func (j Joins) Memory() int { return j.work().memory() + bytesOfBlocks*blocksOfJoin*j.Count }

// Blocks and edges that metering adds for an instruction.
const (
	blocksOfFunction = 4
	blocksOfLoop     = 8
	blocksOfIf       = 3
	blocksOfBranch   = 2
	blocksOfBulk     = 6
	blocksOfFill     = 10 // the engine makes a loop of it
	edgesOfFunction  = 2
	edgesOfLoop      = 6
	edgesOfIf        = 2
	edgesOfBulk      = 4
	edgesOfFill      = 8
	callsOfCheck     = 2 // calls that share one check, at least
	valuesOfCall     = 4 // price of an argument or a result, in values
)

// label is an open block and the branches to its end; for a loop, to its start.
type label struct {
	op              Op
	height          int // of the operands below its parameters
	params, results int
	branches        int // that lead to it; a br_table counts as one
}

func (l *label) arity() int {
	if l.op == OpLoop {
		return l.params
	}
	return l.results
}

// weigher follows the height of the operand stack through one function body and
// sums up its work. For unreachable code and code with type errors the sum is too
// low, but it always includes all blocks.
type weigher struct {
	m      *Module
	labels []label
	height int
	seen   []bool // locals that were named
	loops  int    // open loops
	calls  int
	work   work

	total    int  // time of all functions so far
	worst    int  // the function with the highest time
	most     int  // its time
	describe work // its counts
}

// start begins a function of type t with the given number of locals of its own.
func (w *weigher) start(t FuncType, own int) {
	w.labels = append(w.labels[:0], label{op: OpBlock, results: len(t.Results)})
	w.height, w.calls, w.loops = 0, 0, 0
	locals := len(t.Params) + own
	if cap(w.seen) < locals {
		w.seen = make([]bool, locals)
	} else {
		w.seen = w.seen[:locals]
		clear(w.seen)
	}
	w.work = work{blocks: blocksOfFunction, edges: edgesOfFunction, values: locals + len(t.Results)}
}

func (w *weigher) top() *label { return &w.labels[len(w.labels)-1] }

func (w *weigher) move(by int) { w.height = max(w.height+by, w.top().height) }

func (w *weigher) instruction(in Instr) {
	switch in.Op {
	case OpLocalGet, OpLocalSet, OpLocalTee:
		if n := int(in.Index); n < len(w.seen) && !w.seen[n] {
			w.seen[n] = true
			w.work.locals++
		}
		w.move(moves(in.Op))
	case OpCall:
		w.call(in.Index, false)
	case OpCallIndirect:
		w.call(in.Index, true)
	case OpBlock, OpLoop, OpIf:
		w.open(in)
	case OpElse:
		l := w.top()
		w.edge(l.results, 1)
		w.height = l.height + l.params
	case OpEnd:
		w.end()
	case OpBr, OpBrIf, OpBrTable, OpReturn, OpUnreachable:
		w.branch(in)
	case OpMemoryFill, OpTableFill:
		w.work.blocks += blocksOfFill
		w.edge(0, edgesOfFill)
		w.move(moves(in.Op))
	case OpMemoryInit, OpMemoryCopy, OpMemoryGrow, OpTableInit, OpTableCopy, OpTableGrow:
		w.work.blocks += blocksOfBulk
		w.edge(0, edgesOfBulk)
		w.move(moves(in.Op))
	default:
		w.move(moves(in.Op))
	}
}

func (w *weigher) open(in Instr) {
	if in.Op == OpIf {
		w.move(-1)
	}
	l := label{op: in.Op}
	switch {
	case in.Block >= 0 && int(in.Block) < len(w.m.Types):
		t := w.m.Types[in.Block]
		l.params, l.results = len(t.Params), len(t.Results)
	case in.Block < -64 || in.Block > -64 && in.Block < 0:
		l.results = 1
	}
	l.height = max(w.height-l.params, w.top().height)
	switch in.Op {
	case OpLoop:
		w.loops++
		w.work.blocks += blocksOfLoop
		w.edge(l.params, edgesOfLoop)
	case OpIf:
		w.work.blocks += blocksOfIf
		w.edge(l.params, edgesOfIf)
	default:
		w.work.blocks++
		w.work.values += w.height
	}
	w.labels = append(w.labels, l)
	w.height = l.height + l.params
}

// end passes the end of a block. If something branches to it, code joins there.
func (w *weigher) end() {
	l := *w.top()
	w.work.sources += l.branches * l.branches
	switch {
	case l.op == OpLoop:
		w.loops--
		w.work.values += w.height + l.results
	case l.branches > 0:
		w.edge(l.results, 1)
	default:
		w.work.values += w.height + l.results
	}
	if len(w.labels) > 1 {
		w.labels = w.labels[:len(w.labels)-1]
		w.height = l.height + l.results
	}
}

// edge counts n branches that pass arity values on.
func (w *weigher) edge(arity, n int) {
	w.work.edges += n
	w.work.nested += n * w.loops
	w.work.values += n * (w.height + arity)
	w.work.squares += n * arity * arity
}

func (w *weigher) branch(in Instr) {
	switch in.Op {
	case OpBr:
		w.edge(w.target(in.Index), 1)
	case OpBrIf:
		w.move(-1)
		w.work.blocks += blocksOfBranch
		w.edge(w.target(in.Index), 1)
		return
	case OpBrTable:
		w.move(-1)
		n := in.Targets + 1
		w.work.blocks += n
		w.edge(w.target(in.Index), n)
	case OpReturn:
		w.edge(w.labels[0].results, 1)
	}
	w.height = w.top().height
}

// target records a branch to a label. It returns the number of values that the
// branch passes on.
func (w *weigher) target(index uint32) int {
	n := len(w.labels) - 1 - int(index)
	if n < 0 {
		return 0
	}
	w.labels[n].branches++
	return w.labels[n].arity()
}

func (w *weigher) call(index uint32, indirect bool) {
	if indirect {
		w.move(-1)
	} else if int(index) < len(w.m.Functions) {
		index = w.m.Functions[index]
	}
	if int(index) >= len(w.m.Types) {
		return
	}
	t := w.m.Types[index]
	w.work.values += valuesOfCall * (len(t.Params) + len(t.Results))
	if w.calls++; w.calls%callsOfCheck == 0 {
		w.work.blocks += blocksOfIf
		w.edge(0, edgesOfIf)
	}
	w.move(-len(t.Params))
	w.move(len(t.Results))
}

// finish ends a function. It returns the limit that this function exceeds, or all
// functions up to it together, or "".
func (w *weigher) finish(function int) string {
	time, memory := w.work.time(), w.work.memory()
	w.total += time
	if time > w.most {
		w.worst, w.most, w.describe = function, time, w.work
	}
	size := max(w.m.Size, workPerBytes)
	limit, room := MaxWork*size/workPerBytes, MaxWorkMemory*min(size, 4*workPerBytes)/workPerBytes
	switch {
	case memory > room:
		return fmt.Sprintf("too large: compiling function %d would take %d MiB by its %s; want at most %d for a module of this size", function, memory>>20, &w.work, room>>20)
	case w.total > limit && w.most > limit/2:
		return fmt.Sprintf("too large: compiling function %d would take %d units of work by its %s; want at most %d for a module of this size", w.worst, w.most, &w.describe, limit)
	case w.total > limit:
		return fmt.Sprintf("too large: compiling the functions up to %d would take %d units of work, most of it function %d by its %s; want at most %d for a module of this size", function, w.total, w.worst, &w.describe, limit)
	}
	return ""
}
