package enginefuzz

// kind is a value type, by its code in the binary format.
type kind byte

const (
	i32  kind = 0x7f
	i64  kind = 0x7e
	f32  kind = 0x7d
	f64  kind = 0x7c
	v128 kind = 0x7b
)

var kinds = []kind{i32, i64, f32, f64, v128}

// op is an instruction whose operands and result are always of the same types.
type op struct {
	code   []byte
	in     []kind
	lanes  byte // number of lanes for the immediate; 0 if there is none
	guard  guard
	canon  shape // of the NaNs that it can make
	memory byte  // alignment of a load, plus 1
}

// guard is the way to keep an instruction from trapping nearly always.
type guard byte

const (
	noGuard guard = iota
	oddDivisor
	finite // the operand of a conversion becomes small
)

// shape is the layout of floats in a value.
type shape byte

const (
	noFloat shape = iota
	scalar32
	scalar64
	lanes32
	lanes64
)

// ops are the instructions by the type of their result.
var ops = makeOps()

type opTable map[kind][]op

func (t opTable) add(result kind, in []kind, from, to byte, change func(*op)) {
	for code := int(from); code <= int(to); code++ {
		o := op{code: []byte{byte(code)}, in: in}
		if change != nil {
			change(&o)
		}
		t[result] = append(t[result], o)
	}
}

func (t opTable) misc(result kind, in []kind, number byte) {
	t[result] = append(t[result], op{code: []byte{0xfc, number}, in: in})
}

func (t opTable) vector(result kind, in []kind, change func(*op), numbers ...byte) {
	for _, n := range numbers {
		o := op{code: vectorCode(n), in: in}
		if change != nil {
			change(&o)
		}
		t[result] = append(t[result], o)
	}
}

func vectorCode(number byte) []byte {
	if number < 0x80 {
		return []byte{0xfd, number}
	}
	return []byte{0xfd, number, 1}
}

func makes(s shape) func(*op)         { return func(o *op) { o.canon = s } }
func guarded(g guard) func(*op)       { return func(o *op) { o.guard = g } }
func withLanes(n byte) func(*op)      { return func(o *op) { o.lanes = n } }
func fromMemory(align byte) func(*op) { return func(o *op) { o.memory = align + 1 } }

func makeOps() opTable {
	t := opTable{}
	t.integers()
	t.floats()
	t.conversions()
	t.loads()
	t.vectors()
	t.lanes()
	return t
}

func (t opTable) integers() {
	for _, k := range []struct {
		kind                        kind
		eqz, compare, unary, binary byte
	}{{i32, 0x45, 0x46, 0x67, 0x6a}, {i64, 0x50, 0x51, 0x79, 0x7c}} {
		one, two := []kind{k.kind}, []kind{k.kind, k.kind}
		t.add(i32, one, k.eqz, k.eqz, nil)
		t.add(i32, two, k.compare, k.compare+9, nil)
		t.add(k.kind, one, k.unary, k.unary+2, nil)
		t.add(k.kind, two, k.binary, k.binary+2, nil)
		t.add(k.kind, two, k.binary+3, k.binary+6, guarded(oddDivisor))
		t.add(k.kind, two, k.binary+7, k.binary+14, nil)
	}
	t.add(i32, []kind{i32}, 0xc0, 0xc1, nil)
	t.add(i64, []kind{i64}, 0xc2, 0xc4, nil)
}

func (t opTable) floats() {
	for _, k := range []struct {
		kind                   kind
		compare, unary, binary byte
		shape                  shape
	}{{f32, 0x5b, 0x8b, 0x92, scalar32}, {f64, 0x61, 0x99, 0xa0, scalar64}} {
		one, two := []kind{k.kind}, []kind{k.kind, k.kind}
		t.add(i32, two, k.compare, k.compare+5, nil)
		t.add(k.kind, one, k.unary, k.unary+1, nil)
		t.add(k.kind, one, k.unary+2, k.unary+6, makes(k.shape))
		t.add(k.kind, two, k.binary, k.binary+5, makes(k.shape))
		t.add(k.kind, two, k.binary+6, k.binary+6, nil)
	}
}

func (t opTable) conversions() {
	t.add(i32, []kind{i64}, 0xa7, 0xa7, nil)
	for i, from := range []kind{f32, f32, f64, f64} {
		t.add(i32, []kind{from}, 0xa8+byte(i), 0xa8+byte(i), guarded(finite))
		t.add(i64, []kind{from}, 0xae+byte(i), 0xae+byte(i), guarded(finite))
		t.misc(i32, []kind{from}, byte(i))
		t.misc(i64, []kind{from}, byte(i)+4)
	}
	t.add(i64, []kind{i32}, 0xac, 0xad, nil)
	for i, from := range []kind{i32, i32, i64, i64} {
		t.add(f32, []kind{from}, 0xb2+byte(i), 0xb2+byte(i), nil)
		t.add(f64, []kind{from}, 0xb7+byte(i), 0xb7+byte(i), nil)
	}
	t.add(f32, []kind{f64}, 0xb6, 0xb6, makes(scalar32))
	t.add(f64, []kind{f32}, 0xbb, 0xbb, makes(scalar64))
	t.add(i32, []kind{f32}, 0xbc, 0xbc, nil)
	t.add(i64, []kind{f64}, 0xbd, 0xbd, nil)
	t.add(f32, []kind{i32}, 0xbe, 0xbe, nil)
	t.add(f64, []kind{i64}, 0xbf, 0xbf, nil)
}

