package postgres

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"iter"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// token returns a random name of a request. A request that is repeated because its answer
// was lost has the same token.
func token() []byte {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // it never fails
	return b
}

// Begin implements [store.Journal].
func (s *Store) Begin(ctx context.Context, job store.JobRecord, ids iter.Seq[[]byte], info []byte) (store.RunKey, error) {
	if err := s.open(ctx); err != nil {
		return store.RunKey{}, err
	}
	x, err := s.indexOf(ctx, job.Action, true)
	if err != nil {
		return store.RunKey{}, err
	}
	action := x.id
	x.mu.Unlock()
	key, mark := store.RunKey{Job: job.ID}, token()
	err = s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.upsert(ctx, tx, action, &job, ids)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, s.sql(`insert into $.runs (job, number, token, info)
			select $1, coalesce(max(number), 0) + 1, $2, $3 from $.runs where job = $1 on conflict (job, token) do nothing`), n, mark, string(info))
		if err != nil {
			return err
		}
		return tx.QueryRow(ctx, s.sql("select number from $.runs where job = $1 and token = $2"), n, mark).Scan(&key.Number)
	})
	return key, err
}

// upsert makes the row of a job, or renews it, and locks it.
func (s *Store) upsert(ctx context.Context, tx pgx.Tx, action int, job *store.JobRecord, ids iter.Seq[[]byte]) (n int, err error) {
	derived := [][]byte{}
	for _, d := range job.Derived {
		derived = append(derived, d[:])
	}
	var isNew bool
	err = tx.QueryRow(ctx, s.sql(`insert into $.jobs (id, action, derived, input, total, spec, latest, name)
		values ($1, $2, $3, $4, $5, $6, nextval('$.begun'), $7)
		on conflict (id) do update set spec = excluded.spec, latest = excluded.latest, name = excluded.name returning n, xmax = 0`),
		job.ID[:], action, derived, job.Input[:], job.Total, string(job.Spec), nameIn(job.Spec)).Scan(&n, &isNew)
	if err != nil || !isNew {
		return n, err
	}
	number := 0
	for piece := range ids {
		if _, err := tx.Exec(ctx, s.sql("insert into $.ids values ($1, $2, $3)"), n, number, piece); err != nil {
			return n, err
		}
		number++
	}
	return n, nil
}

// nameIn returns the name of a job for the public view, "" if its specification has none.
func nameIn(spec []byte) string {
	var named struct {
		Name string `json:"name"`
	}
	_ = json.Unmarshal(spec, &named) // the specification is the caller's
	return strings.ReplaceAll(strings.ToValidUTF8(named.Name, "?"), "\x00", "?")
}

// open returns an error if the store is closed or the context has ended.
func (s *Store) open(ctx context.Context) error {
	if s.closed.Load() {
		return store.ErrClosed
	}
	return ctx.Err()
}

// numberOf returns the number of a job in the database. The error is [store.ErrNoJob].
func (s *Store) numberOf(ctx context.Context, job store.JobID) (n int, err error) {
	if err := s.open(ctx); err != nil {
		return 0, err
	}
	err = s.one(ctx, "select n from $.jobs where id = $1", []any{job[:]}, &n)
	return n, err
}

// Finish implements [store.Journal].
func (s *Store) Finish(ctx context.Context, run store.RunKey, action store.Action, records []store.Record, span store.Span) error {
	n, err := s.numberOf(ctx, run.Job)
	if err != nil {
		return err
	}
	x, err := s.indexOf(ctx, action, true)
	if err != nil {
		return err
	}
	defer x.mu.Unlock()
	s.puts.Add(1)
	chunks := make([]byte, 0, len(store.Digest{})*len(span.Chunks))
	for i := range span.Chunks {
		chunks = append(chunks, span.Chunks[i][:]...)
	}
	return s.access.put(ctx, x, action, records, func(ctx context.Context, tx pgx.Tx, clean bool) error {
		tag, err := tx.Exec(ctx, s.sql("update $.runs set seen = clock_timestamp() where job = $1 and number = $2"), n, run.Number)
		if err != nil {
			return err
		}
		if tag.RowsAffected() == 0 {
			return pgx.ErrNoRows
		}
		if !clean {
			return nil
		}
		// A chunk with an output has not failed any more, also if workers gave it up.
		_, err = tx.Exec(ctx, s.sql(`with executed as (delete from $.histories where job = $1 and chunk >= $2 and chunk < $2 + $4)
			insert into $.spans (job, first, run, count, chunks, detail) values ($1, $2, $3, $4, $5, $6)
			on conflict (job, first, run) do update set count = excluded.count, chunks = excluded.chunks, detail = excluded.detail`),
			n, span.First, run.Number, len(span.Chunks), chunks, span.Detail)
		return err
	})
}

