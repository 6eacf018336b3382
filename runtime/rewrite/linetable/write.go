package linetable

import "encoding/binary"

// Writer writes a table with one unit for the code of a module, in version 4. Its
// zero value works.
type Writer struct {
	program []byte
	files   map[string]uint64
	names   []byte
	state
	started bool
}

// The parameters of the written table. No special opcodes are used.
const (
	writtenBase     = 1
	writtenRange    = 1
	writtenOpcodes  = 13
	unknownFile     = "?"
	writtenVersion  = 4
	writtenAddress  = 4 // bytes
	sequenceAtStart = 1 // an address of 0 means that there is no code
)

// Add says that the code from an address on comes from a line; line 0 means that
// the line is not known. Addresses must not decrease.
func (w *Writer) Add(address uint32, file string, line uint32) {
	if line == 0 {
		file = unknownFile
	}
	n := w.file(file)
	if w.started && n == w.state.file && uint64(line) == w.line || uint64(address) < w.address {
		return
	}
	if !w.started {
		w.started = true
		w.state = state{sequenceAtStart, firstFile, 1}
		w.program = binary.LittleEndian.AppendUint32(append(w.program, opExtended, 1+writtenAddress, opSetAddress), sequenceAtStart)
	}
	w.advance(max(address, sequenceAtStart))
	if n != w.state.file {
		w.program = binary.AppendUvarint(append(w.program, opSetFile), n)
	}
	w.program = appendSigned(append(w.program, opAdvanceLine), int64(line)-int64(w.line))
	w.program = append(w.program, opCopy)
	w.state.file, w.line = n, uint64(line)
}

func (w *Writer) advance(address uint32) {
	w.program = binary.AppendUvarint(append(w.program, opAdvancePC), uint64(address)-w.address)
	w.address = uint64(address)
}

// file returns the number of a file.
func (w *Writer) file(name string) uint64 {
	n, ok := w.files[name]
	switch {
	case ok:
		return n
	case len(w.files) == maxFiles && name != unknownFile: // of which there is room for one
		return w.file(unknownFile)
	}
	if w.files == nil {
		w.files = map[string]uint64{}
	}
	n = uint64(len(w.files) + 1)
	w.files[name] = n
	w.names = append(append(w.names, name...), 0, 0, 0, 0) // no directory, time and size
	return n
}

func appendSigned(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

// Written are the contents of the sections of a written table.
type Written struct{ Info, Abbrev, Line []byte }

// Finish returns the table of code of the given size. It is zero if nothing was
// added.
func (w *Writer) Finish(size uint32) (out Written) {
	if !w.started {
		return out
	}
	w.advance(max(size, uint32(w.address)))
	w.program = append(w.program, opExtended, 1, opEndSequence)
	head := []byte{1, 1, 1, writtenBase, writtenRange, writtenOpcodes, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1, 0}
	head = append(append(head, w.names...), 0)
	line := binary.LittleEndian.AppendUint16(nil, writtenVersion)
	line = binary.LittleEndian.AppendUint32(line, uint32(len(head)))
	out.Line = sized(append(append(line, head...), w.program...))
	// One entry, a compilation unit without children: its table at 0, its first
	// address and its size.
	out.Abbrev = []byte{1, 0x11, 0, 0x10, 0x17, 0x11, 0x01, 0x12, 0x06, 0, 0, 0}
	info := binary.LittleEndian.AppendUint16(nil, writtenVersion)
	info = append(binary.LittleEndian.AppendUint32(info, 0), writtenAddress, 1)
	for _, v := range []uint32{0, sequenceAtStart, max(size, sequenceAtStart) - sequenceAtStart} {
		info = binary.LittleEndian.AppendUint32(info, v)
	}
	out.Info = sized(info)
	return out
}

func sized(unit []byte) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(unit))), unit...)
}

// IsUnknown reports whether a file of a written table means that the line is not
// known.
func IsUnknown(file string) bool { return file == unknownFile }
