package sqlite

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// jobSchema holds the records of jobs. Times are microseconds since 1970, UTC.
//
// The numbers of spans come before their blobs, and are in the index, so that the
// progress of a job is read without its digests.
const jobSchema = `
create table jobs(
	id integer primary key autoincrement,
	digest blob not null unique,
	action blob not null, derived blob not null, input blob not null,
	total integer not null, created integer not null, spec text not null);
create table job_ids(
	job integer not null, part integer not null, ids blob not null,
	primary key(job, part));
create table runs(
	id integer primary key autoincrement,
	job integer not null, number integer not null,
	started integer not null, seen integer not null, ended integer,
	info text not null, active text, report text,
	unique(job, number));
create table spans(
	job integer not null, first integer not null, count integer not null, run integer not null,
	chunks blob not null, detail blob not null);
create unique index spans_by_chunk on spans(job, first, run, count);
create table attempts(
	id integer primary key,
	job integer not null, chunk integer not null, run integer not null,
	final integer not null, class text not null, detail text not null);
create index attempts_by_chunk on attempts(job, chunk);
`

func micros(t time.Time) int64 { return t.UnixMicro() }

// record runs f in a transaction of the committer.
func (s *Store) record(ctx context.Context, f func(*transaction) error) error {
	return s.submit(ctx, &request{record: func(tx *transaction, _ *request) error { return f(tx) }})
}

// job returns the row id of a job.
func (c *conn) job(id store.JobID) (row int64, ok bool, err error) {
	ok, err = c.ints("select id from jobs where digest=?", []*int64{&row}, id[:])
	return row, ok, err
}

// run returns the row id of a run's job; ok is false if the job was deleted, even if
// it was submitted again, unless it has had as many runs since.
func (c *conn) run(run store.RunKey) (job int64, ok bool, err error) {
	ok, err = c.ints("select jobs.id from jobs join runs on runs.job=jobs.id where jobs.digest=? and runs.number=?",
		[]*int64{&job}, run.Job[:], int64(run.Number))
	return job, ok, err
}

// Begin implements [store.Journal].
func (s *Store) Begin(ctx context.Context, job store.JobRecord, ids iter.Seq[[]byte], info []byte) (key store.RunKey, err error) {
	start := &store.RunStart{Job: job, IDs: ids, Info: info, Started: time.Now()}
	err = s.record(ctx, func(tx *transaction) error {
		_, key, err = tx.begin(start)
		return err
	})
	if err != nil {
		return store.RunKey{}, err
	}
	return key, nil
}

// begin adds a run, and the job if it is new. It returns the row id of the job.
func (tx *transaction) begin(s *store.RunStart) (row int64, key store.RunKey, err error) {
	row, err = tx.submitted(&s.Job, s.IDs, s.Started)
	if err != nil {
		return 0, key, err
	}
	var number int64
	if _, err := tx.conn.ints("select coalesce(max(number), 0)+1 from runs where job=?", []*int64{&number}, row); err != nil {
		return 0, key, err
	}
	return row, store.RunKey{Job: s.Job.ID, Number: int(number)}, tx.conn.exec(
		"insert into runs(job, number, started, seen, info) values(?, ?, ?, ?, ?)",
		row, number, micros(s.Started), micros(s.Started), string(s.Info))
}

// BeginLate implements [store.LateJournal].
func (s *Store) BeginLate(ctx context.Context, start *store.RunStart) (key store.RunKey, err error) {
	size := 0
	for _, f := range start.Finished {
		for i := range f.Records {
			size += len(f.Records[i].Output) + len(f.Records[i].Order)
		}
	}
	err = s.submit(ctx, &request{bytes: size, record: func(tx *transaction, r *request) error {
		row, begun, err := tx.begin(start)
		if err == nil {
			key = begun
			err = tx.since(row, key.Number, start, r)
		}
		return err
	}})
	if _, conflict := errors.AsType[*store.ConflictError](err); err != nil && !conflict {
		return store.RunKey{}, err
	}
	return key, err
}

// since records the events of a run that was just begun.
func (tx *transaction) since(row int64, run int, start *store.RunStart, r *request) error {
	for i := range start.Finished {
		f := &start.Finished[i]
		put := newPut(f.Action, f.Records)
		if err := tx.outputs(put); err != nil {
			return err
		}
		r.conflicts, r.stored = append(r.conflicts, put.conflicts...), r.stored+put.stored
		if len(put.conflicts) > 0 {
			continue
		}
		if err := tx.span(row, run, &f.Span); err != nil {
			return err
		}
	}
	if err := tx.note(row, run, start.Active, start.Failed); err != nil || start.Report == nil || len(r.conflicts) > 0 {
		return err
	}
	return tx.end(row, run, start.Report)
}

