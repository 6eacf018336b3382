package rewrite_test

import (
	"encoding/binary"

	wasm "github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

const countExport = "executed instructions"

// counted implements the cost table of METERING.md in the simplest way: it adds
// to a global before every instruction. It shares only the instruction reader
// with the rewriter.
func counted(b []byte, m *wasm.Module) ([]byte, error) {
	c := &counter{wasm: b, m: m, global: uint64(len(m.Globals))}
	out := append([]byte{}, b[:8]...)
	for _, id := range []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 10, 11} {
		contents := []byte{}
		for _, s := range m.Sections {
			if s.ID == id {
				contents = b[s.Start:s.End]
			}
		}
		switch id {
		case 6:
			contents = entry(contents, []byte{0x7e, 1, 0x42, 0, 0x0b})
		case 7:
			name := append(binary.AppendUvarint(nil, uint64(len(countExport))), countExport...)
			contents = entry(contents, binary.AppendUvarint(append(name, 3), c.global))
		case 10:
			if len(contents) > 0 {
				contents = c.code()
			}
		}
		if len(contents) > 0 {
			out = append(binary.AppendUvarint(append(out, id), uint64(len(contents))), contents...)
		}
	}
	return out, nil
}

// entry appends an entry to a vector.
func entry(vector, entry []byte) []byte {
	n, size := binary.Uvarint(vector)
	out := binary.AppendUvarint(nil, n+1)
	return append(append(out, vector[max(size, 0):]...), entry...)
}

type counter struct {
	wasm   []byte
	m      *wasm.Module
	global uint64
}

func (c *counter) code() []byte {
	out := binary.AppendUvarint(nil, uint64(len(c.m.Bodies)))
	for i, b := range c.m.Bodies {
		params := len(c.m.FuncType(uint32(c.m.ImportedFunctions + i)).Params)
		length := uint64(params + b.Locals) // a local of type i32, and the next one
		body := entry(c.wasm[b.Start:b.Code], []byte{2, 0x7f})
		r := wasm.NewReader(c.wasm, b.Code, b.End)
		for r.More() {
			in := r.Next()
			if in.Op != wasm.OpEnd && in.Op != wasm.OpElse {
				body = c.add(body, 0x42, 1)
			}
			body = c.sized(body, in, length)
		}
		out = append(binary.AppendUvarint(out, uint64(len(body))), body...)
	}
	return out
}

// add adds the value that the instructions leave to the counter.
func (c *counter) add(body []byte, instructions ...byte) []byte {
	body = binary.AppendUvarint(append(body, 0x23), c.global)
	body = append(append(body, instructions...), 0x7c)
	return binary.AppendUvarint(append(body, 0x24), c.global)
}

// sized copies an instruction and counts its cost by size.
func (c *counter) sized(body []byte, in wasm.Instr, length uint64) []byte {
	get := func(local uint64) []byte { return binary.AppendUvarint([]byte{0x20}, local) }
	tee := func(local uint64) []byte { return binary.AppendUvarint([]byte{0x22}, local) }
	code := c.wasm[in.Offset:in.End]
	switch in.Op {
	case wasm.OpMemoryFill, wasm.OpMemoryCopy, wasm.OpMemoryInit:
		body = c.add(append(body, tee(length)...), append(get(length), 0xad, 0x42, 3, 0x88)...)
	case wasm.OpTableFill, wasm.OpTableCopy, wasm.OpTableInit:
		body = c.add(append(body, tee(length)...), append(get(length), 0xad)...)
	case wasm.OpMemoryGrow, wasm.OpTableGrow:
		body = append(append(body, tee(length)...), code...)
		body = append(body, tee(length+1)...)
		units := []byte{0xad, 0x42, 0x80, 0xc0, 0, 0x7e} // 8192 per page
		if in.Op == wasm.OpTableGrow {
			units = []byte{0xad}
		}
		units = append(append(get(length), units...), 0x42, 0)
		units = append(append(units, get(length+1)...), 0x41, 0x7f, 0x47, 0x1b) // 0 if it failed
		return c.add(body, units...)
	}
	return append(body, code...)
}