// Note implements [store.Journal].
func (s *Store) Note(ctx context.Context, run store.RunKey, active []byte, failed []store.Attempt) error {
	return s.ofRun(ctx, run, func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, s.sql("update $.runs set seen = clock_timestamp(), active = $3 where job = $1 and number = $2"), n, run.Number, string(active))
		if err != nil || len(failed) == 0 {
			return err
		}
		_, err = tx.CopyFrom(ctx, pgx.Identifier{s.schema, "attempts"}, []string{"job", "run", "chunk", "final", "class", "detail"},
			pgx.CopyFromSlice(len(failed), func(i int) ([]any, error) {
				a := &failed[i]
				return []any{n, run.Number, int64(a.Chunk), a.Final, a.Class, string(a.Detail)}, nil
			}))
		return err
	})
}

// End implements [store.Journal]. If one process ran a shared job to its end, the
// job takes the state of that run.
func (s *Store) End(ctx context.Context, run store.RunKey, report []byte) error {
	return s.ofRun(ctx, run, func(ctx context.Context, tx pgx.Tx, n int) error {
		_, err := tx.Exec(ctx, s.sql("update $.runs set seen = clock_timestamp(), ended = clock_timestamp(), report = $3 where job = $1 and number = $2"), n, run.Number, string(report))
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, s.sql(`update $.jobs set state = 'succeeded', ended = clock_timestamp(), error = '', broken_by = ''
			where n = $1 and state in ('active', 'paused', 'cancelled', 'incomplete', 'broken') and $2::json->>'state' = 'succeeded'`), n, string(report))
		return err
	})
}

// ofRun calls f with the number of the job of a run, unless the job was deleted.
func (s *Store) ofRun(ctx context.Context, run store.RunKey, f func(ctx context.Context, tx pgx.Tx, n int) error) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	err := s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		var n int
		err := tx.QueryRow(ctx, s.sql("select j.n from $.jobs j join $.runs r on r.job = j.n where j.id = $1 and r.number = $2 for update of r"), run.Job[:], run.Number).Scan(&n)
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		return f(ctx, tx, n)
	})
	return err
}

// each yields the rows of a query, and fetches a batch at a time.
func each[T any](ctx context.Context, s *Store, job *store.JobID, statement string, scan func(pgx.Rows) (T, error), args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var none T
		err := s.open(ctx)
		if err == nil && job != nil {
			_, err = s.numberOf(ctx, *job)
		}
		var all []T
		if err == nil {
			all, err = rows(ctx, s, statement, scan, args...)
		}
		if err != nil {
			yield(none, err)
			return
		}
		for _, item := range all {
			if !yield(item, nil) {
				return
			}
		}
	}
}

