package runtime

// Reuse lets the next call start with the state of the last one, which no host
// may do. It is used to measure the cost of a reset.
func (i *Instance) Reuse() {
	if i.held != nil {
		i.held.dirty = false
	}
}

// FailMemory calls fault before each system call for a memory that is created
// from now on, until restore is called.
func FailMemory(fault func(call string) error) (restore func()) {
	memoryFault = fault
	return func() { memoryFault = nil }
}

// CompilerPanic returns the error of a compilation that panicked with p.
func CompilerPanic(p any) error { return compilerPanic(p) }

// HoldCompilations calls hook before each compilation, until restore is called.
func HoldCompilations(hook func()) (restore func()) {
	compileHook = hook
	return func() { compileHook = nil }
}

// IsInterpreted reports whether the compiler has not finished a module that started
// on the interpreter.
func IsInterpreted(m *Module) bool { return m.code.Load().provisional }

// After is the log of a call that is made again, when the first attempt has logged a
// number of lines.
var After = after

// Interprets reports whether the last call of an instance was interpreted.
func (i *Instance) Interprets() bool { return i.held != nil && i.held.code.interpreted }

// SetPatience sets the fuel that calls on the interpreter may use.
func SetPatience(m *Module, fuel int64) { m.patience = fuel }
