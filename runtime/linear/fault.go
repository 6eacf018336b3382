package linear

// fault is [Options.Fault]; nil fails nothing.
type fault func(call string) error

// of returns the error to use instead of making the call, or nil.
func (f fault) of(call string) error {
	if f == nil {
		return nil
	}
	return f(call)
}

// or makes a call, unless the fault gives an error for it.
func (f fault) or(call string, do func() error) error {
	if err := f.of(call); err != nil {
		return err
	}
	return do()
}
