package abi

import "encoding/binary"

// AppendHead appends the shortest head of a CBOR item of the given major type.
func AppendHead(dst []byte, major byte, arg uint64) []byte {
	m := major << 5
	switch {
	case arg < 24:
		return append(dst, m|byte(arg))
	case arg <= 0xff:
		return append(dst, m|24, byte(arg))
	case arg <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, m|25), uint16(arg))
	case arg <= 0xffffffff:
		return binary.BigEndian.AppendUint32(append(dst, m|26), uint32(arg))
	default:
		return binary.BigEndian.AppendUint64(append(dst, m|27), arg)
	}
}

// AppendText appends s, which must be valid UTF-8, as a CBOR text.
func AppendText(dst []byte, s string) []byte {
	return append(AppendHead(dst, MajorText, uint64(len(s))), s...)
}

// AppendEntry appends the two-element array [id, item]: an element of the input
// of aggregate, and a leaf of the Merkle trees over inputs and outputs.
func AppendEntry(dst []byte, id ID, item []byte) []byte {
	return append(id.AppendCBOR(append(dst, MajorArray<<5|2)), item...)
}

// AppendOutput appends the map {"id": id, "output": output}: an element of an
// outputs file, which is itself a chunk file with the same ids.
func AppendOutput(dst []byte, id ID, output []byte) []byte {
	dst = append(dst, MajorMap<<5|2)
	dst = id.AppendCBOR(AppendText(dst, "id"))
	return append(AppendText(dst, "output"), output...)
}

// Null is the CBOR item null: the input of setup if a job has no context.
var Null = []byte{0xf6}
