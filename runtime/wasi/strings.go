package wasi

import (
	"fmt"
	"strings"

	"github.com/tetratelabs/wazero/api"
)

// maxStrings limits arguments, and the environment, in bytes: the default limit of
// Linux for both together.
const maxStrings = 2 << 20

// Strings are arguments or an environment in the form that guests get: each string
// ends with a NUL. They do not change and may be shared by states. A nil *Strings
// is empty.
type Strings struct {
	offsets []uint32
	bytes   []byte
}

// NewStrings returns an error for a string with a NUL, which a guest would see
// truncated, and for more than 2 MiB of strings.
func NewStrings(values ...string) (*Strings, error) {
	s := &Strings{}
	for i, v := range values {
		if strings.IndexByte(v, 0) >= 0 {
			return nil, fmt.Errorf("invalid string %d (%.40q): it holds a NUL", i, v)
		}
		if len(s.bytes)+len(v)+1+4*(i+1) > maxStrings {
			return nil, fmt.Errorf("too large: want at most %d bytes of strings", maxStrings)
		}
		s.offsets = append(s.offsets, uint32(len(s.bytes)))
		s.bytes = append(append(s.bytes, v...), 0)
	}
	return s, nil
}

var noStrings Strings

func (s *Strings) orNone() *Strings {
	if s == nil {
		return &noStrings
	}
	return s
}

func argsGet(s *State, m api.Memory, p []uint64) errno {
	return s.copyStrings(s.Args.orNone(), m, p[0], p[1])
}

func argsSizesGet(s *State, m api.Memory, p []uint64) errno {
	a := s.Args.orNone()
	return writeUint32s(m, p[0], uint32(len(a.offsets)), p[1], uint32(len(a.bytes)))
}

func environGet(s *State, m api.Memory, p []uint64) errno {
	return s.copyStrings(s.Env.orNone(), m, p[0], p[1])
}

func environSizesGet(s *State, m api.Memory, p []uint64) errno {
	e := s.Env.orNone()
	return writeUint32s(m, p[0], uint32(len(e.offsets)), p[1], uint32(len(e.bytes)))
}

// copyStrings writes the address of each string to array, and the strings to
// buf.
func (s *State) copyStrings(from *Strings, m api.Memory, array, buf uint64) errno {
	addresses, e1 := view(m, array, uint64(4*len(from.offsets)))
	to, e2 := view(m, buf, uint64(len(from.bytes)))
	if e1 != success || e2 != success {
		return errFault
	}
	for rest := len(addresses) + len(to); rest > 0; rest -= piece {
		s.charge(min(rest, piece))
	}
	for i, offset := range from.offsets {
		le.PutUint32(addresses[4*i:], uint32(buf)+offset)
	}
	copy(to, from.bytes)
	return success
}
