package rewrite

import "github.com/wasm-jobs/wasm-jobs/runtime/binary"

// canonical replaces the value on the operand stack by the canonical NaN if it
// is a NaN, lane by lane.
func (e *emitter) canonical(out []byte, s *site) []byte {
	switch s.kind {
	case scalar32:
		return e.canonicalScalar(out, s, binary.F32, append(appendOp(nil, binary.OpF32Const), nan32[:]...), opF32Ge)
	case scalar64:
		return e.canonicalScalar(out, s, binary.F64, append(appendOp(nil, binary.OpF64Const), nan64[:]...), opF64Ge)
	case lanes32:
		return e.canonicalLanes(out, nan32[:], opF32x4)
	}
	return e.canonicalLanes(out, nan64[:], opF64x2)
}

// canonicalScalar compares with >=, which is also false for a NaN, because the
// engine needs fewer instructions for it than for ==. A branch is faster than a
// select, which waits for the comparison, and an if with an else is faster than a
// block with a br_if: METERING.md has the figures.
func (e *emitter) canonicalScalar(out []byte, s *site, t binary.ValueType, nan []byte, equal binary.Op) []byte {
	local := e.scratch[scratchOf(s.kind)]
	if s.shared {
		e.module.fixed(1)
	}
	switch {
	case e.branches:
		out = appendIndexed(out, binary.OpLocalTee, local)
		out = appendOp(appendIndexed(out, binary.OpLocalGet, local), equal)
		out = append(appendOp(out, binary.OpIf), byte(t))
		out = appendOp(appendIndexed(out, binary.OpLocalGet, local), binary.OpElse)
		return appendOp(append(out, nan...), binary.OpEnd)
	case s.shared:
		// It is the second operand of the select, because the first must not be
		// loaded again (lost-select).
		out = append(appendIndexed(out, binary.OpLocalSet, local), nan...)
		out = appendIndexed(out, binary.OpLocalGet, local)
		return appendOp(appendOp(appendEqual(out, local, equal), opI32Eqz), opSelect)
	}
	out = append(appendIndexed(out, binary.OpLocalTee, local), nan...)
	return appendOp(appendEqual(out, local, equal), opSelect)
}

// appendEqual compares a local with itself.
func appendEqual(out []byte, local uint32, equal binary.Op) []byte {
	out = appendIndexed(out, binary.OpLocalGet, local)
	return appendOp(appendIndexed(out, binary.OpLocalGet, local), equal)
}

const (
	// siteSize is more than the bytes of any insertion.
	siteSize = 48
	// maxGrowth keeps code that is made longer by branches below what Rewrite
	// promises.
	maxGrowth = 10
)

// affordsBranches decides whether scalars in the function, whose instructions are
// done, become canonical by branches. Each is a join of code, and costs a
// compiler work for each local. What they cost is taken from what the module may
// spend, in the order of its functions; when it is spent, or if the code would
// grow too long, there are selects.
func (e *emitter) affordsBranches(b binary.Body) bool {
	sites, scalars := 0, 0
	for i := range e.sites {
		switch s := &e.sites[i]; {
		case s.what == unneeded:
		case s.what == canonicalize && s.kind <= scalar64:
			scalars++
			fallthrough
		default:
			sites++
		}
	}
	size, grown := b.End-b.Code, len(e.code)+sites*siteSize
	j := binary.Joins{Count: scalars, Locals: len(e.types) + len(e.newLocals), Height: e.height, Depth: e.depth, Size: size}
	if grown > min(maxGrowth*size, maxBody) || j.Time() > e.module.spare || j.Memory() > binary.JoinMemory {
		return false
	}
	e.module.spare -= j.Time()
	return true
}

func (e *emitter) canonicalLanes(out, nan []byte, equal binary.Op) []byte {
	local := e.scratch[scratchV128]
	out = appendLanes(appendIndexed(out, binary.OpLocalTee, local), nan)
	out = appendIndexed(out, binary.OpLocalGet, local)
	out = appendIndexed(out, binary.OpLocalGet, local)
	return appendOp(appendOp(out, equal), opChoose)
}

// The canonical NaNs (Core Specification, section 2.2.3), with the sign clear.
var (
	nan32 = [4]byte{0, 0, 0xc0, 0x7f}
	nan64 = [8]byte{0, 0, 0, 0, 0, 0, 0xf8, 0x7f}
)

func appendLanes(out, lane []byte) []byte {
	out = appendOp(out, binary.OpV128Const)
	for range 16 / len(lane) {
		out = append(out, lane...)
	}
	return out
}

func scratchOf(k kind) int {
	switch k {
	case scalar32:
		return scratchF32
	case scalar64:
		return scratchF64
	}
	return scratchV128
}
