// Package replay runs a failed chunk again from its bundle, and reports whether
// it ends in the same way.
//
//	b, err := bundle.Decode(file)
//	...
//	r, err := replay.Run(ctx, b, wasm, replay.Options{Trace: 1000})
//	...
//	fmt.Println(r.Same(), r.Replayed.Failure)
//
// A bundle does not contain the module: the caller has it, and [Run] checks
// that it is the same one. A bundle is data from others. It has its own limits
// of fuel, time and memory, from the recorded job, so set a deadline on the
// context if they may be too high.
package replay

import (
	"context"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/host/guest"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// Options configure a replay. The zero Options compile in memory, and do not
// trace.
type Options struct {
	// Dirs are the directories that a WASI command could read, in any order;
	// see [MatchDirs].
	Dirs []wasi.Dir
	// CacheDir stores compiled code, as in [runtime.Config].
	CacheDir string
	// Interpreter runs the chunk on the interpreter, which fails at 2,000
	// nested calls.
	Interpreter bool
	// Trace is the number of lines of a trace: half of them from the start of
	// the call, half from its end. 0 means no trace; otherwise the chunk is run
	// a second time.
	Trace int
	// Memory is called with the linear memory at the end of the call, which is
	// valid until Memory returns. It is not called if no instance could be
	// created; it may be nil. Its error ends the replay.
	Memory func(memory []byte) error
}

// Replay is the result of running a chunk again.
type Replay struct {
	Recorded guest.CallResult // from the bundle: a failure
	Replayed guest.CallResult
	Compared []Comparison // the properties that could be compared, in the order of the fields of a failure
	Notes    []Note       // about the comparison
	Trace    *Trace       // nil without a trace
	Traced   guest.CallResult
}

// Comparison compares one property of both calls.
type Comparison struct {
	What Property `json:"what"`
	Same bool     `json:"same"`
}

// Property is a property of a call.
type Property string

// The properties that are compared.
const (
	Class   Property = "class"
	Message Property = "message"
	Stack   Property = "stack"
	Fuel    Property = "fuel"
)

// Note is additional information about a comparison.
type Note string

// The notes, in their order in Replay.Notes.
const (
	// TracedOtherwise: the traced call, which is slower, ended in another way:
	// see Replay.Traced.
	TracedOtherwise Note = "the traced call ended otherwise"
	// TimeoutVaries: one of the calls ended with a timeout, which depends on
	// the machine; fuel is not compared.
	TimeoutVaries Note = "a timeout depends on the machine"
	// FuelUnknown: fuel is not compared, because metering is off or no call was
	// made.
	FuelUnknown Note = "fuel is not known"
	// BudgetNoticed: both calls ran out of fuel, which is noticed at the next
	// check of the budget. The position of these checks is not part of the
	// metering version, so fuel is not compared.
	BudgetNoticed Note = "both ran out of fuel"
	// InterpreterDepth: the interpreter ended the call with class host, as it
	// does at 2,000 nested calls.
	InterpreterDepth Note = "the interpreter ends at 2,000 nested calls"
	// TextShortened: the bundle has only part of the failure's text. Its
	// message is compared up to its end, and the stack is not compared.
	TextShortened Note = "the recorded text is not whole"
	// EarlierBuild: the bundle has the engine's words about a trap, as earlier
	// builds recorded them, and is compared with those.
	EarlierBuild Note = "the failure is in the words of an earlier build"
	// HostFailed: the recorded failure was caused by the machine of the job.
	HostFailed Note = "the host failed"
)

// Same reports whether the call ended as recorded, as far as that was compared.
func (r *Replay) Same() bool {
	return !slices.ContainsFunc(r.Compared, func(c Comparison) bool { return !c.Same })
}

// Run runs the chunk of a bundle again. It returns after the call has ended and
// its runtime is closed.
//
// The error is a *[ModuleError] or a *[DirError] if wasm or the directories are
// not those of the bundle, a *[runtime.RefusedError], a *[runtime.InitError],
// the error of o.Memory, or ctx's.
func Run(ctx context.Context, b *bundle.Bundle, wasm []byte, o Options) (*Replay, error) {
	if err := CheckModule(b, wasm); err != nil {
		return nil, err
	}
	settings := b.Settings
	var err error
	if settings.Command.Dirs, err = MatchDirs(b, o.Dirs); err != nil {
		return nil, err
	}
	c := &call{wasm: wasm, chunk: b.Chunk, options: b.Options, settings: settings}
	r := &Replay{Recorded: guest.CallResult{Failure: &b.Failure, Fuel: b.Failure.Fuel, Done: true}}
	config := runtime.Config{CacheDir: o.CacheDir}
	if o.Interpreter {
		config = runtime.Config{Interpreter: true}
	}
	if r.Replayed, err = c.run(ctx, config, o.Memory); err != nil {
		return nil, err
	}
	if o.Trace > 0 {
		if err := r.trace(ctx, c, config, o.Trace); err != nil {
			return nil, err
		}
	}
	r.compare(o.Interpreter, b.Shortened)
	return r, nil
}

// call is the call that a bundle describes.
type call struct {
	wasm, chunk []byte
	options     runtime.Options
	settings    runtime.Settings
}

// run makes the call on its own runtime. memory, unless nil, gets the linear
// memory at the end.
func (c *call) run(ctx context.Context, config runtime.Config, memory func([]byte) error) (result guest.CallResult, err error) {
	r, err := runtime.New(ctx, config)
	if err != nil {
		return result, err
	}
	defer r.Close(context.WithoutCancel(ctx))
	m, err := r.Compile(ctx, c.wasm, c.options)
	if err != nil {
		return result, err
	}
	pool, err := m.Prepare(ctx, c.settings)
	if err != nil {
		return result, err
	}
	defer pool.Close()
	instance := pool.Borrow(nil)
	defer instance.Release()
	var memoryErr error
	if memory != nil {
		instance.OnReturn(func(b []byte) { memoryErr = memory(b) })
	}
	if t, ok := config.Tracer.(*tracer); ok {
		t.start(m.Description())
	}
	if result, err = guest.Call(ctx, instance, abi.ExportExec, c.chunk); err != nil {
		return result, err
	}
	if result.Failure != nil {
		result.Fuel = result.Failure.Fuel
	}
	return result, memoryErr
}

// trace makes the call again, and records the functions that it calls.
func (r *Replay) trace(ctx context.Context, c *call, config runtime.Config, limit int) (err error) {
	t := newTracer(limit)
	config.CacheDir, config.Tracer = "", t
	if r.Traced, err = c.run(ctx, config, nil); err != nil {
		return err
	}
	r.Trace = t.trace()
	if !r.Traced.Same(&r.Replayed) {
		r.note(TracedOtherwise)
	}
	return nil
}

func (r *Replay) note(n Note) { r.Notes = append(r.Notes, n) }

// compare compares the properties that can be compared. The recorded result is
// a failure.
func (r *Replay) compare(interpreter, shortened bool) {
	was, is := r.Recorded.Failure, r.Replayed.Failure
	if earlier(was, is) {
		is = is.Engine
		r.note(EarlierBuild)
	}
	add := func(what Property, same bool) { r.Compared = append(r.Compared, Comparison{what, same}) }
	add(Class, is != nil && was.Class == is.Class)
	add(Message, is != nil && (was.Message == is.Message || shortened && beginsLike(is.Message, was.Message)))
	if shortened {
		r.note(TextShortened)
	} else {
		add(Stack, slices.Equal(was.Stack, stackOf(is)))
	}
	switch {
	case has(was, abi.ClassTimeout) || has(is, abi.ClassTimeout):
		r.note(TimeoutVaries)
	case has(was, abi.ClassFuel) && has(is, abi.ClassFuel):
		r.note(BudgetNoticed)
	case r.Recorded.Fuel == 0 || r.Replayed.Fuel == 0:
		r.note(FuelUnknown)
	default:
		add(Fuel, r.Recorded.Fuel == r.Replayed.Fuel)
	}
	if interpreter && has(is, abi.ClassHost) {
		r.note(InterpreterDepth)
	}
	if has(was, abi.ClassHost) {
		r.note(HostFailed)
	}
}

// earlier reports whether a failure was recorded in the engine's words, which the
// failure of the replay has too.
func earlier(was, is *abi.Failure) bool {
	if is == nil || is.Engine == nil || was.Message == is.Message && slices.Equal(was.Stack, is.Stack) {
		return false
	}
	return was.Message == is.Engine.Message && (len(was.Stack) == 0 || slices.Equal(was.Stack, is.Engine.Stack))
}

// beginsLike reports whether a message starts like the shortened one.
func beginsLike(message, shortened string) bool {
	beginning, cut := strings.CutSuffix(shortened, "...")
	return cut && strings.HasPrefix(message, beginning)
}

func has(f *abi.Failure, class abi.Class) bool { return f != nil && f.Class == class }

func stackOf(f *abi.Failure) []string {
	if f == nil {
		return nil
	}
	return f.Stack
}
