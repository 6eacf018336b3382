package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

func appendU32(b []byte, v uint32) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}

func appendS64(b []byte, v int64) []byte {
	for v < -64 || v > 63 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v)&0x7f)
}

func appendName(b []byte, name string) []byte {
	return append(appendU32(b, uint32(len(name))), name...)
}

func appendOp(b []byte, op binary.Op) []byte {
	if op > 0xff {
		return appendU32(append(b, byte(op>>8)), uint32(op&0xff))
	}
	return append(b, byte(op))
}

func appendIndexed(b []byte, op binary.Op, index uint32) []byte {
	return appendU32(appendOp(b, op), index)
}

func appendSection(b []byte, id byte, contents []byte) []byte {
	return append(appendU32(append(b, id), uint32(len(contents))), contents...)
}

// source reads contents that [binary.Parse] has already read without a problem.
type source struct {
	b   []byte
	pos int
}

func (s *source) byte() byte {
	s.pos++
	return s.b[s.pos-1]
}

func (s *source) u32() (v uint32) {
	for shift := 0; ; shift += 7 {
		b := s.byte()
		v |= uint32(b&0x7f) << shift
		if b < 0x80 {
			return v
		}
	}
}

func (s *source) s32() int32 {
	v, shift := int64(0), 0
	for {
		b := s.byte()
		v |= int64(b&0x7f) << shift
		if shift += 7; b < 0x80 {
			return int32(v << (64 - shift) >> (64 - shift))
		}
	}
}

// bytes returns a vector of bytes, such as a name.
func (s *source) bytes() []byte {
	n := int(s.u32())
	s.pos += n
	return s.b[s.pos-n : s.pos]
}
