package enginefuzz

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
)

// family is the kind of NaNs in a module.
type family int

const (
	noNaNs  family = iota // no instruction makes one
	ownNaNs               // the module makes each NaN canonical itself
	anyNaNs               // results differ between engines unless they are rewritten
)

// tape is the source of choices: a module is a function of it, and cutting parts
// from it or setting them to zero makes the module smaller and simpler.
type tape struct {
	data []byte
	pos  int
}

// newTape returns the tape of a seed. Its length depends on the seed too.
func newTape(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0x77617a65726f))
	data := make([]byte, 60+random.IntN(1+random.IntN(1400)))
	for i := range data {
		data[i] = byte(random.Uint32())
	}
	return data
}

func (t *tape) byte() byte {
	if t.pos >= len(t.data) {
		return 0
	}
	t.pos++
	return t.data[t.pos-1]
}

// pick returns a number below n, and 0 at the end of the tape.
func (t *tape) pick(n int) int {
	if n <= 1 {
		return 0
	}
	v := int(t.byte())
	if n > 200 {
		v |= int(t.byte()) << 8
	}
	return v % n
}

// one reports true once in n times, and never at the end of the tape.
func (t *tape) one(n int) bool { return t.pick(n) == n-1 }

// generator makes one module. The module is valid for any tape.
type generator struct {
	tape
	family    family
	liked     map[kind][]op // instructions that this module has more of
	pressed   []kind        // types of which a module has many values at once, or none
	functions []function
	types     [][]byte
	function  *function
	code      []byte
	depth     int // of blocks
	times     int // maximum number of executions of the code at this point
}

// function is a function that is complete or being made.
type function struct {
	params, results []kind
	locals          map[kind][]uint32
	order           []kind // of the locals, the parameters first; scratch locals and counters follow
	counters        int
	typ             int
	cost            int // maximum number of instructions that a call executes
	code            []byte
}

// globals has one global of each type.
const globals = 5

// results is the address to which main writes its locals.
const results = 0x8000

// generate returns the module of a tape.
func generate(data []byte) ([]byte, family) {
	g := &generator{tape: tape{data: data}}
	g.family = family(g.pick(3))
	g.like()
	for range g.pick(4) {
		g.helper()
	}
	g.main()
	return g.module(), g.family
}

// familyOf returns the family of the module of a tape.
func familyOf(data []byte) family { return family((&tape{data: data}).pick(3)) }

// like chooses instructions that this module uses again and again: bugs need two or
// three of the same instruction more often than one of each.
func (g *generator) like() {
	g.liked = map[kind][]op{}
	for _, k := range kinds {
		for range 1 + g.pick(4) {
			g.liked[k] = append(g.liked[k], ops[k][g.pick(len(ops[k]))])
		}
	}
}

func (g *generator) helper() {
	f := function{}
	for range g.pick(5) {
		f.params = append(f.params, kinds[g.pick(5)])
	}
	for range g.pick(3) {
		f.results = append(f.results, kinds[g.pick(5)])
	}
	g.begin(f, 1+g.pick(4))
	for range 1 + g.pick(4) {
		g.statement()
	}
	for _, k := range g.function.results {
		g.expression(k, 2)
	}
	g.finish()
}

func (g *generator) main() {
	if g.one(2) {
		g.press()
	}
	g.begin(function{}, 1+g.pick(20))
	at := 0
	for i, k := range g.function.order {
		if at += 16; !g.one(8) {
			g.constant32(0)
			g.load(k, at)
			g.index(0x21, uint32(i))
		}
	}
	if g.pressed != nil {
		g.loop()
	}
	for range 1 + g.pick(24) {
		g.statement()
	}
	for i, k := range g.function.order {
		g.constant32(int32(results + 16*i))
		g.index(0x20, uint32(i))
		g.store(k, 0)
	}
	g.finish()
}

// press makes a module that has more values of the types that share registers than
// there are registers, mostly in a loop.
func (g *generator) press() {
	g.pressed = [][]kind{{i32, i64}, {f32, f64}, {v128}, {f64, v128}, {i64, f64}, {i32, i64, f32, f64, v128}}[g.pick(6)]
}

// any returns a type, more often a type of which there are many values.
func (g *generator) any() kind {
	if g.pressed != nil && g.pick(3) > 0 {
		return g.pressed[g.pick(len(g.pressed))]
	}
	return kinds[g.pick(5)]
}