// submitted returns the row id of a job, which it inserts if the job is new.
func (tx *transaction) submitted(job *store.JobRecord, ids iter.Seq[[]byte], now time.Time) (row int64, err error) {
	row, known, err := tx.conn.job(job.ID)
	if err != nil {
		return 0, err
	}
	if known {
		return row, tx.conn.exec("update jobs set spec=? where id=?", string(job.Spec), row)
	}
	var derived []byte
	for _, action := range job.Derived {
		derived = append(derived, action[:]...)
	}
	err = tx.conn.exec("insert into jobs(digest, action, derived, input, total, created, spec) values(?, ?, ?, ?, ?, ?, ?)",
		job.ID[:], job.Action[:], derived, job.Input[:], int64(job.Total), micros(now), string(job.Spec))
	if err != nil {
		return 0, err
	}
	row = tx.conn.LastInsertRowID()
	part := int64(0)
	for piece := range ids {
		if err := tx.conn.exec("insert into job_ids values(?, ?, ?)", row, part, piece); err != nil {
			return 0, err
		}
		part++
	}
	return row, nil
}

// Finish implements [store.Journal]. If the file was set aside since Begin, and with
// it the job's record, the outputs are stored nevertheless.
func (s *Store) Finish(ctx context.Context, run store.RunKey, action store.Action, records []store.Record, span store.Span) error {
	r := newPut(action, records)
	r.record = func(tx *transaction, r *request) error {
		row, known, err := tx.conn.run(run)
		switch {
		case err != nil:
			return err
		case !known && !s.replaced.Load():
			r.conflicts = append(r.conflicts, store.ErrNoJob)
			return nil
		}
		if err := tx.outputs(r); err != nil || len(r.conflicts) > 0 || !known {
			return err
		}
		return tx.span(row, run.Number, &span)
	}
	return s.submit(ctx, r)
}

func (tx *transaction) span(job int64, run int, span *store.Span) error {
	if len(span.Chunks) == 0 {
		return nil
	}
	tx.digests = slices.Grow(tx.digests[:0], len(span.Chunks)*len(store.Digest{}))
	for _, chunk := range span.Chunks {
		tx.digests = append(tx.digests, chunk[:]...)
	}
	// The span exists already if the file was replaced after its commit.
	err := tx.conn.exec("delete from spans where job=? and first=? and run=?", job, int64(span.First), int64(run))
	if err != nil {
		return err
	}
	err = tx.conn.exec("insert into spans values(?, ?, ?, ?, ?, ?)",
		job, int64(span.First), int64(len(span.Chunks)), int64(run), tx.digests, span.Detail)
	if err != nil {
		return err
	}
	return tx.conn.exec("update runs set seen=? where job=? and number=?", micros(time.Now()), job, int64(run))
}

// Note implements [store.Journal].
func (s *Store) Note(ctx context.Context, run store.RunKey, active []byte, failed []store.Attempt) error {
	return s.record(ctx, func(tx *transaction) error {
		row, known, err := tx.conn.run(run)
		if err != nil || !known {
			return err
		}
		return tx.note(row, run.Number, active, failed)
	})
}

func (tx *transaction) note(row int64, run int, active []byte, failed []store.Attempt) error {
	for _, a := range failed {
		err := tx.conn.exec("insert into attempts(job, chunk, run, final, class, detail) values(?, ?, ?, ?, ?, ?)",
			row, int64(a.Chunk), int64(run), truth(a.Final), a.Class, string(a.Detail))
		if err != nil {
			return err
		}
	}
	return tx.conn.exec("update runs set seen=?, active=? where job=? and number=?",
		micros(time.Now()), string(active), row, int64(run))
}

