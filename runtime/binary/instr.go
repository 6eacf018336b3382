package binary

import "iter"

// Instr is one instruction in the file.
type Instr struct {
	Op     Op
	Offset int // of its first byte in the file
	End    int // of the byte after its last

	// Index is the first index among the immediates: a label, function, local,
	// global, table, memory, data or element segment. For call_indirect it is the
	// type, and for a block with parameters or several results the type of the
	// block.
	Index uint32
	// Index2 is the second index: the table of call_indirect and table.init, or
	// the source table of table.copy.
	Index2 uint32
	// Block is the type of block, loop and if: the index of a type (then it is
	// also in Index), or -64 for none, or the code of one value type - 128.
	Block int64
	// Value is the number of i32.const and i64.const.
	Value int64
	// Targets is the number of labels of a br_table without the default label,
	// which is in Index. See [Reader.Targets].
	Targets int

	lists int // offset of the first label of a br_table
}

// Reader iterates over the instructions of one expression or function body. It
// checks that each is an instruction of WebAssembly 2.0 whose immediates have
// the right form. It does not know the module or the nesting, which [Parse]
// checks.
type Reader struct {
	c cursor
}

// NewReader returns a reader of the instructions in b[start:end]. Offsets are
// counted from the start of b. b is not copied.
func NewReader(b []byte, start, end int) *Reader {
	return &Reader{cursor{b: b, pos: start, end: end}}
}

// More reports whether an instruction is left and no problem has been found.
func (r *Reader) More() bool { return r.c.err == nil && r.c.pos < r.c.end }

// Err returns the first problem found, or nil.
func (r *Reader) Err() *Problem { return r.c.err }

// Next returns the next instruction, if More reports true. Its result is valid
// only if Err returns nil afterwards.
func (r *Reader) Next() (in Instr) {
	c := &r.c
	in.Offset = c.pos
	first := c.byte("an instruction")
	form := plain[first]
	in.Op = Op(first)
	if first >= 0xfb {
		in.Op, form = r.prefixed(in.Offset, first)
	} else if form == immUnknown {
		c.failAt(in.Offset, "%s", unsupported(0, uint32(first)))
	}
	if c.err == nil && form != immNone {
		r.immediates(&in, form)
	}
	in.End = c.pos
	return in
}

func (r *Reader) prefixed(offset int, prefix byte) (Op, immediate) {
	if prefix != 0xfc && prefix != 0xfd {
		r.c.failAt(offset, "%s", unsupported(prefix, uint32(prefix)))
		return 0, immUnknown
	}
	number := r.c.u32("the number of an instruction")
	if size := r.c.pos - offset - 1; size > 1 && number>>(7*(size-1)) == 0 {
		// The engine does not read these numbers as the specification says.
		r.c.failAt(offset, "the number of an instruction after 0x%02x in more bytes than needed", prefix)
	}
	form := immUnknown
	if prefix == 0xfc && number < uint32(len(misc)) {
		form = misc[number]
	} else if prefix == 0xfd && number < uint32(len(vector)) {
		form = vector[number]
	}
	if form == immUnknown {
		r.c.failAt(offset, "%s", unsupported(prefix, number))
	}
	return Op(prefix)<<8 | Op(number&0xff), form
}

func (r *Reader) immediates(in *Instr, form immediate) {
	c := &r.c
	switch form {
	case immLabel, immFunc, immLocal, immGlobal, immTable, immData, immElem:
		in.Index = c.u32("an index")
	case immIndirect, immElemTab, immTables:
		in.Index, in.Index2 = c.u32("an index"), c.u32("a table index")
	case immI32:
		in.Value = c.signed(32, "a constant")
	case immI64:
		in.Value = c.signed(64, "a constant")
	case immF32:
		c.skip(4, "a constant")
	case immF64:
		c.skip(8, "a constant")
	case immV128:
		c.skip(16, "a constant")
	case immBlock:
		r.blockType(in)
	case immTargets:
		r.targets(in)
	case immTypes:
		r.selectTypes(in)
	case immRef:
		if t := ValueType(c.byte("a reference type")); !t.IsRef() {
			c.failAt(in.Offset, "unsupported ref.null of type 0x%02x: want funcref or externref", byte(t))
		}
	default:
		r.memoryImmediates(in, form)
	}
}

func (r *Reader) memoryImmediates(in *Instr, form immediate) {
	c := &r.c
	switch form {
	case immMemArg, immMemLane:
		r.memArg(in)
		if form == immMemLane {
			r.lane(in)
		}
	case immLane:
		r.lane(in)
	case immLanes:
		for _, lane := range c.skip(16, "the lanes of a shuffle") {
			if lane >= 32 {
				c.failAt(in.Offset, "invalid lane %d of a shuffle: want a lane below 32", lane)
			}
		}
	case immMemory:
		r.zeroMemory(in)
	case immDataMem:
		in.Index = c.u32("an index")
		r.zeroMemory(in)
	case immMemories:
		r.zeroMemory(in)
		r.zeroMemory(in)
	}
}

func (r *Reader) memArg(in *Instr) {
	align := r.c.u32("an alignment")
	if align > alignment(in.Op) {
		if align&0x40 != 0 {
			r.c.failAt(in.Offset, "a memory index in a load or store: several memories are not supported: "+withoutMemories)
		}
		r.c.failAt(in.Offset, "alignment 2^%d is larger than natural", align)
	}
	r.c.u32("an offset")
}

func (r *Reader) lane(in *Instr) {
	if lane, n := r.c.byte("a lane"), lanes(uint32(in.Op&0xff)); lane >= n && r.c.err == nil {
		r.c.failAt(in.Offset, "invalid lane %d: want a lane below %d", lane, n)
	}
}

func (r *Reader) zeroMemory(in *Instr) {
	if m := r.c.byte("a memory index"); m != 0 {
		r.c.failAt(in.Offset, "memory %d: several memories are not supported: %s", m, withoutMemories)
	}
}

func (r *Reader) blockType(in *Instr) {
	in.Block = r.c.signed(33, "a block type")
	if in.Block >= 0 {
		in.Index = uint32(in.Block)
	} else if in.Block < -64 || in.Block > -64 && !ValueType(in.Block+128).valid() {
		r.c.failAt(in.Offset, "a block of type %s", badType(byte(in.Block+128)))
	}
}

func (r *Reader) targets(in *Instr) {
	c := &r.c
	in.Targets = c.count(MaxTargets, 1, "targets of a br_table")
	in.lists = c.pos
	for range in.Targets {
		if c.u32("a label"); c.err != nil {
			return
		}
	}
	in.Index = c.u32("a label")
}

func (r *Reader) selectTypes(in *Instr) {
	n := r.c.u32("the number of types of a select")
	if n != 1 && r.c.err == nil {
		r.c.failAt(in.Offset, "invalid select of %d types: want 1", n)
	}
	if t := r.c.byte("a value type"); r.c.err == nil && !ValueType(t).valid() {
		r.c.failAt(in.Offset, "a select of type %s", badType(t))
	}
}

// Targets iterates over the labels of a br_table from Next, in order; the default
// label comes last.
func (r *Reader) Targets(in Instr) iter.Seq[uint32] {
	return func(yield func(uint32) bool) {
		c := cursor{b: r.c.b, pos: in.lists, end: in.End}
		for range in.Targets + 1 {
			if label := c.u32("a label"); !yield(label) {
				return
			}
		}
	}
}