// begin starts a function with up to most locals of each type.
func (g *generator) begin(f function, most int) {
	f.locals = map[kind][]uint32{}
	f.order = slices.Clone(f.params)
	for _, k := range kinds {
		n := 1 + g.pick(most)
		if len(f.params)+len(f.results) == 0 && slices.Contains(g.pressed, k) {
			n = 8 + g.pick(16)
		}
		for range n {
			f.order = append(f.order, k)
		}
	}
	for i, k := range f.order {
		f.locals[k] = append(f.locals[k], uint32(i))
	}
	f.typ = g.typeOf(f.params, f.results)
	g.function, g.code, g.depth, g.times = &f, nil, 0, 1
}

func (g *generator) finish() {
	g.op(0x0b)
	f := g.function
	locals := slices.Concat(f.order[len(f.params):], kinds, slices.Repeat([]kind{i32}, f.counters))
	f.code = uleb(nil, uint64(len(locals)))
	for _, k := range locals {
		f.code = append(f.code, 1, byte(k))
	}
	f.code = append(f.code, g.code...)
	g.functions = append(g.functions, *f)
}

// scratch returns a local whose value is not needed after an instruction of the tape.
func (g *generator) scratch(k kind) uint32 {
	return uint32(len(g.function.order) + slices.Index(kinds, k))
}

// counter returns a local that only one loop uses.
func (g *generator) counter() uint32 {
	g.function.counters++
	return uint32(len(g.function.order) + len(kinds) + g.function.counters - 1)
}

func (g *generator) typeOf(params, results []kind) int {
	t := uleb([]byte{0x60}, uint64(len(params)))
	for _, k := range params {
		t = append(t, byte(k))
	}
	t = uleb(t, uint64(len(results)))
	for _, k := range results {
		t = append(t, byte(k))
	}
	for i, have := range g.types {
		if string(have) == string(t) {
			return i
		}
	}
	g.types = append(g.types, t)
	return len(g.types) - 1
}

func (g *generator) op(code ...byte)           { g.code = append(g.code, code...); g.function.cost += g.times }
func (g *generator) index(code byte, i uint32) { g.op(code); g.code = uleb(g.code, uint64(i)) }
func (g *generator) constant32(v int32)        { g.op(0x41); g.code = sleb(g.code, int64(v)) }
func (g *generator) local(code byte, k kind)   { g.index(code, g.anyLocal(k)) }
func (g *generator) anyLocal(k kind) uint32 {
	return g.function.locals[k][g.pick(len(g.function.locals[k]))]
}
func (g *generator) block(code byte, typ byte) { g.op(code, typ); g.depth++ }
func (g *generator) end()                      { g.op(0x0b); g.depth-- }

// statement makes code that leaves the operand stack unchanged.
func (g *generator) statement() {
	if g.depth > 4 || g.pos >= len(g.data) {
		g.assign()
		return
	}
	switch g.pick(20) {
	default:
		g.assign()
	case 8:
		g.address()
		k := kinds[g.pick(5)]
		g.expression(k, 3)
		g.store(k, g.pick(64))
	case 9:
		g.branches()
	case 10, 11:
		g.loop()
	case 12:
		g.leave()
	case 13:
		g.call()
	case 14:
		i := g.pick(globals)
		g.expression(kinds[i], 3)
		g.index(0x24, uint32(i))
	case 15, 16:
		g.permute()
	case 17:
		g.table()
	case 18:
		g.bulk()
	case 19:
		g.rare()
	}
}

func (g *generator) assign() {
	k := g.any()
	g.expression(k, 4)
	g.local(0x21, k)
}

// permute sets several locals at once.
func (g *generator) permute() {
	var set []kind
	for range 1 + g.pick(8) {
		k := g.any()
		g.expression(k, g.pick(2))
		set = append(set, k)
	}
	for _, k := range slices.Backward(set) {
		g.local(0x21, k)
	}
}

func (g *generator) branches() {
	g.condition(3)
	g.block(0x04, 0x40)
	for range 1 + g.pick(3) {
		g.statement()
	}
	if g.one(2) {
		g.op(0x05)
		for range 1 + g.pick(3) {
			g.statement()
		}
	}
	g.end()
}

// loop makes a loop that runs a few times.
func (g *generator) loop() {
	times := 1 + g.pick(4)
	if g.times*times > 64 {
		g.assign()
		return
	}
	counter := g.counter()
	g.constant32(int32(times))
	g.index(0x21, counter)
	outer := g.times
	g.block(0x03, 0x40)
	g.times *= times
	statements := 1 + g.pick(4)
	if outer == 1 && g.pressed != nil {
		statements = 4 + g.pick(20)
	}
	for range statements {
		g.statement()
	}
	g.index(0x20, counter)
	g.constant32(1)
	g.op(0x6b)
	g.index(0x22, counter)
	g.index(0x0d, 0)
	g.end()
	g.times = outer
}

