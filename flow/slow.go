package flow

import (
	"errors"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// SlowDown is the error of an effect that was told to slow down. It is not a
// failure: the step is made again, and its limit pauses.
type SlowDown struct {
	After time.Duration // as the service said; 0 = it did not say
	Err   error
}

func (e *SlowDown) Error() string { return "told to slow down: " + e.Err.Error() }

// Unwrap returns the cause.
func (e *SlowDown) Unwrap() error { return e.Err }

// slowDowns has the slow-downs on their way from an instance to its lane. They pass
// through a worker, which only knows failures.
var slowDowns sync.Map // of *abi.Failure to time.Duration

func slowDownOf(f *abi.Failure) (time.Duration, bool) {
	after, told := slowDowns.LoadAndDelete(f)
	if !told {
		return 0, false
	}
	return after.(time.Duration), true
}

// asFailure converts an effect's error to one that a worker accepts.
func asFailure(err error) error {
	slow, told := errors.AsType[*SlowDown](err)
	if !told {
		return err
	}
	f := abi.Failf(abi.ClassRequeued, "%s", slow.Error())
	slowDowns.Store(f, slow.After)
	return f
}

// Field returns the value of a key of the data's top level, if the data is a map and
// the value is a text or an unsigned integer.
func Field(data []byte, key string) (text string, ok bool) {
	id, ok, err := abi.FindID(data, key)
	if err != nil || !ok {
		return "", false
	}
	return idText(id), true
}

// keyOf returns the data's value of a limit's key; "" if it has none.
func keyOf(data []byte, key string) (value string) {
	if key != "" {
		value, _ = Field(data, key)
	}
	return value
}
