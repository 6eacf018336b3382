package rewrite

import (
	"cmp"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// maxGap is the maximum number of zeros between two data segments that are
// joined. Go's linker omits each run of a few zeros: a guest of 3 MB has 38,000
// segments. An engine takes 20 ms to read and copy them at each start, and part
// of that for each new instance.
const maxGap = 32

var zeros [maxGap]byte

// segment is a data segment that is copied to a fixed address at the start.
type segment struct {
	at    uint32
	bytes []byte
}

func (s segment) end() uint64 { return uint64(s.at) + uint64(len(s.bytes)) }

// joinData returns the data segments of a module in the order of their
// addresses, with close ones joined. It returns nil if that could be observed:
// if instructions refer to segments, if addresses overlap or are not constant,
// or if the memory is the host's and may have content in between.
//
// Segments that do not fit in the memory are refused by the engine as before,
// because the end of the last segment is the same.
func joinData(wasm []byte, m *binary.Module) []segment {
	start, end := section(m, binary.SectionData)
	if start == end || m.NamesData || slices.ContainsFunc(m.Imports, func(i binary.Import) bool { return i.Kind == binary.KindMemory }) {
		return nil
	}
	src := source{wasm, start}
	all := make([]segment, src.u32())
	for i := range all {
		if src.u32() != 0 || binary.Op(src.byte()) != binary.OpI32Const {
			return nil
		}
		all[i].at = uint32(src.s32())
		if binary.Op(src.byte()) != binary.OpEnd {
			return nil
		}
		all[i].bytes = src.bytes()
	}
	slices.SortStableFunc(all, func(a, b segment) int { return cmp.Compare(a.at, b.at) })
	var joined []segment
	for _, s := range all {
		if last := len(joined) - 1; last < 0 || uint64(s.at) > joined[last].end()+maxGap {
			s.bytes = slices.Clip(s.bytes) // copied when it is appended to
			joined = append(joined, s)
			continue
		}
		last := &joined[len(joined)-1]
		if uint64(s.at) < last.end() {
			return nil
		}
		last.bytes = append(append(last.bytes, zeros[:uint64(s.at)-last.end()]...), s.bytes...)
	}
	return joined
}

// dataSegments writes the joined segments.
func (w *module) dataSegments() []byte {
	out := appendU32(nil, uint32(len(w.data)))
	for _, s := range w.data {
		out = append(out, 0, byte(binary.OpI32Const))
		out = append(appendS64(out, int64(int32(s.at))), byte(binary.OpEnd))
		out = append(appendU32(out, uint32(len(s.bytes))), s.bytes...)
	}
	return out
}
