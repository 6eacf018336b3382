package verify

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Limits bound the settings of jobs from others. The zero value is safe for
// jobs of strangers: they must be metered, because only metering stops a guest
// that loops, and may have the default memory and the default depth of calls of
// a job.
type Limits struct {
	Unmetered bool   // allows jobs without metering
	Memory    uint64 // bytes of linear memory; 0 = runtime.DefaultMemory
	Stack     uint64 // bytes of nested calls; 0 = runtime.DefaultStack
}

// ErrUnmetered is returned if a job has no metering and Limits require it.
var ErrUnmetered = errors.New("the receipt's job had no metering, so nothing would stop a guest that loops")

// MemoryError is returned if a job may use more memory than Limits allow.
type MemoryError struct{ Have, Limit uint64 } // bytes

func (e *MemoryError) Error() string {
	return fmt.Sprintf("the receipt's job may use %d bytes of memory, more than the limit of %d", e.Have, e.Limit)
}

// StackError is returned if the calls of a job may take more of the stack than
// Limits allow.
type StackError struct{ Have, Limit uint64 } // bytes

func (e *StackError) Error() string {
	return fmt.Sprintf("the calls of the receipt's job may take %d bytes of the stack, more than the limit of %d", e.Have, e.Limit)
}

// Check returns [ErrUnmetered], a *[MemoryError] or a *[StackError] if the
// settings of a job exceed the limits. Without metering, the stack is not
// compared.
func (l Limits) Check(s *receipt.Settings) error {
	memory := cmp.Or(l.Memory, runtime.DefaultMemory)
	stack, most := cmp.Or(s.Stack, runtime.DefaultStack), cmp.Or(l.Stack, runtime.DefaultStack)
	switch {
	case !s.Metering && !l.Unmetered:
		return ErrUnmetered
	case s.Memory > memory:
		return &MemoryError{s.Memory, memory}
	case s.Metering && stack > most:
		return &StackError{stack, most}
	}
	return nil
}