func (t opTable) loads() {
	address := []kind{i32}
	for _, l := range []struct {
		kind  kind
		code  byte
		align byte
	}{{i32, 0x28, 2}, {i64, 0x29, 3}, {f32, 0x2a, 2}, {f64, 0x2b, 3}, {i32, 0x2c, 0}, {i32, 0x2d, 0}, {i32, 0x2e, 1}, {i32, 0x2f, 1},
		{i64, 0x30, 0}, {i64, 0x31, 0}, {i64, 0x32, 1}, {i64, 0x33, 1}, {i64, 0x34, 2}, {i64, 0x35, 2}} {
		t.add(l.kind, address, l.code, l.code, fromMemory(l.align))
	}
	for code, align := range []byte{4, 3, 3, 3, 3, 3, 3, 0, 1, 2, 3} {
		t.vector(v128, address, fromMemory(align), byte(code))
	}
	t.vector(v128, address, fromMemory(2), 0x5c)
	t.vector(v128, address, fromMemory(3), 0x5d)
}

func (t opTable) vectors() {
	one, two, shift := []kind{v128}, []kind{v128, v128}, []kind{v128, i32}
	for n := 0x23; n <= 0x4c; n++ {
		t.vector(v128, two, nil, byte(n))
	}
	t.vector(v128, one, nil, 0x4d, 0x60, 0x61, 0x62, 0x7c, 0x7d, 0x7e, 0x7f, 0x80, 0x81, 0x87, 0x88, 0x89, 0x8a, 0xa0, 0xa1,
		0xa7, 0xa8, 0xa9, 0xaa, 0xc0, 0xc1, 0xc7, 0xc8, 0xc9, 0xca, 0xe0, 0xe1, 0xec, 0xed, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff)
	t.vector(i32, one, nil, 0x53, 0x63, 0x64, 0x83, 0x84, 0xa3, 0xa4, 0xc3, 0xc4)
	t.vector(v128, shift, nil, 0x6b, 0x6c, 0x6d, 0x8b, 0x8c, 0x8d, 0xab, 0xac, 0xad, 0xcb, 0xcc, 0xcd)
	t.vector(v128, two, nil, 0x0e, 0x4e, 0x4f, 0x50, 0x51, 0x65, 0x66, 0x6e, 0x6f, 0x70, 0x71, 0x72, 0x73, 0x76, 0x77, 0x78, 0x79,
		0x7b, 0x82, 0x85, 0x86, 0x8e, 0x8f, 0x90, 0x91, 0x92, 0x93, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9b, 0x9c, 0x9d, 0x9e, 0x9f,
		0xae, 0xb1, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xbc, 0xbd, 0xbe, 0xbf, 0xce, 0xd1, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xdb,
		0xdc, 0xdd, 0xde, 0xdf, 0xea, 0xeb, 0xf6, 0xf7)
	t.vector(v128, []kind{v128, v128, v128}, nil, 0x52)
	t.vector(v128, one, makes(lanes32), 0x5e, 0x67, 0x68, 0x69, 0x6a, 0xe3)
	t.vector(v128, one, makes(lanes64), 0x5f, 0x74, 0x75, 0x7a, 0x94, 0xef)
	t.vector(v128, two, makes(lanes32), 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9)
	t.vector(v128, two, makes(lanes64), 0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5)
}

func (t opTable) lanes() {
	for i, from := range []kind{i32, i32, i32, i64, f32, f64} {
		t.vector(v128, []kind{from}, nil, 0x0f+byte(i))
	}
	one := []kind{v128}
	t.vector(i32, one, withLanes(16), 0x15, 0x16)
	t.vector(i32, one, withLanes(8), 0x18, 0x19)
	t.vector(i32, one, withLanes(4), 0x1b)
	t.vector(i64, one, withLanes(2), 0x1d)
	t.vector(f32, one, withLanes(4), 0x1f)
	t.vector(f64, one, withLanes(2), 0x21)
	for _, l := range []struct {
		code, lanes byte
		from        kind
	}{{0x17, 16, i32}, {0x1a, 8, i32}, {0x1c, 4, i32}, {0x1e, 2, i64}, {0x20, 4, f32}, {0x22, 2, f64}} {
		t.vector(v128, []kind{v128, l.from}, withLanes(l.lanes), l.code)
	}
}
