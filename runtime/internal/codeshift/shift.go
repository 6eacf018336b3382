// Package codeshift moves the code of modules in memory, for measurements: a loop of a
// few instructions takes up to 1.25 times as long at one place as at another.
package codeshift

import (
	"encoding/binary"
	"slices"

	wasm "github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// Positions is the number of values of n that measurements use, from 0. The engine
// aligns functions to 16 bytes, so this is every place within a line of the cache.
const Positions = 4

// step is how many instructions take about 16 bytes.
const step = 3

// Shift returns the module with some instructions more at the start of its first
// function, and n more that are never executed: what an engine makes of all other
// functions is at another place for each n. The module must define a function.
func Shift(module []byte, n int) ([]byte, error) {
	m, problems := wasm.Parse(module)
	if len(problems) > 0 {
		return nil, problems[0]
	}
	code := []byte{0x3f, 0, 0x45, 0x04, 0x40, 0x41, 0, 0x3f, 0} // if the memory has no page, store
	for range step * n {
		code = append(code, 0x41, 0xff, 0xff, 0, 0x73) // xor, of 6 bytes on amd64
	}
	code = append(code, 0x36, 2, 0, 0x0b)
	first := m.Bodies[0]
	body := slices.Concat(module[first.Start:first.Code], code, module[first.Code:first.End])
	section := m.Sections[slices.IndexFunc(m.Sections, func(s wasm.Section) bool { return s.ID == wasm.SectionCode })]
	contents := slices.Concat(module[section.Start:first.Offset], sized(body), module[first.End:section.End])
	return slices.Concat(module[:section.Head], []byte{wasm.SectionCode}, sized(contents), module[section.End:]), nil
}

func sized(b []byte) []byte { return append(binary.AppendUvarint(nil, uint64(len(b))), b...) }
