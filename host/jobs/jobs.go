package jobs

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Job is a job as it is recorded. It is read when it is asked for and does not
// change then.
type Job struct {
	Record store.Job
	Spec   Spec
	Runs   []store.Run // in order; one at least
	store  store.Jobs
	now    time.Time
	ids    *ids // nil until they are needed
}

// Find returns the job whose id in hex begins with prefix, or, of no prefix,
// that with the latest run. The error is [store.ErrNoJob] where there is none,
// and an *[AmbiguousError] where there are several.
func Find(ctx context.Context, s store.Jobs, prefix string) (*Job, error) {
	var found []store.Job
	for record, err := range s.List(ctx, strings.ToLower(prefix)) {
		if err != nil {
			return nil, err
		}
		if found = append(found, record); prefix == "" || len(found) > maxNamed {
			break
		}
	}
	switch len(found) {
	case 0:
		return nil, store.ErrNoJob
	case 1:
		return read(ctx, s, found[0])
	}
	return nil, ambiguous(prefix, found)
}

// maxNamed bounds the ids that an [AmbiguousError] names.
const maxNamed = 4

// AmbiguousError says that several jobs have ids that begin as was asked.
type AmbiguousError struct {
	Prefix string
	Names  []string // of some of them
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("several jobs begin with %q: %s", e.Prefix, strings.Join(e.Names, ", "))
}

func ambiguous(prefix string, found []store.Job) error {
	e := &AmbiguousError{Prefix: prefix}
	for _, record := range found {
		e.Names = append(e.Names, Name(record.ID)[:max(12, min(len(prefix)+4, 64))])
	}
	return e
}

// List yields all jobs, those with the latest run first.
func List(ctx context.Context, s store.Jobs) iter.Seq2[*Job, error] {
	return func(yield func(*Job, error) bool) {
		for record, err := range s.List(ctx, "") {
			var j *Job
			if err == nil {
				j, err = read(ctx, s, record)
			}
			if errors.Is(err, store.ErrNoJob) { // deleted meanwhile
				continue
			}
			if !yield(j, err) || err != nil {
				return
			}
		}
	}
}

func read(ctx context.Context, s store.Jobs, record store.Job) (*Job, error) {
	j := &Job{Record: record, store: s, now: time.Now()}
	if err := json.Unmarshal(record.Spec, &j.Spec); err != nil {
		return nil, fmt.Errorf("job %s: %w: %w", Name(record.ID), errDamaged, err)
	}
	runs, err := s.Runs(ctx, record.ID)
	if err == nil && len(runs) == 0 {
		err = store.ErrNoJob
	}
	j.Runs = runs
	return j, err
}

// Last returns the last run.
func (j *Job) Last() *store.Run { return &j.Runs[len(j.Runs)-1] }

// State returns how the job is: [Running] where any of its runs goes on, else
// the state of the last run.
func (j *Job) State() string {
	for i := range j.Runs {
		if j.StateOf(&j.Runs[i]) == Running {
			return Running
		}
	}
	return j.StateOf(j.Last())
}

// StateOf returns the state of one run.
func (j *Job) StateOf(run *store.Run) string {
	if run.Ended.IsZero() {
		if alive(run, j.now) {
			return Running
		}
		return Died
	}
	return j.reportOf(run).State
}

func (j *Job) reportOf(run *store.Run) (r report) {
	if json.Unmarshal(run.Report, &r) != nil || r.State == "" {
		r.State = Broken
	}
	return r
}

// ProcessOf returns where a run is or was.
func ProcessOf(run *store.Run) (p Process) {
	_ = json.Unmarshal(run.Info, &p) // what cannot be read is not known
	return p
}

// Digest returns the digest of the outputs of the last run that has one, as in
// a report.
func (j *Job) Digest() string {
	for i := range slices.Backward(j.Runs) {
		if d := j.reportOf(&j.Runs[i]).Digests.Outputs; d != "" {
			return d
		}
	}
	return ""
}

// Aggregate returns the last result that the job's module made of all outputs;
// nil where there is none.
func (j *Job) Aggregate(ctx context.Context) (aggregate []byte, err error) {
	if len(j.Record.Derived) == 0 {
		return nil, nil
	}
	for i := range slices.Backward(j.Runs) {
		sum, err := hex.DecodeString(strings.TrimPrefix(j.reportOf(&j.Runs[i]).Digests.Outputs, "sha256:"))
		if err != nil || len(sum) != len(store.Digest{}) {
			continue
		}
		keys := []store.Key{{Chunk: store.Digest(sum)}}
		err = j.store.Get(ctx, j.Record.Derived[0], keys, func(_ int, v store.Value) error {
			aggregate = append([]byte{}, v.Output...)
			return nil
		})
		if err != nil || aggregate != nil {
			return aggregate, err
		}
	}
	return nil, nil
}

// loadIDs reads the chunks' ids.
func (j *Job) loadIDs(ctx context.Context) (*ids, error) {
	if j.ids != nil {
		return j.ids, nil
	}
	x := &ids{}
	for piece, err := range j.store.IDs(ctx, j.Record.ID) {
		if err == nil {
			err = x.add(piece)
		}
		if err != nil {
			return nil, err
		}
	}
	if x.total != j.Record.Total {
		return nil, fmt.Errorf("job %s: %w: %d ids for %d chunks", Name(j.Record.ID), errDamaged, x.total, j.Record.Total)
	}
	j.ids = x
	return x, nil
}

// Missing returns those of a few ids that no chunk of the job has. It looks at
// each of them: ranges are not for it.
func (j *Job) Missing(ctx context.Context, few abi.IDSet) (missing abi.IDSet, err error) {
	x, err := j.loadIDs(ctx)
	if err != nil {
		return missing, err
	}
	check := func(id abi.ID) {
		if _, ok := x.index(id); !ok {
			missing.Add(id)
		}
	}
	for lo, hi := range few.Ranges() {
		for n := lo; ; n++ {
			if check(abi.IntID(n)); n == hi {
				break
			}
		}
	}
	for text := range few.Texts() {
		check(abi.TextID(text))
	}
	return missing, nil
}

// runAt returns the run of integers that has a chunk, or is the next one.
func (x *ids) runAt(chunk int) int {
	return sort.Search(len(x.runs), func(i int) bool { return x.runs[i].chunk+x.runs[i].count > chunk })
}

// at returns the id of a chunk.
func (x *ids) at(chunk int) abi.ID {
	if chunk >= x.ints() {
		return abi.TextID(x.texts[chunk-x.ints()])
	}
	r := x.runs[x.runAt(chunk)]
	return abi.IntID(r.first + uint64(chunk-r.chunk))
}

// index returns the number of the chunk with an id.
func (x *ids) index(id abi.ID) (chunk int, ok bool) {
	if text, isText := id.Text(); isText {
		i, found := slices.BinarySearch(x.texts, text)
		return x.ints() + i, found
	}
	n, _ := id.Int()
	i := sort.Search(len(x.runs), func(i int) bool { return x.runs[i].first+uint64(x.runs[i].count-1) >= n })
	if i == len(x.runs) || x.runs[i].first > n {
		return 0, false
	}
	return x.runs[i].chunk + int(n-x.runs[i].first), true
}

// Error says why the last run did not come to its end, or is empty.
func (j *Job) Error() string { return j.reportOf(j.Last()).Error }