// leave makes a block that is left early, sometimes by a branch out of the blocks
// around it.
func (g *generator) leave() {
	g.block(0x02, 0x40)
	for range g.pick(3) {
		g.statement()
	}
	g.condition(3)
	g.index(0x0d, 0)
	for range 1 + g.pick(3) {
		g.statement()
	}
	g.end()
}

func (g *generator) table() {
	n := 1 + g.pick(4)
	for range n {
		g.block(0x02, 0x40)
	}
	g.expression(i32, 2)
	if !g.one(4) {
		g.constant32(7)
		g.op(0x71)
	}
	g.op(0x0e)
	targets := g.pick(6)
	g.code = uleb(g.code, uint64(targets))
	for range targets + 1 {
		g.code = uleb(g.code, uint64(g.pick(n)))
	}
	for range n {
		g.end()
		g.statement()
	}
}

// bulk fills or copies a few bytes.
func (g *generator) bulk() {
	g.address()
	fill := g.one(2)
	if fill {
		g.expression(i32, 1)
	} else {
		g.address()
	}
	g.expression(i32, 1)
	g.constant32(31)
	g.op(0x71)
	if fill {
		g.op(0xfc, 0x0b, 0)
	} else {
		g.op(0xfc, 0x0a, 0, 0)
	}
}

func (g *generator) rare() {
	switch g.pick(6) {
	default:
		g.assign()
	case 2:
		g.constant32(int32(g.pick(3)))
		g.op(0x40, 0)
		g.local(0x21, i32)
	case 3:
		g.expression(i32, 2)
		g.expression(i32, 1)
		g.op(0x71)
		g.constant32(0x7f)
		g.op(0x71, 0x45)
		g.block(0x04, 0x40)
		g.op(0x00)
		g.end()
	case 4:
		g.op(0x3f, 0)
		g.local(0x21, i32)
	case 5:
		g.callIndirect()
	}
}

// callable returns a function that may be called here, or false if there is none.
func (g *generator) callable() (int, bool) {
	if len(g.functions) == 0 {
		return 0, false
	}
	i := g.pick(len(g.functions))
	return i, g.times*g.functions[i].cost < 20_000
}

func (g *generator) call() {
	i, ok := g.callable()
	if !ok {
		g.assign()
		return
	}
	f := g.functions[i]
	for _, k := range f.params {
		g.expression(k, 2)
	}
	g.index(0x10, uint32(i))
	g.function.cost += g.times * f.cost
	for _, k := range slices.Backward(f.results) {
		g.local(0x21, k)
	}
}

// callIndirect calls a complete function through the table. The type may be wrong.
func (g *generator) callIndirect() {
	i, ok := g.callable()
	if !ok {
		g.assign()
		return
	}
	f := g.functions[i]
	for _, k := range f.params {
		g.expression(k, 1)
	}
	if g.one(8) {
		g.expression(i32, 1)
		g.constant32(int32(len(g.functions)))
		g.op(0x70)
	} else {
		g.constant32(int32(i))
	}
	g.index(0x11, uint32(f.typ))
	g.code = append(g.code, 0)
	// A wrong index may call any function of the type.
	g.function.cost += g.times * slices.MaxFunc(g.functions, func(a, b function) int { return a.cost - b.cost }).cost
	for _, k := range slices.Backward(f.results) {
		g.local(0x21, k)
	}
}

// expression pushes a value.
func (g *generator) expression(k kind, depth int) {
	if depth <= 0 || g.pos >= len(g.data) {
		g.leaf(k)
		return
	}
	switch choice := g.pick(16); choice {
	case 0, 1:
		g.leaf(k)
	case 2:
		g.expression(k, depth-1)
		g.local(0x22, k)
	case 3:
		g.choose(k, depth)
	case 4:
		g.condition(depth - 1)
		g.block(0x04, byte(k))
		g.expression(k, depth-1)
		g.op(0x05)
		g.expression(k, depth-1)
		g.end()
	case 5:
		g.block(0x02, byte(k))
		g.expression(k, depth-1)
		g.condition(depth - 1)
		g.index(0x0d, 0)
		if g.one(2) {
			g.op(0x1a)
			g.expression(k, depth-1)
		}
		g.end()
	default:
		g.operation(k, depth)
	}
}

