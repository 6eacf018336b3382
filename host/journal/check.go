package journal

import (
	"fmt"
	"iter"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Check returns an error unless the record of a job that was found in a damaged store
// is as [Begin] writes it: its specification can be read, its id is that of its action
// and its input, and the pieces of ids are those of its chunks, in order.
func Check(record store.JobRecord, pieces iter.Seq[[]byte]) error {
	id := store.JobID(spec.IDOf(record.Action, record.Input))
	if IsFlow(&record) {
		id = store.JobID(record.Input)
	} else if _, err := spec.Parse(record.Spec); err != nil {
		return fmt.Errorf("job %s: %w: %w", Name(record.ID), errDamaged, err)
	}
	if id != record.ID {
		return fmt.Errorf("job %s: %w: its action and input are those of job %s", Name(record.ID), errDamaged, Name(id))
	}
	x := &ids{}
	for piece := range pieces {
		if err := x.add(piece); err != nil {
			return fmt.Errorf("job %s: %w", Name(record.ID), err)
		}
	}
	if x.total != record.Total || !x.ascend() {
		return fmt.Errorf("job %s: %w: %d ids for %d chunks, or not in order", Name(record.ID), errDamaged, x.total, record.Total)
	}
	return nil
}

// ascend reports whether the ids ascend: integers, then texts.
func (x *ids) ascend() bool {
	chunk := 0
	for i, r := range x.runs {
		if r.chunk != chunk || r.first+uint64(r.count-1) < r.first || i > 0 && r.first <= x.runs[i-1].last() {
			return false
		}
		chunk += r.count
	}
	for i, text := range x.texts {
		if !utf8.ValidString(text) || i > 0 && text <= x.texts[i-1] {
			return false
		}
	}
	return true
}

func (r idRun) last() uint64 { return r.first + uint64(r.count-1) }
