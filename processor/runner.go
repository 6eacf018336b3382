package processor

import (
	"context"
	"errors"
	goruntime "runtime"

	"github.com/wasm-jobs/wasm-jobs/host/lending"
	"github.com/wasm-jobs/wasm-jobs/host/values"
)

// Runner runs requests. It is safe for concurrent use.
type Runner[In, Out any] interface {
	// Run runs one request. The error is an *[abi.Failure] if a guest failed, ctx's
	// if ctx ended first, [ErrClosed] after the runner was closed, or an error of the
	// runner's own.
	Run(ctx context.Context, in In) (Result[Out], error)
}

// Appender runs requests of bytes: a request and its output are one CBOR item
// each.
type Appender interface {
	Runner[[]byte, []byte]
	// Append runs a request and appends its output to dst: Output of the result is
	// the extended buffer. in is only read. dst must not be used after an error.
	Append(ctx context.Context, in, dst []byte) (Result[[]byte], error)
}

// Result is the output of a request, and its cost.
type Result[Out any] struct {
	Output Out
	Fuel   uint64 // of the call that gave the output; 0 = unknown
	Reused bool   // nothing was executed for this request
}

// Errors of runners.
var (
	// ErrClosed is returned after Close.
	ErrClosed = errors.New("the runner is closed")
	// ErrInput says that a request is not one CBOR item.
	ErrInput = errors.New("the request is not one CBOR item")
)

// Typed runs requests of Go values over a runner of bytes, as package
// host/values encodes them. An output that does not fit Out is an error.
func Typed[In, Out any](r Runner[[]byte, []byte]) Runner[In, Out] { return typed[In, Out]{r} }

type typed[In, Out any] struct{ of Runner[[]byte, []byte] }

func (t typed[In, Out]) Run(ctx context.Context, in In) (result Result[Out], err error) {
	request, err := values.Encode(in)
	if err != nil {
		return result, err
	}
	got, err := t.of.Run(ctx, request)
	if err != nil {
		return result, err
	}
	result.Fuel, result.Reused = got.Fuel, got.Reused
	return result, values.Decode(got.Output, &result.Output)
}

// Function is a runner that calls a Go function. The caller must close it.
type Function[Resource, In, Out any] struct {
	lender *lending.Lender[*resource[Resource]]
	open   func(ctx context.Context) (Resource, error)
	run    func(ctx context.Context, r Resource, in In) (Out, error)
	close  func(r Resource) error
}

// resource is a resource of a function, once opened. Only its borrower may use it.
type resource[R any] struct {
	value  R
	opened bool
}

// Func returns a runner that calls run. At most workers calls, or GOMAXPROCS if it is
// below 1, run at once, each with a resource that no other call uses meanwhile. open makes a resource when it is first
// needed. Close of the runner calls close, which may be nil, with each resource.
//
// If open fails, the request fails, and the next one calls open again.
func Func[Resource, In, Out any](workers int, open func(ctx context.Context) (Resource, error),
	run func(ctx context.Context, r Resource, in In) (Out, error), close func(r Resource) error) *Function[Resource, In, Out] {
	if workers < 1 {
		workers = goruntime.GOMAXPROCS(0)
	}
	f := &Function[Resource, In, Out]{open: open, run: run, close: close}
	f.lender = lending.New(workers, func() *resource[Resource] { return &resource[Resource]{} })
	return f
}

// Run implements [Runner].
func (f *Function[Resource, In, Out]) Run(ctx context.Context, in In) (result Result[Out], err error) {
	r, err := f.lender.Borrow(ctx)
	if err != nil {
		return result, closedError(err)
	}
	defer f.lender.GiveBack(r)
	if !r.opened {
		if r.value, err = f.open(ctx); err != nil {
			return result, err
		}
		r.opened = true
	}
	result.Output, err = f.run(ctx, r.value, in)
	return result, err
}

// Close waits for the running calls, and closes the resources. Waiting and later
// calls return [ErrClosed]. Further calls of Close do nothing.
func (f *Function[Resource, In, Out]) Close() error {
	var errs []error
	f.lender.Close(func(r *resource[Resource]) {
		if r.opened && f.close != nil {
			errs = append(errs, f.close(r.value))
		}
	})
	return errors.Join(errs...)
}

// closedError turns lending.ErrClosed into [ErrClosed].
func closedError(err error) error {
	if errors.Is(err, lending.ErrClosed) {
		return ErrClosed
	}
	return err
}