// condition pushes a number for a decision. Half of the conditions are comparisons,
// which engines combine into one instruction with the decision.
func (g *generator) condition(depth int) {
	if g.one(2) {
		g.expression(i32, depth)
		return
	}
	k := kinds[g.pick(2)]
	for range 2 {
		switch g.pick(4) {
		default:
			g.expression(k, depth-1)
		case 1:
			g.constant(k)
		case 2:
			g.expression(k, depth-1)
			g.expression(k, depth-1)
			g.op(map[kind]byte{i32: 0x71, i64: 0x83}[k])
		}
	}
	g.op(map[kind]byte{i32: 0x46, i64: 0x51}[k] + byte(g.pick(10)))
}

func (g *generator) choose(k kind, depth int) {
	g.expression(k, depth-1)
	g.expression(k, depth-1)
	g.condition(depth - 1)
	if g.one(4) {
		g.op(0x1c, 1, byte(k))
	} else {
		g.op(0x1b)
	}
}

func (g *generator) operation(k kind, depth int) {
	from := ops[k]
	if g.one(2) {
		from = g.liked[k]
	}
	o := from[g.pick(len(from))]
	if o.canon != noFloat && g.family == noNaNs {
		g.leaf(k)
		return
	}
	if o.memory > 0 {
		g.address()
		g.op(o.code...)
		g.code = uleb(append(g.code, byte(g.pick(int(o.memory)))), uint64(g.pick(64)))
		return
	}
	for i, from := range o.in {
		g.expression(from, depth-1)
		if i == len(o.in)-1 {
			g.guard(o.guard, from)
		}
	}
	g.op(o.code...)
	if o.lanes > 0 {
		g.code = append(g.code, byte(g.pick(int(o.lanes))))
	}
	if g.family == ownNaNs {
		g.canonical(o.canon, k)
	}
}

func (g *generator) guard(what guard, k kind) {
	if what == noGuard || g.one(40) {
		return
	}
	switch {
	case what == oddDivisor && k == i32:
		g.op(0x41, 1, 0x72)
	case what == oddDivisor:
		g.op(0x42, 1, 0x84)
	case k == f32: // of 2^23 at most
		g.op(0xbc, 0x41)
		g.code = sleb(g.code, 0x4affffff)
		g.op(0x71, 0xbe)
	default:
		g.op(0xbd, 0x42)
		g.code = sleb(g.code, 0x416fffffffffffff)
		g.op(0x83, 0xbf)
	}
}

// canonical makes the NaNs of a result canonical.
func (g *generator) canonical(s shape, k kind) {
	if s == noFloat {
		return
	}
	local := g.scratch(k)
	g.index(0x21, local)
	g.index(0x20, local)
	switch s {
	case scalar32:
		g.op(0x43, 0, 0, 0xc0, 0x7f)
	case scalar64:
		g.op(0x44, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f)
	case lanes32:
		g.op(0xfd, 0x0c, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f, 0, 0, 0xc0, 0x7f)
	case lanes64:
		g.op(0xfd, 0x0c, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f)
	}
	g.index(0x20, local)
	g.index(0x20, local)
	switch s {
	case scalar32:
		g.op(0x5b, 0x1b)
	case scalar64:
		g.op(0x61, 0x1b)
	case lanes32:
		g.op(0xfd, 0x41, 0xfd, 0x52)
	case lanes64:
		g.op(0xfd, 0x47, 0xfd, 0x52)
	}
}

func (g *generator) leaf(k kind) {
	switch g.pick(4) {
	default:
		g.local(0x20, k)
	case 2:
		g.constant(k)
	case 3:
		if g.one(4) {
			g.index(0x23, uint32(slices.Index(kinds, k)))
		} else {
			g.constant(k)
		}
	}
}

// Numbers at which bugs are likely, most likely the first two.
var integers = []int64{0, 1, -1, 2, 7, 8, 31, 32, 63, 64, 255, 256, -128, 0x7fff, -0x8000, 0xffff, math.MaxInt32, math.MinInt32, math.MaxUint32, math.MaxInt64, math.MinInt64, 0x5555555555555555}

var floats = []uint64{0, 1 << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000, 0xfff8000000000123,
	0x7ff4000000000001, 1, 0x000fffffffffffff, 0x7fefffffffffffff, 0x41e0000000000000, 0xc1e0000000000000, 0x43e0000000000000, 0x3fe0000000000000, 0x4330000000000001}

var floats32 = []uint32{0, 1 << 31, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0xffc00123, 0x7fa00001, 1, 0x007fffff, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x5f000000, 0x3f000000, 0x4b000001}

func (g *generator) integer() int64 {
	switch g.pick(3) {
	case 0:
		return integers[g.pick(2)]
	case 1:
		return integers[g.pick(len(integers))]
	}
	return int64(g.bits())
}

