package main

import (
	"bufio"
	"maps"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
)

// earlyFile is a file of outputs that is written while the job runs, without reading
// outputs back from the store. It gets its name when the job has ended.
type earlyFile struct {
	buffer *bufio.Writer
	writer *outputs.Writer
	err    error // the first error; nothing is written after it
}

func newEarlyFile(file *atomicfile.File, form outputs.Form) *earlyFile {
	buffer := bufio.NewWriterSize(file.Out(), 1<<18)
	return &earlyFile{buffer: buffer, writer: outputs.NewWriter(buffer, form)}
}

func (e *earlyFile) put(o outputs.Output) {
	if e.err == nil {
		e.err = e.writer.Put(o)
	}
}

// end writes the outputs that were not written while the job ran.
func (e *earlyFile) end(rest outputs.Seq) error {
	for o, err := range rest {
		if e.err == nil {
			e.err = err
		}
		if e.err != nil {
			return e.err
		}
		e.put(o)
	}
	if e.err != nil {
		return e.err
	}
	return e.buffer.Flush()
}

// early returns the function that gets the outputs while the job runs. It is nil if
// no file is written early. folds reports whether the outputs are aggregated.
func (f *resultFiles) early(folds bool) func(host.Output) {
	f.earlyFiles = map[string]*earlyFile{}
	add := func(path string, form outputs.Form) {
		if path != "" && f.targets[path].Temporary() && form != outputs.CSV && !isParquet(path) {
			f.earlyFiles[path] = newEarlyFile(f.targets[path], form)
		}
	}
	if f.dir == nil {
		add(f.outputs, outputs.FormOf(packed.Trim(f.outputs)))
	}
	if !folds && !f.concat {
		add(f.result, outputs.CBOR)
	}
	if len(f.earlyFiles) == 0 {
		return nil
	}
	all := slices.Collect(maps.Values(f.earlyFiles))
	return func(o host.Output) {
		for _, e := range all {
			e.put(o)
		}
	}
}
