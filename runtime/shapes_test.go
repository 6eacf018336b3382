package runtime_test

import (
	"bytes"
	"slices"
)

// shape is a family of modules whose compilation could take more than linear
// time. It has one module for each size in bytes, which is at most about that
// long.
type shape struct {
	name string
	make func(size int) []byte
}

const (
	opBlock   = 0x02
	opLoop    = 0x03
	opIf      = 0x04
	opElse    = 0x05
	opEnd     = 0x0b
	opBr      = 0x0c
	opBrIf    = 0x0d
	opBrTable = 0x0e
	opCall    = 0x10
	opDrop    = 0x1a
	opGet     = 0x20
	opSet     = 0x21
	opConst   = 0x41
	opAdd     = 0x6a
	empty     = 0x40
)

// i32s returns n value types.
func i32s(n int) []byte { return bytes.Repeat([]byte{codeI32}, n) }

func repeat(n int, code ...byte) []byte { return bytes.Repeat(code, n) }

func op(code byte, index int) []byte { return append([]byte{code}, leb(index)...) }

// each joins the results of f for 0 to n-1.
func each(n int, f func(i int) []byte) []byte {
	var b []byte
	for i := range n {
		b = append(b, f(i)...)
	}
	return b
}

// increments returns code that adds 1 to each of n locals.
func increments(n int) []byte {
	return each(n, func(i int) []byte { return slices.Concat(op(opGet, i), []byte{opConst, 1, opAdd}, op(opSet, i)) })
}

// reads returns code that reads each of n locals.
func reads(n int) []byte {
	return each(n, func(i int) []byte { return append(op(opGet, i), opDrop) })
}

func void(locals int, code ...[]byte) body {
	var groups [][2]int
	if locals > 0 {
		groups = [][2]int{{locals, codeI32}}
	}
	return body{kind: typeVoid, locals: groups, code: slices.Concat(code...)}
}

func oneBody(b body) []byte { return (&guest{bodies: []body{b}}).bytes() }

// many returns a module with as many copies of a function as fit.
func many(size int, b body, types ...[]byte) []byte {
	n := max(1, size/(len(b.bytes())+1))
	return (&guest{types: types, bodies: slices.Repeat([]body{b}, n)}).bytes()
}

// floats returns code of 6 bytes for each of n floats, whose bits are observed.
// Were it shorter, branches would make it grow too much.
func floats(n int) []byte {
	return slices.Concat([]byte{opConst, 0, 0xb2}, repeat(n, 0x91, 0xbc, 0x01, 0x01, 0x01, 0xbe), []byte{opDrop})
}

// skip is a block with a branch to its end: a join.
var skip = []byte{opBlock, empty, opGet, 0, opBrIf, 0, opConst, 1, opSet, 0, opEnd}

// wide returns a type of n parameters and n results.
func wide(n int) []byte { return functionType(i32s(n), i32s(n)) }