func truth(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// End implements [store.Journal].
func (s *Store) End(ctx context.Context, run store.RunKey, report []byte) error {
	return s.record(ctx, func(tx *transaction) error {
		row, known, err := tx.conn.run(run)
		if err != nil || !known {
			return err
		}
		return tx.end(row, run.Number, report)
	})
}

func (tx *transaction) end(row int64, run int, report []byte) error {
	now := micros(time.Now())
	return tx.conn.exec("update runs set seen=?, ended=?, active=null, report=? where job=? and number=?",
		now, now, string(report), row, int64(run))
}

// look calls f with the row id of a job in one transaction, perhaps more than once.
func (s *Store) look(ctx context.Context, job store.JobID, f func(c *conn, row int64) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	known := false
	err := s.do(ctx, "read", func(db *database) error {
		return db.read(ctx, func(c *conn) (err error) {
			var row int64
			if row, known, err = c.job(job); err != nil || !known {
				return err
			}
			return f(c, row)
		})
	})
	if err == nil && !known {
		return store.ErrNoJob
	}
	return err
}

// rows calls f with each row of a query.
func (c *conn) rows(f func(r *columns), query string, args ...any) error {
	stmt, err := c.prepare(query, args...)
	if err != nil {
		return err
	}
	defer stmt.Reset()
	r := columns{stmt, 0}
	for stmt.Step() {
		r.next = 0
		f(&r)
	}
	return stmt.Err()
}

// List implements [store.Journal].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[store.JobRecord, error] {
	return func(yield func(store.JobRecord, error) bool) {
		numbers, err := s.listed(ctx, prefix)
		for ; err == nil && len(numbers) > 0; numbers = numbers[min(listPiece, len(numbers)):] {
			var found []store.JobRecord
			found, err = s.jobsOf(ctx, prefix, numbers[:min(listPiece, len(numbers))])
			for i := range found {
				if !yield(found[i], nil) {
					return
				}
			}
		}
		if err != nil {
			yield(store.JobRecord{}, err)
		}
	}
}

// listPiece is the number of jobs that a list reads at once. Their specifications are much
// larger than their numbers, and most lists end early.
const listPiece = 100

// ofPrefix selects the jobs whose digest begins with the first argument.
const ofPrefix = `(?1='' or substr(lower(hex(digest)), 1, length(?1))=?1)`

// listed returns the numbers of all jobs with a prefix, those with the latest run first.
func (s *Store) listed(ctx context.Context, prefix string) (numbers []int64, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err = s.do(ctx, "read", func(db *database) error {
		numbers = numbers[:0]
		return db.read(ctx, func(c *conn) error {
			return c.rows(func(r *columns) { numbers = append(numbers, r.int()) },
				`select id from jobs where `+ofPrefix+` order by (select max(id) from runs where job=jobs.id) desc`, prefix)
		})
	})
	return numbers, err
}

// jobsOf returns jobs by their numbers, without those that were deleted meanwhile.
func (s *Store) jobsOf(ctx context.Context, prefix string, numbers []int64) (found []store.JobRecord, err error) {
	err = s.do(ctx, "read", func(db *database) error {
		found = found[:0]
		return db.read(ctx, func(c *conn) error {
			for _, number := range numbers {
				err := c.rows(func(r *columns) { found = append(found, readJob(r)) },
					`select digest, action, derived, input, total, created, spec from jobs where id=?2 and `+ofPrefix, prefix, number)
				if err != nil {
					return err
				}
			}
			return nil
		})
	})
	return found, err
}

func readJob(r *columns) (job store.JobRecord) {
	copy(job.ID[:], r.blob())
	copy(job.Action[:], r.blob())
	for derived := r.blob(); len(derived) >= len(store.Action{}); derived = derived[len(store.Action{}):] {
		job.Derived = append(job.Derived, store.Action(derived))
	}
	copy(job.Input[:], r.blob())
	job.Total = int(r.int())
	job.Created = r.time()
	job.Spec = r.blob()
	return job
}

func yieldAll[T any](found []T, err error, yield func(T, error) bool) {
	for _, item := range found {
		if !yield(item, nil) {
			return
		}
	}
	if err != nil {
		var none T
		yield(none, err)
	}
}

// pieces yields the items that next reads, piece by piece, each piece in a
// transaction of its own, until a piece is empty. next may be called again with the
// same item after an error. If the job is deleted meanwhile, the error is ErrNoJob,
// even if it was submitted again, so that a part does not look like the whole.
func pieces[T any](s *Store, ctx context.Context, job store.JobID, next func(c *conn, row int64, after *T) ([]T, error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var last *T
		var of int64
		for {
			var piece []T
			again := false
			err := s.look(ctx, job, func(c *conn, row int64) (err error) {
				if again = last != nil && row != of; again {
					return nil
				}
				of = row
				piece, err = next(c, row, last)
				return err
			})
			if again {
				err = store.ErrNoJob
			}
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			if len(piece) == 0 {
				return
			}
			for _, item := range piece {
				if !yield(item, nil) {
					return
				}
			}
			last = &piece[len(piece)-1]
		}
	}
}

