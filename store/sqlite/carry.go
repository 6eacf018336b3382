package sqlite

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite/internal/dbfile"
)

// carrier copies the records of jobs from a file that was set aside.
//
// A job is copied with all of its ids and runs, or not at all, because a part of them
// would tell something else. A span or an attempt that is lost is left out: its chunks
// are pending again, and the next run finds their outputs.
type carrier struct {
	db      *database
	from    *aside
	runs    int64 // is added to the row ids of runs, which are in the order of their starts
	copied  []copiedJob
	damaged []DamagedJob
	unknown bool // some job was not copied, and its input is not known
}

// copiedJob is a job in the new file.
type copiedJob struct {
	store.JobRecord
	row    int64 // in the new file
	whole  bool  // no record is missing
	result bool  // all of its chunks have outputs
}

// errUnsound means that records of a job cannot be copied.
var errUnsound = errors.New("a record is damaged")

// carryJobs copies the jobs of a file whose outputs were copied, and reports those
// that are damaged. It returns lines about them.
func (db *database) carryJobs(path string, file *dbfile.File) (notices []string, err error) {
	c := &carrier{db: db}
	ctx := db.writer.GetInterrupt()
	if c.from, err = openAside(ctx, path); err == nil {
		err = c.carry()
		err = errors.Join(err, c.from.close())
	} else if ctx.Err() == nil {
		err = nil // nothing can be read
	}
	if err != nil {
		return nil, err
	}
	found := &foundJobs{}
	if c.from == nil || !c.from.exact {
		found.read(file)
	}
	c.add(found)
	for _, j := range c.damaged {
		db.store.options.DamagedJob(j)
	}
	return c.notices(found.more), nil
}

// add adds the jobs that were found on pages and are not listed.
func (c *carrier) add(found *foundJobs) {
	known := map[store.JobID]bool{}
	for _, j := range c.copied {
		known[j.ID] = true
	}
	for _, j := range c.damaged {
		known[j.ID] = true
	}
	for _, id := range found.ids {
		if !known[id] {
			c.damaged = append(c.damaged, DamagedJob{ID: id, Chunks: int(found.chunks[id])})
		}
	}
}

// carry copies all jobs, and then their results.
func (c *carrier) carry() error {
	if _, err := c.db.writer.ints("select coalesce(max(id), 0) from runs", []*int64{&c.runs}); err != nil {
		return err
	}
	for _, j := range c.from.jobs() {
		if err := c.job(j); err != nil {
			return err
		}
	}
	if err := c.withdraw(); err != nil {
		return err
	}
	for i := range c.copied {
		if j := &c.copied[i]; !j.whole {
			c.damaged = append(c.damaged, DamagedJob{j.ID, j.Total, true})
		}
	}
	return c.results()
}

// job copies a job in one transaction.
func (c *carrier) job(j listedJob) error {
	var copied copiedJob
	err := c.db.writer.transaction("begin immediate", func() (err error) {
		copied, err = c.copy(j)
		return err
	})
	if ctxErr := c.db.writer.GetInterrupt().Err(); ctxErr != nil {
		return ctxErr // a row that was not read because of that is sound
	}
	if errors.Is(err, errUnsound) {
		d := DamagedJob{ID: j.id, Chunks: -1}
		record, ok := c.read(j)
		if d.Chunks = record.Total; !ok {
			d.Chunks, c.unknown = -1, true
		}
		c.damaged = append(c.damaged, d)
		return nil
	}
	if err == nil {
		c.copied = append(c.copied, copied)
	}
	return err
}

// maxDerived bounds the derived actions of a job; it has 2, and the run of a flow 6.
const maxDerived = 64

