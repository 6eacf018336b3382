package ui

import (
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// pageSize is the number of jobs on a page.
	pageSize = 50
	// maxLooked is the number of jobs that one page looks at to find them: the state of
	// a job costs a millisecond or more.
	maxLooked = 500
	// maxQuery bounds a search, in bytes.
	maxQuery = 200
)

// states are the states that a list can be limited to.
var states = []string{
	journal.Running, journal.Succeeded, journal.Failed, journal.Interrupted, journal.Crashed, journal.Errored,
	"uploading", "active", "paused", "cancelled", "incomplete",
}

// jobList is a page of jobs.
type jobList struct {
	Jobs   []jobRow
	Query  string
	State  string
	States []string
	From   int  // number of newer jobs that were left out
	More   bool // there are older jobs
	Next   int  // From of the page with them
	Some   bool // not all jobs were looked at, and few were found
}

// jobRow is a job in a list.
type jobRow struct {
	ID, Name, State          string
	Total, Succeeded, Failed int
	Started                  time.Time
	Took                     time.Duration
}

func (s *server) jobs(r *request) (*view, error) {
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("from")) // otherwise the first
	l := &jobList{Query: cut(q.Get("q"), maxQuery), State: q.Get("state"), States: states, From: max(from, 0)}
	v := &view{Title: "Jobs", Regions: []string{"job-rows"}, Data: l}
	if r.store == nil {
		return v, nil
	}
	at := -1
	for j, err := range journal.List(r.Context(), r.store) {
		if err != nil {
			return nil, err
		}
		if at++; at < l.From {
			continue
		}
		if l.More = len(l.Jobs) == pageSize || at == l.From+maxLooked; l.More {
			break
		}
		l.Next = at + 1
		if err := l.add(r, j); err != nil {
			return nil, err
		}
	}
	l.Some = l.More && len(l.Jobs) < pageSize
	return v, nil
}

// add adds a job, if the search selects it.
func (l *jobList) add(r *request, j *journal.Record) error {
	if !l.wants(j) {
		return nil
	}
	row, err := rowOf(r, j)
	if errors.Is(err, store.ErrNoJob) { // deleted meanwhile
		return nil
	}
	if err == nil {
		l.Jobs = append(l.Jobs, row)
	}
	return err
}

// wants reports whether the search selects a job.
func (l *jobList) wants(j *journal.Record) bool {
	if l.State != "" && j.State() != l.State {
		return false
	}
	q := strings.ToLower(l.Query)
	return q == "" || strings.Contains(strings.ToLower(j.Spec.Name), q) || strings.HasPrefix(journal.Name(j.Record.ID), q)
}

func rowOf(r *request, j *journal.Record) (row jobRow, err error) {
	last := j.Last()
	row = jobRow{ID: journal.Name(j.Record.ID), Name: j.Spec.Name, State: j.State(), Total: j.Record.Total, Started: last.Started, Took: last.Ended.Sub(last.Started)}
	if last.Ended.IsZero() {
		row.Took = last.Seen.Sub(last.Started)
	}
	var ended struct {
		Chunks struct {
			Succeeded int `json:"succeeded"`
			Failed    int `json:"failed"`
		} `json:"chunks"`
	}
	if j.Record.Shared == nil && !last.Ended.IsZero() && json.Unmarshal(last.Report, &ended) == nil {
		row.Succeeded, row.Failed = ended.Chunks.Succeeded, ended.Chunks.Failed
		return row, nil
	}
	_, _, row.Succeeded, row.Failed, err = j.Counts(r.Context())
	return row, err
}

// cut returns at most n bytes of a text.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "..."
}