// IDs implements [store.Journal].
func (s *Store) IDs(ctx context.Context, job store.JobID) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		part := int64(0)
		next := func(c *conn, row int64, _ *[]byte) (piece [][]byte, err error) {
			err = c.rows(func(r *columns) { piece = append(piece, r.blob()) }, "select ids from job_ids where job=? and part=?", row, part)
			return piece, err
		}
		for piece, err := range pieces(s, ctx, job, next) {
			part++
			if !yield(piece, err) {
				return
			}
		}
	}
}

// Runs implements [store.Journal].
func (s *Store) Runs(ctx context.Context, job store.JobID) (runs []store.Run, err error) {
	err = s.look(ctx, job, func(c *conn, row int64) error {
		runs = runs[:0]
		return c.rows(func(r *columns) {
			run := store.Run{RunKey: store.RunKey{Job: job, Number: int(r.int())}, Started: r.time(), Seen: r.time(), Ended: r.time()}
			run.Info, run.Active, run.Report = r.blob(), r.blob(), r.blob()
			runs = append(runs, run)
		}, "select number, started, seen, ended, info, active, report from runs where job=? order by number", row)
	})
	return runs, err
}

// Extents implements [store.Journal].
func (s *Store) Extents(ctx context.Context, job store.JobID) iter.Seq2[store.Extent, error] {
	return func(yield func(store.Extent, error) bool) {
		var found []store.Extent
		err := s.look(ctx, job, func(c *conn, row int64) error {
			found = found[:0]
			return c.rows(func(r *columns) {
				found = append(found, store.Extent{Run: int(r.int()), First: int(r.int()), Count: int(r.int())})
			},
				"select run, first, count from spans where job=? order by first, run", row)
		})
		yieldAll(found, err, yield)
	}
}

// spansAtOnce spans, of at most about 130 KB each, are read in one transaction.
const spansAtOnce = 32

// Spans implements [store.Journal].
func (s *Store) Spans(ctx context.Context, job store.JobID, from, to int) iter.Seq2[store.Span, error] {
	return pieces(s, ctx, job, func(c *conn, row int64, after *store.Span) (piece []store.Span, err error) {
		last := store.Span{First: -1}
		if after != nil {
			last = *after
		}
		err = c.rows(func(r *columns) {
			span := store.Span{Run: int(r.int()), First: int(r.int())}
			for b := r.blob(); len(b) >= len(store.Digest{}); b = b[len(store.Digest{}):] {
				span.Chunks = append(span.Chunks, store.Digest(b))
			}
			span.Detail = r.blob()
			piece = append(piece, span)
		}, `select run, first, chunks, detail from spans
			where job=? and (first, run)>(?, ?) and first<? and first+count>? order by first, run limit ?`,
			row, int64(last.First), int64(last.Run), int64(to), int64(from), int64(spansAtOnce))
		return piece, err
	})
}

// attemptsAtOnce attempts are read in one transaction.
const attemptsAtOnce = 1000

// Attempts implements [store.Journal].
func (s *Store) Attempts(ctx context.Context, job store.JobID, from, to int) iter.Seq2[store.Attempt, error] {
	return func(yield func(store.Attempt, error) bool) {
		type numbered struct {
			store.Attempt
			id int64
		}
		next := func(c *conn, row int64, after *numbered) (piece []numbered, err error) {
			last := numbered{store.Attempt{Chunk: from}, 0}
			if after != nil {
				last = *after
			}
			err = c.rows(func(r *columns) {
				n := numbered{id: r.int()}
				n.Run, n.Chunk, n.Final = int(r.int()), int(r.int()), r.int() != 0
				n.Class, n.Detail = string(r.blob()), r.blob()
				piece = append(piece, n)
			}, `select id, run, chunk, final, class, detail from attempts
				where job=? and (chunk, id)>(?, ?) and chunk<? order by chunk, id limit ?`,
				row, int64(last.Chunk), last.id, int64(to), int64(attemptsAtOnce))
			return piece, err
		}
		for n, err := range pieces(s, ctx, job, next) {
			if !yield(n.Attempt, err) {
				return
			}
		}
	}
}