var shapes = []shape{
	{"nested loops, locals set inside", func(size int) []byte {
		n := size / 16
		return oneBody(void(n, repeat(n, opLoop, empty), increments(n), repeat(n, opGet, 0, opBrIf, 0, opEnd)))
	}},
	{"few nested loops, many locals", func(size int) []byte {
		n, loops := size/10, 20
		n = min(n, 40000)
		return oneBody(void(n, repeat(loops, opLoop, empty), increments(n), repeat(loops, opGet, 0, opBrIf, 0, opEnd)))
	}},
	{"many nested loops, few locals", func(size int) []byte {
		n, locals := min(size/7, 9000), 40
		return oneBody(void(locals, repeat(n, opLoop, empty), increments(locals), repeat(n, opGet, 0, opBrIf, 0, opEnd)))
	}},
	{"joins in a row, locals read behind", func(size int) []byte {
		n := size / 20
		locals := min(n, 40000)
		return oneBody(void(locals, repeat(n, skip...), reads(locals)))
	}},
	{"joins in a row, locals set and read around", func(size int) []byte {
		n := size / 20
		locals := min(n, 40000)
		return oneBody(void(locals, increments(locals), repeat(n/2, skip...), reads(locals)))
	}},
	{"ifs in a row, each sets a local", func(size int) []byte {
		n := size / 14
		locals := min(n, 40000)
		return oneBody(void(locals, each(n, func(i int) []byte {
			return slices.Concat([]byte{opGet, 0, opIf, empty, opConst, 1}, op(opSet, i%locals), []byte{opEnd})
		}), reads(locals)))
	}},
	{"loops in a row, locals read behind", func(size int) []byte {
		n := size / 11
		locals := min(n, 40000)
		return oneBody(void(locals, repeat(n, opLoop, empty, opGet, 0, opBrIf, 0, opEnd), reads(locals)))
	}},
	{"joins in a row", func(size int) []byte { return oneBody(void(1, repeat(size/len(skip), skip...))) }},
	{"branches to one label", func(size int) []byte {
		return oneBody(void(1, []byte{opBlock, empty}, repeat(size/4, opGet, 0, opBrIf, 0), []byte{opEnd}))
	}},
	{"joins in a row, a few locals", func(size int) []byte {
		return oneBody(void(10, repeat(size/len(skip), skip...), increments(10)))
	}},
	{"a loop around joins", func(size int) []byte {
		n := size / 24
		locals := min(n, 40000)
		return oneBody(void(locals, []byte{opLoop, empty}, increments(locals), repeat(n, skip...), []byte{opGet, 0, opBrIf, 0, opEnd}))
	}},
	{"small functions of loops times locals", func(size int) []byte {
		const n = 60
		return many(size, void(n, repeat(n, opLoop, empty), increments(n), repeat(n, opGet, 0, opBrIf, 0, opEnd)))
	}},
	{"operands that live through joins", func(size int) []byte {
		n := size / 16
		return oneBody(void(1, repeat(n, opGet, 0, opConst, 1, opAdd), repeat(n, skip...), repeat(n, opDrop)))
	}},
	{"operands that live through loops", func(size int) []byte {
		n := size / 14
		return oneBody(void(1, repeat(n, 0x3f, 0), repeat(n, opLoop, empty, opGet, 0, opBrIf, 0, opEnd), repeat(n-1, opAdd), []byte{opSet, 0}))
	}},
	{"operands that live through calls", func(size int) []byte {
		n := size / 6
		return oneBody(void(1, repeat(n, 0x3f, 0), repeat(n, op(opCall, 2)...), repeat(n-1, opAdd), []byte{opSet, 0}))
	}},
	{"blocks with values", func(size int) []byte {
		n := size / 3
		return (&guest{types: [][]byte{wide(1000)}, bodies: []body{void(0, repeat(1000, opConst, 0), repeat(n, opBlock, typeNext, opEnd), repeat(1000, opDrop))}}).bytes()
	}},
	{"loops with values", func(size int) []byte {
		n := size / 3
		return (&guest{types: [][]byte{wide(1000)}, bodies: []body{void(0, repeat(1000, opConst, 0), repeat(n, opLoop, typeNext, opEnd), repeat(1000, opDrop))}}).bytes()
	}},
	{"ifs with values", func(size int) []byte {
		n := size / 5
		return (&guest{types: [][]byte{wide(1000)}, bodies: []body{void(1, repeat(1000, opConst, 0), repeat(n, opGet, 0, opIf, typeNext, opEnd), repeat(1000, opDrop))}}).bytes()
	}},
	{"branches with values", func(size int) []byte {
		n := size / 4
		return (&guest{types: [][]byte{wide(1000)}, bodies: []body{void(1, repeat(1000, opConst, 0), []byte{opBlock, typeNext}, repeat(n, opGet, 0, opBrIf, 0), []byte{opEnd}, repeat(1000, opDrop))}}).bytes()
	}},
	{"returns with values", func(size int) []byte {
		n := size / 7
		code := slices.Concat(repeat(1000, opConst, 0), repeat(n, opGet, 0, opIf, empty), repeat(n, opEnd))
		exits := slices.Concat(repeat(1000, opConst, 0), repeat(n, opGet, 0, opBrIf, 0))
		_ = code
		return (&guest{types: [][]byte{functionType(nil, i32s(1000))}, bodies: []body{{kind: typeNext, locals: [][2]int{{1, codeI32}}, code: exits}}}).bytes()
	}},
	{"br_table with values", func(size int) []byte {
		n := max(1, min(size-3000, 65000))
		code := slices.Concat([]byte{opBlock, typeNext + 1}, repeat(1000, opConst, 0), []byte{opConst, 0, opBrTable}, leb(n), repeat(n, 0), []byte{0, opEnd}, repeat(1000, opDrop))
		return (&guest{types: [][]byte{wide(1000), functionType(nil, i32s(1000))}, bodies: []body{void(0, code)}}).bytes()
	}},
	{"calls with values", func(size int) []byte {
		n := max(1, (size-6000)/2)
		callee := body{kind: typeNext, code: each(1000, func(i int) []byte { return op(opGet, i) })}
		return (&guest{types: [][]byte{wide(1000)}, bodies: []body{callee, void(0, repeat(1000, opConst, 0), repeat(n, opCall, 2), repeat(1000, opDrop))}}).bytes()
	}},
	{"indirect calls with values", func(size int) []byte {
		n := max(1, (size-6000)/5)
		return (&guest{types: [][]byte{wide(1000)}, sections: []rawSection{{4, []byte{1, 0x70, 0, 1}}}, bodies: []body{void(0, repeat(1000, opConst, 0), repeat(n, opConst, 0, 0x11, typeNext, 0), repeat(1000, opDrop))}}).bytes()
	}},
	{"small functions with wide types", func(size int) []byte {
		n := max(1, (size-4000)/6)
		return (&guest{types: [][]byte{functionType(i32s(1000), nil)}, bodies: slices.Repeat([]body{{kind: typeNext}}, n)}).bytes()
	}},
	{"br_tables of one label", func(size int) []byte { return many(size, void(0, repeat(3, branchTable(60000, 0)...))) }},
	{"br_tables of many labels", func(size int) []byte {
		const n = 2000
		labels := each(n, func(i int) []byte { return leb(i) })
		table := slices.Concat(repeat(n, opBlock, empty), []byte{opConst, 0, opBrTable}, leb(n), labels, []byte{0}, repeat(n, opEnd))
		return many(size, void(0, table))
	}},
	{"a br_table in a loop of many labels", func(size int) []byte {
		n := min(size/8, 9000)
		labels := each(n, func(i int) []byte { return leb(i) })
		cases := each(n, func(i int) []byte { return slices.Concat([]byte{opEnd, opConst, 1, opSet}, leb(i%30), op(opBr, n-i-1)) })
		return oneBody(void(30, []byte{opLoop, empty}, repeat(n, opBlock, empty), []byte{opGet, 0, opBrTable}, leb(n-1), labels, cases, []byte{opEnd}))
	}},
	{"small br_tables", func(size int) []byte { return many(size, void(0, repeat(500, branchTable(20, 0)...))) }},
	{"nested blocks", func(size int) []byte {
		n := min(size/3, 10000)
		return many(size, void(0, repeat(n, opBlock, empty), repeat(n, opEnd)))
	}},
	{"nested blocks with branches out", func(size int) []byte {
		n := min(size/8, 9000)
		return many(size, void(1, repeat(n, opBlock, empty), each(n, func(i int) []byte { return slices.Concat([]byte{opGet, 0}, op(opBrIf, i)) }), repeat(n, opEnd)))
	}},
	{"nested ifs", func(size int) []byte {
		n := min(size/5, 9000)
		return many(size, void(1, repeat(n, opGet, 0, opIf, empty), repeat(n, opEnd)))
	}},
	{"nested loops", func(size int) []byte {
		n := min(size/7, 9000)
		return many(size, void(1, repeat(n, opLoop, empty), repeat(n, opGet, 0, opBrIf, 0, opEnd)))
	}},
	{"locals", func(size int) []byte { return many(size, void(49000)) }},
	{"locals, one read behind a join", func(size int) []byte { return many(size, void(49000, skip, []byte{opGet, 0, opDrop})) }},
	{"small functions", func(size int) []byte { return many(size, void(0)) }},
	{"calls", func(size int) []byte { return oneBody(void(0, repeat(size/2, opCall, 2))) }},
	{"loads", func(size int) []byte { return oneBody(void(0, repeat(size/6, opConst, 0, 0x28, 2, 0, opDrop))) }},
	{"divisions", func(size int) []byte {
		return oneBody(void(1, repeat(size/6, opGet, 0, opGet, 0, 0x6d, opSet, 0)[:size/7*7]))
	}},
	{"operands", func(size int) []byte {
		n := size / 3
		return oneBody(void(0, repeat(n, opConst, 0), repeat(n, opDrop)))
	}},
	{"sums of live operands", func(size int) []byte {
		n := size / 3
		return oneBody(void(1, repeat(n, 0x3f, 0), repeat(n-1, opAdd), []byte{opSet, 0}))
	}},
	{"fills", func(size int) []byte {
		return oneBody(void(0, repeat(size/9, opConst, 0, opConst, 0, opConst, 0, 0xfc, 11, 0)))
	}},
	{"fills of tables", func(size int) []byte {
		fills := void(0, repeat(size/9, opConst, 0, 0xd0, 0x70, opConst, 0, 0xfc, 17, 0))
		return (&guest{sections: []rawSection{{4, []byte{1, 0x70, 0, 1}}}, bodies: []body{fills}}).bytes()
	}},
	{"copies", func(size int) []byte {
		return oneBody(void(0, repeat(size/10, opConst, 0, opConst, 0, opConst, 0, 0xfc, 10, 0, 0)))
	}},
	{"growths", func(size int) []byte { return oneBody(void(0, repeat(size/5, opConst, 0, 0x40, 0, opDrop))) }},
	{"floats whose bits are observed", func(size int) []byte {
		return oneBody(void(0, append(repeat(1, opConst, 0, 0xb2), append(repeat(size/3, 0x91, 0xbc, 0xbe), opDrop)...)))
	}},
	{"observed floats, locals read behind", func(size int) []byte {
		n := size / 24
		locals := min(n, 40000)
		return oneBody(void(locals, increments(locals), floats(2*n), reads(locals)))
	}},
	{"observed floats, as many as get branches", func(size int) []byte {
		n := min(size/20, 280)
		return oneBody(void(n, increments(n), floats(n), reads(n)))
	}},
	{"observed floats, few locals read behind", func(size int) []byte {
		return oneBody(void(20, increments(20), floats((size-200)/6), reads(20)))
	}},
	{"small functions of observed floats and locals", func(size int) []byte {
		return many(size, void(40, increments(40), floats(40), reads(40)))
	}},
	{"observed floats in nested loops", func(size int) []byte {
		n, locals := min(size/13, 900), 40
		loops := slices.Concat(repeat(n, opLoop, empty), increments(locals), floats(max(0, (size-7*n)/6)), repeat(n, opGet, 0, opBrIf, 0, opEnd))
		return oneBody(void(locals, loops))
	}},
	{"observed floats above live operands", func(size int) []byte {
		n := size / 12
		return oneBody(void(1, repeat(n, 0x3f, 0), floats(n), repeat(n, opDrop)))
	}},
	{"joins and observed floats, locals read behind", func(size int) []byte {
		n := size / 42
		locals := min(n, 40000)
		return oneBody(void(locals, increments(locals), repeat(n, skip...), floats(n), reads(locals)))
	}},
	{"selects", func(size int) []byte {
		return oneBody(void(1, repeat(size/8, opGet, 0, opGet, 0, opGet, 0, 0x1b, opDrop)))
	}},
	{"vectors", func(size int) []byte {
		return oneBody(void(0, []byte{opConst, 0, 0xfd, 15}, repeat(size/3, 0xfd, 0x60), []byte{opDrop}))
	}},
	{"vector multiplications", func(size int) []byte {
		return oneBody(body{kind: typeVoid, locals: [][2]int{{1, 0x7b}}, code: repeat(size/9, opGet, 0, opGet, 0, 0xfd, 0xd5, 1, opSet, 0)})
	}},
	{"globals", func(size int) []byte {
		n := size / 5
		return (&guest{sections: []rawSection{{6, append(leb(n), repeat(n, codeI32, 1, opConst, 0, opEnd)...)}}}).bytes()
	}},
	{"elements", func(size int) []byte {
		n := size
		content := slices.Concat([]byte{1, 1, 0}, leb(n), repeat(n, 0))
		return (&guest{sections: []rawSection{{9, content}}}).bytes()
	}},
	{"exports", func(size int) []byte {
		n := min(size/9, 90000)
		var exports [][]byte
		for i := range n {
			exports = append(exports, wasmExport(string(leb(i+1)), 0, 0))
		}
		return (&guest{exports: exports}).bytes()
	}},
	{"data", func(size int) []byte {
		n := min(size/6, 90000)
		return (&guest{sections: []rawSection{{11, append(leb(n), repeat(n, 0, opConst, 0, opEnd, 1, 7)...)}}}).bytes()
	}},
	{"types", func(size int) []byte { return (&guest{types: slices.Repeat([][]byte{{0x60, 0, 0}}, size/3)}).bytes() }},
	{"dead code with branches", func(size int) []byte {
		return oneBody(void(0, []byte{opBlock, empty, 0x00}, repeat(size/2, opBrIf, 0), []byte{opEnd}))
	}},
}

// branchTable returns a br_table of n labels in its own block.
func branchTable(n, label int) []byte {
	return slices.Concat([]byte{opBlock, empty, opConst, 0, opBrTable}, leb(n), repeat(n, leb(label)...), leb(label), []byte{opEnd})
}
