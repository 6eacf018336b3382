package journal

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

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// Record is the record of a job. It is read on request and does not change
// afterwards.
type Record struct {
	Record store.JobRecord
	Spec   Spec
	Runs   []store.Run // in order; at least one
	store  Store
	living map[int]bool // runs without an end whose process exists, by number
	ids    *ids         // nil until needed
}

// Store is the source of records: a journal, and the outputs of its store.
// [*store.Memory] and the durable stores implement it.
type Store interface {
	store.Journal
	Get(ctx context.Context, action store.Action, keys []store.Key, found func(i int, v store.Value) error) error
}

// Find returns the job whose id in hex begins with prefix or, if prefix is empty,
// the job with the latest run. The error is [store.ErrNoJob] if there is none, and
// an *[AmbiguousError] if there are several.
func Find(ctx context.Context, s Store, prefix string) (*Record, error) {
	var found []store.JobRecord
	for record, err := range s.List(ctx, strings.ToLower(prefix)) {
		if err != nil {
			return nil, err
		}
		if IsFlow(&record) {
			continue
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

// maxNamed is the number of ids that an [AmbiguousError] names.
const maxNamed = 4

// AmbiguousError reports that the ids of several jobs begin with a prefix.
type AmbiguousError struct {
	Prefix string
	Names  []string // of some of them
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("several jobs begin with %q: %s", e.Prefix, strings.Join(e.Names, ", "))
}

func ambiguous(prefix string, found []store.JobRecord) error {
	e := &AmbiguousError{Prefix: prefix}
	for _, record := range found {
		e.Names = append(e.Names, Name(record.ID)[:max(12, min(len(prefix)+4, 64))])
	}
	return e
}

// List yields all jobs, the job with the latest run first.
func List(ctx context.Context, s Store) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		for record, err := range s.List(ctx, "") {
			var j *Record
			if err == nil && IsFlow(&record) {
				continue
			}
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

// IsFlow tells whether a record is of the run of a flow, which is not a job of one
// module: package flow reads those.
func IsFlow(record *store.JobRecord) bool {
	var of struct {
		Kind string `json:"kind"`
	}
	return json.Unmarshal(record.Spec, &of) == nil && of.Kind == "flow"
}

func read(ctx context.Context, s Store, record store.JobRecord) (*Record, error) {
	j := &Record{Record: record, store: s}
	asked, err := spec.Parse(record.Spec)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w: %w", Name(record.ID), errDamaged, err)
	}
	j.Spec = *asked
	j.Runs, j.living, err = ReadRuns(ctx, s, record.ID)
	if err == nil && len(j.Runs) == 0 {
		err = store.ErrNoJob
	}
	return j, err
}

// Last returns the last run.
func (j *Record) Last() *store.Run { return &j.Runs[len(j.Runs)-1] }

// State returns the state of the job: [Running] if any of its runs is in progress,
// otherwise the state of the last run. A job that workers share has the state of the
// store.
func (j *Record) State() string {
	if s := j.Record.Shared; s != nil {
		return s.State
	}
	for i := range j.Runs {
		if j.StateOf(&j.Runs[i]) == Running {
			return Running
		}
	}
	return j.StateOf(j.Last())
}

// StateOf returns the state of one run.
func (j *Record) StateOf(run *store.Run) string {
	if run.Ended.IsZero() {
		if j.living[run.Number] {
			return Running
		}
		return Crashed
	}
	return j.reportOf(run).State
}

func (j *Record) reportOf(run *store.Run) (r report) {
	if json.Unmarshal(run.Report, &r) != nil || r.State == "" {
		r.State = Errored
	}
	return r
}

// ProcessOf returns the process of a run.
func ProcessOf(run *store.Run) (p Process) {
	_ = json.Unmarshal(run.Info, &p) // unreadable info is left out
	return p
}

// Digest returns the digest of the outputs of the last run that has one, in the
// form of a report.
func (j *Record) Digest() string {
	for i := range slices.Backward(j.Runs) {
		if d := j.reportOf(&j.Runs[i]).Digests.Outputs; d != "" {
			return d
		}
	}
	return ""
}

// Aggregate returns the last result that the job's module made from all outputs, or
// nil if there is none.
func (j *Record) Aggregate(ctx context.Context) (aggregate []byte, err error) {
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
func (j *Record) loadIDs(ctx context.Context) (*ids, error) {
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

// Missing returns the ids of a small set that no chunk of the job has. It checks
// each id, so the set should not contain large ranges.
func (j *Record) Missing(ctx context.Context, few abi.IDSet) (missing abi.IDSet, err error) {
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

// runAt returns the run of integers that contains a chunk, or else the next run.
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

// BrokenBy returns what ended the last run with an error, as the report says it.
func (j *Record) BrokenBy() string { return j.reportOf(j.Last()).By }

// Error returns the reason why the last run did not finish, or "".
func (j *Record) Error() string { return j.reportOf(j.Last()).Error }
