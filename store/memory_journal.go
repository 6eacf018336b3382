package store

import (
	"bytes"
	"cmp"
	"context"
	"encoding/hex"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"
)

// memoryJob is a job in a [Memory].
type memoryJob struct {
	JobRecord
	ids      [][]byte
	runs     []Run
	spans    []Span            // by First, then Run
	attempts []memoryAttempt   // in the order in which they were noted
	bases    map[string][]byte // details whose beginnings others share, by their first bytes
	noted    int               // bytes of the details of attempts
	latest   int               // counts up with each Begin of any job
}

// memoryAttempt is an attempt with its detail in two parts; other attempts may share
// the first.
type memoryAttempt struct {
	Attempt    // without Detail
	base, rest []byte
}

// Bounds of the details of attempts, which contain texts of guests.
const (
	// maxDetail bounds one detail, maxNoted all details in a store, in bytes.
	maxDetail = 64 << 10
	maxNoted  = 32 << 20
	// baseKey is the minimum length of a common beginning of two details for it to be
	// stored once.
	baseKey = 48
)

// keep adds an attempt, with its detail if that needs at most left bytes. It returns
// how many bytes the detail takes.
func (j *memoryJob) keep(a Attempt, left int) (size int) {
	kept := memoryAttempt{Attempt: a}
	kept.Detail = nil
	if len(a.Detail) <= maxDetail {
		kept.base, kept.rest = j.split(a.Detail)
		if size = len(kept.rest); size > left {
			kept.base, kept.rest, size = nil, nil, 0
		}
	}
	if size > 0 && len(kept.base) == 0 && len(kept.rest) >= baseKey {
		if j.bases == nil {
			j.bases = map[string][]byte{}
		}
		j.bases[string(kept.rest[:baseKey])] = kept.rest
	}
	j.attempts = append(j.attempts, kept)
	j.noted += size
	return size
}

// split cuts a detail after the beginning that it shares with an earlier one, and
// copies the rest. If it shares less than half, rest is a copy of the whole detail.
func (j *memoryJob) split(detail []byte) (base, rest []byte) {
	if len(detail) >= baseKey {
		base = j.bases[string(detail[:baseKey])]
	}
	n := 0
	for n < min(len(base), len(detail)) && base[n] == detail[n] {
		n++
	}
	if n < len(detail)/2 {
		n = 0
	}
	return base[:n:n], bytes.Clone(detail[n:])
}

// whole returns the attempt with its detail.
func (a *memoryAttempt) whole() Attempt {
	whole := a.Attempt
	whole.Detail = slices.Concat(a.base, a.rest)
	return whole
}

// jobOf returns a job; m.mu is held.
func (m *Memory) jobOf(ctx context.Context, id JobID) (*memoryJob, error) {
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case m.actions == nil:
		return nil, ErrClosed
	case m.jobs[id] == nil:
		return nil, ErrNoJob
	}
	return m.jobs[id], nil
}

// runOf returns the job of a run. The error is ErrNoJob if the job was deleted, even
// if it was submitted again, unless it has had as many runs since. m.mu is held.
func (m *Memory) runOf(ctx context.Context, run RunKey) (*memoryJob, error) {
	j, err := m.jobOf(ctx, run.Job)
	if err == nil && (run.Number < 1 || run.Number > len(j.runs)) {
		return nil, ErrNoJob
	}
	return j, err
}

// Begin implements [Journal].
func (m *Memory) Begin(ctx context.Context, job JobRecord, ids iter.Seq[[]byte], info []byte) (RunKey, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, err := m.jobOf(ctx, job.ID)
	now := time.Now().UTC()
	switch {
	case err == ErrNoJob:
		job.Created, job.Derived = now, slices.Clone(job.Derived)
		j = &memoryJob{JobRecord: job}
		for piece := range ids {
			j.ids = append(j.ids, bytes.Clone(piece))
		}
		m.jobs[job.ID] = j
	case err != nil:
		return RunKey{}, err
	}
	j.Spec = bytes.Clone(job.Spec)
	m.begun++
	j.latest = m.begun
	key := RunKey{job.ID, len(j.runs) + 1}
	j.runs = append(j.runs, Run{RunKey: key, Started: now, Seen: now, Info: bytes.Clone(info)})
	return key, nil
}

// Finish implements [Journal].
func (m *Memory) Finish(ctx context.Context, run RunKey, action Action, records []Record, span Span) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, err := m.runOf(ctx, run)
	if err == nil {
		err = m.put(action, records)
	}
	if err != nil || len(span.Chunks) == 0 {
		return err
	}
	span.Run, span.Chunks, span.Detail = run.Number, slices.Clone(span.Chunks), bytes.Clone(span.Detail)
	at, again := slices.BinarySearchFunc(j.spans, span, compareSpans)
	if again {
		j.spans[at] = span
	} else {
		j.spans = slices.Insert(j.spans, at, span)
	}
	j.sign(run)
	return nil
}

func compareSpans(a, b Span) int {
	return cmp.Or(cmp.Compare(a.First, b.First), cmp.Compare(a.Run, b.Run))
}

// sign records that the run is alive now.
func (j *memoryJob) sign(run RunKey) *Run {
	r := &j.runs[run.Number-1]
	r.Seen = time.Now().UTC()
	return r
}