var hexPrefix = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[0-9a-f]{0,64}$`) })

// List implements [store.Journal].
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[store.JobRecord, error] {
	if !hexPrefix().MatchString(prefix) {
		return func(func(store.JobRecord, error) bool) {}
	}
	return each(ctx, s, nil, `select j.id, a.digest, j.derived, j.input, j.total, j.spec, j.created, j.state, j.error, j.priority, j.max_concurrency
		from $.jobs j join $.actions a on a.id = j.action where encode(j.id, 'hex') like $1 || '%' order by j.latest desc`, scanJob, prefix)
}

func scanJob(r pgx.Rows) (j store.JobRecord, err error) {
	var id, action, input []byte
	var derived [][]byte
	var spec string
	var shared store.Shared
	if err := r.Scan(&id, &action, &derived, &input, &j.Total, &spec, &j.Created, &shared.State, &shared.Error, &shared.Priority, &shared.MaxConcurrency); err != nil {
		return j, err
	}
	j.ID, j.Action, j.Input, j.Spec = store.JobID(digestOf(id)), store.Action(digestOf(action)), digestOf(input), []byte(spec)
	for _, d := range derived {
		j.Derived = append(j.Derived, store.Action(digestOf(d)))
	}
	if shared.State != "" {
		j.Shared = &shared
	}
	return j, nil
}

// digestOf returns the digest in b, or the zero digest if b is not one.
func digestOf(b []byte) (d store.Digest) {
	copy(d[:], b)
	return d
}

// IDs implements [store.Journal].
func (s *Store) IDs(ctx context.Context, job store.JobID) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		n, err := s.numberOf(ctx, job)
		for i := 0; err == nil; i++ {
			var piece []byte
			err = s.one(ctx, "select data from $.ids where job = $1 and n = $2", []any{n, i}, &piece)
			if errors.Is(err, store.ErrNoJob) {
				return
			}
			if err == nil && !yield(piece, nil) {
				return
			}
		}
		yield(nil, err)
	}
}

// Runs implements [store.Journal]. A run that workers share has their leases as its
// active chunks.
func (s *Store) Runs(ctx context.Context, job store.JobID) ([]store.Run, error) {
	if err := s.open(ctx); err != nil {
		return nil, err
	}
	all, err := rows(ctx, s, `select r.number, r.started, case when r.number = j.run and j.state in ('active', 'paused') then clock_timestamp() else r.seen end, r.ended, r.info,
			case when r.number = j.run and j.state in ('active', 'paused', 'cancelled') then coalesce((select json_agg(json_build_object(
				'worker', s.worker, 'from', s.done, 'to', s.last, 'since', s.since, 'until', s.until, 'announced', s.announced,
				'name', (select v.name from $.workers_v v where v.id = s.worker), 'app', (select v.app from $.workers_v v where v.id = s.worker),
				'host', (select v.host from $.workers_v v where v.id = s.worker)))::text
				from $.active_slots(j.n) s where s.kind = 0), '[]') else r.active end, r.report
		from $.runs r join $.jobs j on j.n = r.job where j.id = $1 order by r.number`, func(r pgx.Rows) (run store.Run, err error) {
		run.Job = job
		var ended *time.Time
		var info string
		var active, report *string
		if err := r.Scan(&run.Number, &run.Started, &run.Seen, &ended, &info, &active, &report); err != nil {
			return run, err
		}
		run.Info = []byte(info)
		if ended != nil {
			run.Ended = *ended
		}
		if active != nil {
			run.Active = []byte(*active)
		}
		if report != nil {
			run.Report = []byte(*report)
		}
		return run, nil
	}, job[:])
	if err == nil && len(all) == 0 {
		err = store.ErrNoJob
	}
	return all, err
}

// Extents implements [store.Journal].
func (s *Store) Extents(ctx context.Context, job store.JobID) iter.Seq2[store.Extent, error] {
	return each(ctx, s, &job, `select p.run, p.first, p.count from $.spans p join $.jobs j on j.n = p.job where j.id = $1 order by p.first, p.run`,
		func(r pgx.Rows) (e store.Extent, err error) {
			err = r.Scan(&e.Run, &e.First, &e.Count)
			return e, err
		}, job[:])
}

// spanColumns are the columns of a span, and its tables: the pack of a lease has the
// digests of its chunks.
const spanColumns = `s.run, s.first, coalesce(s.chunks, (select p.chunks from $.packs p where p.job = s.job and p.first = s.first and p.count = s.count limit 1), ''), s.detail
	from $.spans s`

// spanPage is the number of spans that one query returns.
const spanPage = 64

// Spans implements [store.Journal].
func (s *Store) Spans(ctx context.Context, job store.JobID, from, to int) iter.Seq2[store.Span, error] {
	return func(yield func(store.Span, error) bool) {
		n, err := s.numberOf(ctx, job)
		first, run := int64(-1), 0
		for err == nil {
			var page []store.Span
			page, err = rows(ctx, s, `select `+spanColumns+`
				where s.job = $1 and s.first < $3 and s.first + s.count > $2 and (s.first, s.run) > ($4, $5) order by s.first, s.run limit $6`, scanSpan, n, from, to, first, run, spanPage)
			for _, span := range page {
				if !yield(span, nil) {
					return
				}
				first, run = int64(span.First), span.Run
			}
			if err == nil && len(page) < spanPage {
				return
			}
		}
		yield(store.Span{}, err)
	}
}

func scanSpan(r pgx.Rows) (span store.Span, err error) {
	var chunks []byte
	if err := r.Scan(&span.Run, &span.First, &chunks, &span.Detail); err != nil {
		return span, err
	}
	for ; len(chunks) >= len(store.Digest{}); chunks = chunks[len(store.Digest{}):] {
		span.Chunks = append(span.Chunks, store.Digest(chunks))
	}
	return span, nil
}

// Attempts implements [store.Journal].
func (s *Store) Attempts(ctx context.Context, job store.JobID, from, to int) iter.Seq2[store.Attempt, error] {
	return each(ctx, s, &job, `select a.run, a.chunk, a.final, a.class, a.detail from $.attempts a join $.jobs j on j.n = a.job
		where j.id = $1 and a.chunk >= $2 and a.chunk < $3 order by a.chunk, a.n`, func(r pgx.Rows) (a store.Attempt, err error) {
		var detail string
		err = r.Scan(&a.Run, &a.Chunk, &a.Final, &a.Class, &detail)
		a.Detail = []byte(detail)
		return a, err
	}, job[:], from, to)
}