// read reads the row of a job; ok is false if it is not sound.
func (c *carrier) read(j listedJob) (record store.JobRecord, ok bool) {
	v, ok := c.from.job(j.row)
	if !ok {
		return record, false
	}
	digest, action, derived, input := v[0].([]byte), v[1].([]byte), v[2].([]byte), v[3].([]byte)
	total, spec := v[4].(int64), v[6].(string)
	size := len(store.Digest{})
	if string(digest) != string(j.id[:]) || len(action) != size || len(input) != size || len(derived)%size != 0 || len(derived) > maxDerived*size ||
		total < 0 || total > math.MaxInt32*int64(1<<16) || !json.Valid([]byte(spec)) {
		return record, false
	}
	record = store.JobRecord{ID: j.id, Action: store.Action(action), Input: store.Digest(input), Total: int(total), Spec: []byte(spec), Created: time.UnixMicro(v[5].(int64)).UTC()}
	for some := range slices.Chunk(derived, size) {
		record.Derived = append(record.Derived, store.Action(some))
	}
	return record, true
}

// copy copies a job. The error is errUnsound if it cannot be read.
func (c *carrier) copy(j listedJob) (copied copiedJob, err error) {
	record, ok := c.read(j)
	if !ok || c.db.store.options.CheckJob(record, c.ids(j.row)) != nil {
		return copied, errUnsound
	}
	copied = copiedJob{JobRecord: record, whole: true}
	row, known, err := c.db.writer.job(j.id)
	if err != nil || known { // the last salvage of this file was interrupted
		copied.row = row
		return copied, err
	}
	tx := &transaction{db: c.db, conn: c.db.writer}
	if copied.row, err = tx.submitted(&record, func(func([]byte) bool) {}, record.Created); err != nil {
		return copied, err
	}
	runs := 0
	for table := range recordTables {
		all, err := c.rows(table, j.row, &copied, &runs)
		if err != nil {
			return copied, err
		}
		if !all && (table == tableIDs || table == tableRuns) {
			return copied, errUnsound
		}
		copied.whole = copied.whole && all
	}
	if runs == 0 {
		return copied, errUnsound
	}
	return copied, nil
}

// ids yields the pieces of a job's ids that can be read, in order.
func (c *carrier) ids(job int64) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		rows, _ := c.from.rowsOf(tableIDs, job)
		for _, row := range rows {
			if v, ok := c.from.record(tableIDs, job, row); ok && !yield(v[1].([]byte)) {
				return
			}
		}
	}
}

// rows copies the rows of a job in a table; all is false if some are missing. runs is
// the number of the job's runs, which are copied before their spans and attempts.
func (c *carrier) rows(table int, job int64, copied *copiedJob, runs *int) (all bool, err error) {
	t := &recordTables[table]
	insert := "insert into " + t.name + "(job, " + names(t.columns) + ") values(?" + strings.Repeat(", ?", len(t.columns)) + ")"
	rows, all := c.from.rowsOf(table, job)
	for i, row := range rows {
		v, ok := c.from.record(table, job, row)
		if !ok || !sound(table, v, i, copied.Total, *runs) {
			all = false
			continue
		}
		if table == tableRuns {
			*runs++
			v[0] = v[0].(int64) + c.runs
		}
		if err := c.db.writer.exec(insert, append([]any{copied.row}, v...)...); err != nil {
			return false, err
		}
	}
	return all, nil
}

// sound reports whether the values of a job's i-th row of a table are within their
// bounds: the job has total chunks and so many runs.
func sound(table int, v []any, i, total, runs int) bool {
	within := func(v any, from, to int) bool { return v.(int64) >= int64(from) && v.(int64) < int64(to) }
	isJSON := func(v any) bool {
		s, _ := v.(string)
		return s == "" || json.Valid([]byte(s))
	}
	switch table {
	case tableIDs:
		return within(v[0], i, i+1)
	case tableRuns:
		return within(v[0], 1, math.MaxInt32) && within(v[1], i+1, i+2) && isJSON(v[5]) && isJSON(v[6]) && isJSON(v[7])
	case tableSpans:
		count := len(v[3].([]byte)) / len(store.Digest{})
		return len(v[3].([]byte)) == count*len(store.Digest{}) && count > 0 && within(v[1], count, count+1) &&
			within(v[0], 0, total-count+1) && within(v[2], 1, runs+1)
	default:
		return within(v[0], 0, total) && within(v[1], 1, runs+1) && within(v[2], 0, 2) && isJSON(v[4])
	}
}