func (g *generator) bits() (v uint64) {
	for range 8 {
		v = v<<8 | uint64(g.byte())
	}
	return v >> (8 * g.pick(8))
}

func (g *generator) constant(k kind) {
	switch k {
	case i32:
		g.constant32(int32(g.integer()))
	case i64:
		g.op(0x42)
		g.code = sleb(g.code, g.integer())
	case f32:
		g.op(0x43)
		g.code = binary.LittleEndian.AppendUint32(g.code, floats32[g.pick(len(floats32))])
	case f64:
		g.op(0x44)
		g.code = binary.LittleEndian.AppendUint64(g.code, floats[g.pick(len(floats))])
	case v128:
		g.vector()
	}
}

func (g *generator) vector() {
	g.op(0xfd, 0x0c)
	switch g.pick(4) {
	case 0:
		g.code = append(g.code, make([]byte, 16)...)
	case 1:
		for range 2 {
			g.code = binary.LittleEndian.AppendUint64(g.code, uint64(g.integer()))
		}
	case 2:
		for range 2 {
			g.code = binary.LittleEndian.AppendUint64(g.code, floats[g.pick(len(floats))])
		}
	default:
		for range 4 {
			g.code = binary.LittleEndian.AppendUint32(g.code, floats32[g.pick(len(floats32))])
		}
	}
}

// address pushes an address that is nearly always inside the first 16 KiB.
func (g *generator) address() {
	g.expression(i32, 2)
	if !g.one(60) {
		g.constant32(0x3fff)
		g.op(0x71)
	}
}

func (g *generator) load(k kind, offset int) {
	code := map[kind][]byte{i32: {0x28, 0}, i64: {0x29, 0}, f32: {0x2a, 0}, f64: {0x2b, 0}, v128: {0xfd, 0, 0}}[k]
	g.op(code...)
	g.code = uleb(g.code, uint64(offset))
}

func (g *generator) store(k kind, offset int) {
	code := map[kind][]byte{i32: {0x36, 0}, i64: {0x37, 0}, f32: {0x38, 0}, f64: {0x39, 0}, v128: {0xfd, 0x0b, 0}}[k]
	g.op(code...)
	g.code = uleb(g.code, uint64(offset))
}

// module assembles the functions, with main exported as run.
func (g *generator) module() []byte {
	out := []byte("\x00asm\x01\x00\x00\x00")
	section := func(id byte, entries ...[]byte) {
		contents := uleb(nil, uint64(len(entries)))
		contents = append(contents, slices.Concat(entries...)...)
		out = append(uleb(append(out, id), uint64(len(contents))), contents...)
	}
	n := byte(len(g.functions))
	var declared, bodies [][]byte
	elements := []byte{0, 0x41, 0, 0x0b, n}
	for i, f := range g.functions {
		declared = append(declared, uleb(nil, uint64(f.typ)))
		bodies = append(bodies, append(uleb(nil, uint64(len(f.code))), f.code...))
		elements = append(elements, byte(i))
	}
	section(1, g.types...)
	section(3, declared...)
	section(4, []byte{0x70, 0, n})
	section(5, []byte{1, 1, 3})
	section(6, []byte{0x7f, 1, 0x41, 5, 0x0b}, []byte{0x7e, 1, 0x42, 0x7f, 0x0b}, []byte{0x7d, 1, 0x43, 0, 0, 0x80, 0x3f, 0x0b},
		[]byte{0x7c, 1, 0x44, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x0b}, append(append([]byte{0x7b, 1, 0xfd, 0x0c}, make([]byte, 16)...), 0x0b))
	section(7, []byte("\x06memory\x02\x00"), append([]byte("\x03run\x00"), n-1))
	section(9, elements)
	section(10, bodies...)
	section(11, append(uleb([]byte{0, 0x41, 0, 0x0b}, uint64(len(start))), start...))
	return out
}

// start is the initial content of the memory: likely numbers, in all sizes.
var start = startBytes()

func startBytes() (b []byte) {
	for i := range 40 {
		b = binary.LittleEndian.AppendUint64(b, uint64(integers[(i*7)%len(integers)]))
		b = binary.LittleEndian.AppendUint64(b, floats[(i*5)%len(floats)])
		b = binary.LittleEndian.AppendUint32(b, floats32[(i*3)%len(floats32)])
		b = binary.LittleEndian.AppendUint32(b, floats32[(i*11+1)%len(floats32)])
	}
	return b
}

func uleb(b []byte, v uint64) []byte { return binary.AppendUvarint(b, v) }

func sleb(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}