// known calls f with the job of a run, unless the job was deleted.
func (m *Memory) known(ctx context.Context, run RunKey, f func(j *memoryJob)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, err := m.runOf(ctx, run)
	if err == nil {
		f(j)
	}
	if err == ErrNoJob {
		return nil
	}
	return err
}

// Note implements [Journal].
func (m *Memory) Note(ctx context.Context, run RunKey, active []byte, failed []Attempt) error {
	return m.known(ctx, run, func(j *memoryJob) {
		j.sign(run).Active = bytes.Clone(active)
		for _, a := range failed {
			a.Run = run.Number
			m.noted += j.keep(a, maxNoted-m.noted)
		}
	})
}

// End implements [Journal].
func (m *Memory) End(ctx context.Context, run RunKey, report []byte) error {
	return m.known(ctx, run, func(j *memoryJob) {
		r := j.sign(run)
		r.Ended, r.Report = r.Seen, bytes.Clone(report)
	})
}

// look calls f with a job.
func (m *Memory) look(ctx context.Context, id JobID, f func(j *memoryJob)) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	j, err := m.jobOf(ctx, id)
	if err == nil {
		f(j)
	}
	return err
}

// each yields the items, and then the error if it is not nil.
func each[T any](items []T, err error) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for _, item := range items {
			if !yield(item, nil) {
				return
			}
		}
		if err != nil {
			var none T
			yield(none, err)
		}
	}
}

// List implements [Journal].
func (m *Memory) List(ctx context.Context, prefix string) iter.Seq2[JobRecord, error] {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := ctx.Err(); err != nil || m.actions == nil {
		return each[JobRecord](nil, cmp.Or(err, ErrClosed))
	}
	all := slices.SortedFunc(maps.Values(m.jobs), func(a, b *memoryJob) int { return cmp.Compare(b.latest, a.latest) })
	var found []JobRecord
	for _, j := range all {
		if strings.HasPrefix(hex.EncodeToString(j.ID[:]), prefix) {
			found = append(found, j.JobRecord)
		}
	}
	return each(found, nil)
}

// IDs implements [Journal].
func (m *Memory) IDs(ctx context.Context, job JobID) iter.Seq2[[]byte, error] {
	var found [][]byte
	err := m.look(ctx, job, func(j *memoryJob) { found = j.ids })
	return each(found, err)
}

// Runs implements [Journal].
func (m *Memory) Runs(ctx context.Context, job JobID) (runs []Run, err error) {
	err = m.look(ctx, job, func(j *memoryJob) { runs = slices.Clone(j.runs) })
	return runs, err
}

// Extents implements [Journal].
func (m *Memory) Extents(ctx context.Context, job JobID) iter.Seq2[Extent, error] {
	var found []Extent
	err := m.look(ctx, job, func(j *memoryJob) {
		for _, s := range j.spans {
			found = append(found, Extent{s.Run, s.First, len(s.Chunks)})
		}
	})
	return each(found, err)
}

// Spans implements [Journal].
func (m *Memory) Spans(ctx context.Context, job JobID, from, to int) iter.Seq2[Span, error] {
	var found []Span
	err := m.look(ctx, job, func(j *memoryJob) {
		for _, s := range j.spans {
			if s.First < to && from < s.First+len(s.Chunks) {
				found = append(found, s)
			}
		}
	})
	return each(found, err)
}

// Attempts implements [Journal].
func (m *Memory) Attempts(ctx context.Context, job JobID, from, to int) iter.Seq2[Attempt, error] {
	var found []Attempt
	err := m.look(ctx, job, func(j *memoryJob) {
		for i := range j.attempts {
			if a := &j.attempts[i]; from <= a.Chunk && a.Chunk < to {
				found = append(found, a.whole())
			}
		}
	})
	slices.SortStableFunc(found, func(a, b Attempt) int { return cmp.Compare(a.Chunk, b.Chunk) })
	return each(found, err)
}

// Delete implements [Journal].
func (m *Memory) Delete(ctx context.Context, job JobID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	j, err := m.jobOf(ctx, job)
	if err != nil {
		return err
	}
	delete(m.jobs, job)
	m.noted -= j.noted
	kept, shared := map[Digest]bool{}, false
	for _, other := range m.jobs {
		if other.Action != j.Action {
			continue
		}
		shared = true
		for _, s := range other.spans {
			for _, chunk := range s.Chunks {
				kept[chunk] = true
			}
		}
	}
	if !shared {
		for _, action := range append([]Action{j.Action}, j.Derived...) {
			delete(m.actions, action)
		}
		return nil
	}
	for _, action := range j.Derived {
		m.remove(action, map[Digest]bool{j.Input: true})
	}
	gone := map[Digest]bool{}
	for _, s := range j.spans {
		for _, chunk := range s.Chunks {
			gone[chunk] = !kept[chunk]
		}
	}
	m.remove(j.Action, gone)
	return nil
}

// remove rebuilds an action without the outputs of the chunks in gone; m.mu is held.
func (m *Memory) remove(action Action, gone map[Digest]bool) {
	old := m.actions[action]
	if old == nil {
		return
	}
	s := newArena()
	old.each(func(_ slot, r Record) bool {
		if !gone[r.Chunk] {
			s.add(s.index.hash(&r.Chunk), &r)
		}
		return true
	})
	m.actions[action] = s
}
