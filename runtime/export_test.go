package runtime

// Reuse leaves the next call the state that the last one left behind, which no
// host may do: it shows what a reset costs.
func (i *Instance) Reuse() {
	if i.held != nil {
		i.held.dirty = false
	}
}
