package check

import (
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Remark is one observation about a module. The kind determines which other fields
// are set.
type Remark struct {
	Kind       Kind
	Call       string       // name of a call
	Detail     string       // one line
	Failure    *abi.Failure // of a call
	Probe      *Probe       // the probe that differs
	Difference *Difference
}

// Kind is the subject of a remark, in short.
type Kind string

// The kinds of hints: possible improvements.
const (
	MergeUnused     Kind = "merge is never called"                  // there is no aggregate
	NoMerge         Kind = "aggregate gets all outputs in one call" // there is no merge
	NoNames         Kind = "no names of functions"                  // stack traces show numbers
	LargeModule     Kind = "the module is large"
	LargeMemory     Kind = "the memory is large from the start"
	NotResettable   Kind = "each call needs a new instance"      // for the reasons of the description
	NoOutputs       Kind = "no chunk gave an output"             // so little was compared
	LargeChunkFails Kind = "a chunk of 1 MiB fails"              // with Failure
	Loose           Kind = "an output is not deterministic CBOR" // RFC 8949, section 4.2.1: the output of Call; Detail is the reason
	MergeFails      Kind = "merge of two aggregates fails"       // with Failure; one aggregate of all outputs does not fail
	GroupsMatter    Kind = "the result depends on groups"        // Difference: from one aggregate of all outputs to a merge of two halves
)

// NoExec is the kind of a hint for refused modules. The problems of the description
// name the toolchain that made a refused import or section, and the switch that helps.
const NoExec Kind = "no exec"

// The kinds of findings: requests and properties of a module that a job handles in
// the same way each time.
const (
	IsCommand   Kind = "a WASI command"
	ReadsClock  Kind = "it can read the clock"
	DrawsRandom Kind = "it can draw random bytes"
	OpensFiles  Kind = "it can open files"
	ReadsEnv    Kind = "it can read its environment or arguments"
	UsesSockets Kind = "it can use sockets"
	LeavesState Kind = "it leaves state behind"        // Probe: without fresh state
	UsesRandom  Kind = "it uses random bytes"          // Probe: with another seed
	MakesNaNs   Kind = "its outputs have bits of NaNs" // Probe: as the machine makes them
)

// Kinds returns every kind, in the order of this documentation.
func Kinds() []Kind {
	return []Kind{
		MergeUnused, NoMerge, NoNames, LargeModule, LargeMemory, NotResettable, NoOutputs, LargeChunkFails, Loose, MergeFails, GroupsMatter,
		NoExec,
		IsCommand, ReadsClock, DrawsRandom, OpensFiles, ReadsEnv, UsesSockets, LeavesState, UsesRandom, MakesNaNs,
	}
}

func (r *Report) hint(remark Remark) { r.Hints = append(r.Hints, remark) }

// Sizes above which there is a hint.
const (
	largeModule = 8 << 20
	largeMemory = 64 << 20
)

// Lint inspects a module without running it. It returns a report without calls.
func Lint(wasm []byte) *Report {
	d := runtime.Inspect(wasm)
	r := &Report{Description: d}
	exports := func(name string) bool {
		return slices.ContainsFunc(d.Exports, func(e runtime.Item) bool { return e.Name == name })
	}
	hint := func(found bool, kind Kind) {
		if found {
			r.hint(Remark{Kind: kind})
		}
	}
	hint(exports(abi.ExportMerge) && !exports(abi.ExportAggregate), MergeUnused)
	hint(exports(abi.ExportAggregate) && !exports(abi.ExportMerge), NoMerge)
	if d.Command {
		r.Found = append(r.Found, Remark{Kind: IsCommand})
	}
	if !d.Accepted {
		hint(d.Exports != nil && !exports(abi.ExportExec) && !exports(abi.ExportStart), NoExec) // nil if they could not be read
	}
	hint(d.Functions > 0 && !d.Names, NoNames)
	hint(d.Size > largeModule, LargeModule)
	hint(d.Memory != nil && d.Memory.Min > largeMemory, LargeMemory)
	r.lintImports()
	hint(len(d.NotResettable) > 0, NotResettable)
	return r
}

// capabilities are the capabilities that imports of WASI need.
var capabilities = []struct {
	kind  Kind
	names []string
}{
	{ReadsClock, []string{"clock_time_get", "poll_oneoff"}},
	{DrawsRandom, []string{"random_get"}},
	{OpensFiles, []string{"path_open", "fd_readdir", "path_filestat_get"}},
	{ReadsEnv, []string{"environ_get", "args_get"}},
	{UsesSockets, []string{"sock_accept", "sock_recv", "sock_send"}},
}

// lintImports adds the capabilities that a guest may ask for.
func (r *Report) lintImports() {
	for _, c := range capabilities {
		if slices.ContainsFunc(r.Description.Imports, func(i runtime.Item) bool {
			return i.Module == abi.WASIModule && slices.Contains(c.names, i.Name)
		}) {
			r.Found = append(r.Found, Remark{Kind: c.kind})
		}
	}
}
