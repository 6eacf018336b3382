package binary

// Unbalanced counts ends of blocks in a valid module. It returns how many
// reachable ends do not have the operands on the stack that the type of the block
// requires, and how many ends were checked.
func Unbalanced(wasm []byte) (wrong, ends int) {
	m, problems := Parse(wasm)
	if len(problems) > 0 {
		return 0, 0
	}
	w := weigher{m: m}
	for i, b := range m.Bodies {
		w.start(m.FuncType(uint32(m.ImportedFunctions+i)), b.Locals)
		dead := 0 // blocks opened in unreachable code
		for r := NewReader(wasm, b.Code, b.End); r.More(); {
			in := r.Next()
			switch {
			case dead > 0 && (in.Op == OpBlock || in.Op == OpLoop || in.Op == OpIf):
				dead++
			case dead > 0 && in.Op == OpEnd:
				dead--
			case dead == 1 && in.Op == OpElse:
				dead = 0
			case dead == 0 && (in.Op == OpEnd || in.Op == OpElse):
				l := w.top()
				if ends++; w.height != l.height+l.results {
					wrong++
				}
			}
			w.instruction(in)
			if dead == 0 && (in.Op == OpBr || in.Op == OpBrTable || in.Op == OpReturn || in.Op == OpUnreachable) {
				dead = 1
			}
		}
	}
	return wrong, ends
}