// withdraw deletes the spans with chunks whose outputs were not copied.
func (c *carrier) withdraw() error {
	tx := &transaction{db: c.db, conn: c.db.writer}
	var before []int
	for i := range c.copied {
		tx.losses(c.copied[i].Action).other = true
		n, err := c.finished(&c.copied[i])
		if err != nil {
			return err
		}
		before = append(before, n)
	}
	if err := tx.conn.transaction("begin immediate", tx.withdraw); err != nil {
		return err
	}
	for i := range c.copied {
		j := &c.copied[i]
		n, err := c.finished(j)
		if err != nil {
			return err
		}
		j.whole, j.result = j.whole && n == before[i], n == j.Total
	}
	return nil
}

// finished returns how many chunks of a job have a span.
func (c *carrier) finished(j *copiedJob) (n int, err error) {
	end := int64(0)
	err = c.db.writer.rows(func(r *columns) {
		first, after := r.int(), r.int()
		if first = max(first, end); after > first {
			n, end = n+int(after-first), after
		}
	}, "select first, first+count from spans where job=? order by first", j.row)
	return n, err
}

// results copies the results that were derived from outputs. The record that a job is
// finished is copied only if its chunks are.
func (c *carrier) results() error {
	finished, unfinished := map[store.Digest]bool{}, map[store.Digest]bool{}
	var actions []store.Action
	for i := range c.copied {
		j := &c.copied[i]
		if j.result {
			finished[j.Input] = true
		} else {
			unfinished[j.Input] = true
		}
		actions = append(actions, j.Derived...)
	}
	slices.SortFunc(actions, func(a, b store.Action) int { return strings.Compare(string(a[:]), string(b[:])) })
	exact := c.from.exact && len(c.damaged) == 0
	for _, action := range slices.Compact(actions) {
		var found []store.Record
		c.from.results(action, func(key store.Key, v store.Value) {
			if finished[key.Chunk] || exact && !unfinished[key.Chunk] {
				found = append(found, store.Record{Key: key, Value: v})
			}
		})
		if len(found) == 0 {
			continue
		}
		if _, err := c.db.write([]*request{newPut(action, found)}); err != nil {
			return err
		}
	}
	return nil
}

// notices returns lines, first about the jobs that were copied. more means that
// there are damaged jobs that are not listed.
func (c *carrier) notices(more bool) (lines []string) {
	if n := len(c.copied); n > 0 {
		lines = append(lines, fmt.Sprintf("the records of %d jobs were copied", n))
	}
	const again = "; run them again, which reuses their outputs"
	if text := listed(c.damaged, true, false); text != "" {
		lines = append(lines, "records of jobs that were copied in part, because the rest is damaged: "+text+again)
	}
	if text := listed(c.damaged, false, more); text != "" {
		lines = append(lines, "its records of jobs are not copied: "+text+again)
	}
	return lines
}

// listed returns the number and the first names of the damaged jobs that were copied
// in part, or not at all; "" if there are none.
func listed(all []DamagedJob, copied, more bool) string {
	var names []string
	n := 0
	for _, j := range all {
		if j.Copied != copied {
			continue
		}
		if n++; n > namedJobs {
			continue
		}
		name := fmt.Sprintf("%x", j.ID[:6])
		if j.Chunks >= 0 {
			name += fmt.Sprintf(" (%d chunks)", j.Chunks)
		}
		names = append(names, name)
	}
	if n == 0 {
		return ""
	}
	if n > namedJobs {
		names = append(names, "...")
	}
	atLeast := ""
	if more {
		atLeast = "at least "
	}
	return fmt.Sprintf("%s%d jobs, %s", atLeast, n, strings.Join(names, ", "))
}
