package postgres

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// SharedJob is a job that is submitted for workers.
type SharedJob struct {
	store.JobRecord
	Priority, MaxConcurrency int
	Retries, MaxRequeues     int
	Classes                  []string // classes of failures that are retried
	Backoff, BackoffMax      time.Duration
	Deterministic            bool // a trap that occurs twice is retried too
	MaxFailures              *int
	Engine                   string // that workers must have
	Info                     []byte // JSON, of its run
}

// Submitted is a job that was submitted.
type Submitted struct {
	Number int    // in the database
	State  string // uploading if its input is wanted; otherwise the input is there
	Run    int
}

// Submit records a job for workers. If the job is there already, Submit updates its name,
// priority, concurrency and retries. The caller then adds the input with AddFile and
// AddSegments, and [Store.Activate] lets workers take the job.
func (s *Store) Submit(ctx context.Context, j *SharedJob, ids iter.Seq[[]byte]) (out Submitted, err error) {
	x, err := s.indexOf(ctx, j.Action, true)
	if err != nil {
		return out, err
	}
	action := x.id
	x.mu.Unlock()
	mark := token()
	err = s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		n, err := s.upsert(ctx, tx, action, &j.JobRecord, ids)
		if err != nil {
			return err
		}
		out.Number = n
		err = tx.QueryRow(ctx, s.sql(`update $.jobs set priority = $2, max_concurrency = $3, retries = $4, max_requeues = $5, classes = $6,
			backoff_ms = $7, backoff_max_ms = $8, deterministic = $9, max_failures = $10, engine = $11,
			state = case when state in ('active', 'paused', 'succeeded') then state else 'uploading' end
			where n = $1 returning state, run`), n, j.Priority, j.MaxConcurrency, j.Retries, j.MaxRequeues, j.Classes,
			j.Backoff.Milliseconds(), j.BackoffMax.Milliseconds(), j.Deterministic, j.MaxFailures, j.Engine).Scan(&out.State, &out.Run)
		if err != nil || out.State != "uploading" {
			return err
		}
		return s.beginShared(ctx, tx, n, mark, j.Info, &out.Run)
	})
	return out, err
}

// beginShared makes the run that workers share, unless a former one is still open.
func (s *Store) beginShared(ctx context.Context, tx pgx.Tx, n int, mark, info []byte, run *int) error {
	var open bool
	err := tx.QueryRow(ctx, s.sql("select exists (select from $.runs where job = $1 and number = $2 and ended is null)"), n, *run).Scan(&open)
	if err != nil || open {
		return err
	}
	_, err = tx.Exec(ctx, s.sql(`insert into $.runs (job, number, token, info)
		select $1, coalesce(max(number), 0) + 1, $2, $3 from $.runs where job = $1 on conflict (job, token) do nothing`), n, mark, string(info))
	if err != nil {
		return err
	}
	return tx.QueryRow(ctx, s.sql("update $.jobs set run = (select number from $.runs where job = $1 and token = $2) where n = $1 returning run"), n, mark).Scan(run)
}

// Missing returns the digests for which the database has no bytes, or damaged ones. Those
// that it has are kept for at least an hour more, even if no job has them.
func (s *Store) Missing(ctx context.Context, digests []store.Digest) (missing map[store.Digest]bool, err error) {
	missing = map[store.Digest]bool{}
	asked := [][]byte{}
	for _, d := range digests {
		missing[d] = true
		asked = append(asked, d[:])
	}
	there, err := rows(ctx, s, "update $.blobs set made = now() where digest = any($1) and sha256(data) = digest returning digest", func(r pgx.Rows) (d []byte, err error) {
		err = r.Scan(&d)
		return d, err
	}, asked)
	for _, d := range there {
		delete(missing, digestOf(d))
	}
	return missing, err
}

// PutBlob keeps bytes under their SHA-256, in place of damaged ones. data is nil if they are
// kept outside of the database.
func (s *Store) PutBlob(ctx context.Context, d store.Digest, size int, data []byte) error {
	return s.do(transfers(ctx, len(data)), func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql(`insert into $.blobs (digest, size, data) values ($1, $2, $3) on conflict (digest) do update
			set made = now(), data = case when sha256(blobs.data) = blobs.digest then blobs.data else excluded.data end`), d[:], size, data)
		return err
	})
}

// AddFile records a blob as the n-th part of a file of a job.
func (s *Store) AddFile(ctx context.Context, job int, role string, n int, d store.Digest) error {
	return s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql("insert into $.files values ($1, $2, $3, $4) on conflict (job, role, n) do update set digest = excluded.digest"), job, role, n, d[:])
		return err
	})
}

// Segment is a blob of neighbouring chunks of an input.
type Segment struct {
	First, Count int
	Digest       store.Digest
}

// AddSegments records blobs as segments of a job's input.
func (s *Store) AddSegments(ctx context.Context, job int, segments []Segment) error {
	var firsts []int64
	var counts []int32
	var digests [][]byte
	for i := range segments {
		g := &segments[i]
		firsts, counts, digests = append(firsts, int64(g.First)), append(counts, int32(g.Count)), append(digests, g.Digest[:])
	}
	return s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql(`insert into $.segments select $1, f, c, d from unnest($2::bigint[], $3::int[], $4::bytea[]) u(f, c, d)
			on conflict (job, first) do update set count = excluded.count, digest = excluded.digest`), job, firsts, counts, digests)
		return err
	})
}

// AddReused records that chunks, beginning with first, have outputs already.
func (s *Store) AddReused(ctx context.Context, job Submitted, first int, chunks []store.Digest, detail []byte) error {
	all := make([]byte, 0, len(store.Digest{})*len(chunks))
	for i := range chunks {
		all = append(all, chunks[i][:]...)
	}
	return s.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, s.sql(`insert into $.spans (job, first, run, count, chunks, detail, reused) values ($1, $2, $3, $4, $5, $6, true)
			on conflict (job, first, run) do update set count = excluded.count, chunks = excluded.chunks, detail = excluded.detail, reused = true`),
			job.Number, first, job.Run, len(chunks), all, detail)
		return err
	})
}

// Activate lets workers take a job whose input is complete, and returns its state.
func (s *Store) Activate(ctx context.Context, job int, sent, skipped int64) (state string, err error) {
	err = s.inTx(ctx, func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, s.sql("update $.jobs set sent = sent + $2, skipped = skipped + $3 where n = $1"), job, sent, skipped); err != nil {
			return err
		}
		return tx.QueryRow(ctx, s.sql("select $.activate($1)"), job).Scan(&state)
	})
	return state, err
}

// SetState pauses, resumes (active) or cancels a job, and returns its new state. The state
// of a job that is over does not change.
func (s *Store) SetState(ctx context.Context, job store.JobID, state string) (now string, err error) {
	err = s.one(ctx, "select coalesce($.set_state($1, $2), '')", []any{job[:], state}, &now)
	return now, err
}

// SetJob changes the priority and the maximum number of slots of a job; nil leaves a value
// unchanged. It reports false if the job is over.
func (s *Store) SetJob(ctx context.Context, job store.JobID, priority, most *int) (done bool, err error) {
	var said string
	err = s.one(ctx, "select coalesce($.set_job($1, $2, $3), '')", []any{job[:], priority, most}, &said)
	return said == "set", err
}

// Progress is the progress of a job that workers share.
type Progress struct {
	Number                   int
	State, Error, BrokenBy   string
	Priority, MaxConcurrency int
	Total, Succeeded, Failed int
	Reused                   int
	Run                      int
	Stopping                 bool
	Leases                   LeaseCounts
	Executions, Conflicts    int64
	Mended                   int64
	Sent, Skipped            int64
	Active                   int // slots
	Engine                   string
	Workers                  int // live workers with the engine of the job
	Others                   int // live workers with another engine
	Started                  time.Time
}

// LeaseCounts count the leases of a job.
type LeaseCounts struct {
	Granted    int64 `json:"granted"`
	Expired    int64 `json:"expired"`
	Returned   int64 `json:"returned"`
	Stolen     int64 `json:"stolen"`
	Duplicated int64 `json:"duplicated"`
	Late       int64 `json:"late"`
}

// Progress reads the progress of a job. The error is [store.ErrNoJob] if there is no such
// job or it was never submitted for workers.
func (s *Store) Progress(ctx context.Context, job store.JobID) (p Progress, err error) {
	err = s.one(ctx, `select j.n, j.state, j.error, j.broken_by, j.priority, j.max_concurrency, j.total, v.succeeded, v.failed,
			(select coalesce(sum(count), 0) from $.spans s where s.job = j.n and s.reused), j.run, j.stopping,
			(select count(*) from $.events e where e.job = j.n and e.kind = 'leased'), j.expired, j.returned, j.stolen, j.duplicated, j.late,
			(select coalesce(sum(e.executed), 0) from $.events e where e.job = j.n and e.kind = 'lease_ended') + (select coalesce(sum(s.executed), 0) from $.active_slots(j.n) s), j.conflicts, j.mended, j.sent, j.skipped,
			(select count(*) from $.active_slots(j.n)), j.engine,
			(select count(*) from $.workers_v w where w.state <> 'gone' and (j.engine = '' or w.engine = j.engine)),
			(select count(*) from $.workers_v w where w.state <> 'gone' and not (j.engine = '' or w.engine = j.engine)),
			coalesce((select started from $.runs r where r.job = j.n and r.number = j.run), j.created)
		from $.jobs j join $.jobs_v v on v.id = encode(j.id, 'hex') where j.id = $1 and j.state <> ''`, []any{job[:]},
		&p.Number, &p.State, &p.Error, &p.BrokenBy, &p.Priority, &p.MaxConcurrency, &p.Total, &p.Succeeded, &p.Failed, &p.Reused, &p.Run, &p.Stopping,
		&p.Leases.Granted, &p.Leases.Expired, &p.Leases.Returned, &p.Leases.Stolen, &p.Leases.Duplicated, &p.Leases.Late,
		&p.Executions, &p.Conflicts, &p.Mended, &p.Sent, &p.Skipped, &p.Active, &p.Engine, &p.Workers, &p.Others, &p.Started)
	return p, err
}

// StateOf reads the state of a job. It is cheaper than Progress, for callers that ask
// often.
func (s *Store) StateOf(ctx context.Context, job store.JobID) (state string, err error) {
	err = s.one(ctx, "select state from $.jobs where id = $1", []any{job[:]}, &state)
	return state, err
}

// Input reads the input of a job from the tables.
type Input struct {
	store *Store
	job   int
}

// InputOf returns the input of a job.
func (s *Store) InputOf(job int) *Input { return &Input{s, job} }

// IDs reads the n-th piece of the ids; nil if there is none.
func (i *Input) IDs(ctx context.Context, n int) (piece []byte, err error) {
	err = i.store.one(ctx, "select data from $.ids where job = $1 and n = $2", []any{i.job, n}, &piece)
	if errors.Is(err, store.ErrNoJob) {
		return nil, nil
	}
	return piece, err
}

// File reads the n-th part of a file; nil if there is none.
func (i *Input) File(ctx context.Context, role string, n int) (*Part, error) {
	var digest []byte
	p := &Part{}
	err := i.store.one(ctx, "select f.digest, b.data from $.files f left join $.blobs b on b.digest = f.digest where f.job = $1 and f.role = $2 and f.n = $3", []any{i.job, role, n}, &digest, &p.Data)
	if errors.Is(err, store.ErrNoJob) {
		return nil, nil
	}
	p.Digest = digestOf(digest)
	return p, err
}

// Segments reads segments of the input, beginning with the segment of the first chunk.
// They may end before the last chunk.
func (i *Input) Segments(ctx context.Context, first, last int) ([]Part, error) {
	return rows(ctx, i.store, `select g.first, g.count, g.digest, b.data from $.segments g left join $.blobs b on b.digest = g.digest
		where g.job = $1 and g.first < $3 and g.first + g.count > $2 and g.first >= coalesce((select max(h.first) from $.segments h where h.job = $1 and h.first <= $2), 0)
		order by g.first limit 16`, scanPart, i.job, first, last)
}

// Failures reads the chunks of a job that failed for good.
func (i *Input) Failures(ctx context.Context) ([]FailedChunk, error) {
	return rows(ctx, i.store, "select chunk, class, detail from $.failures_of($1)", scanFailed, i.job)
}

// WorkerState is a worker as users see it.
type WorkerState struct {
	Name    string    `json:"name"`
	App     string    `json:"app"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	State   string    `json:"state"` // busy, idle or gone
	Slots   int       `json:"slots"`
	Busy    int       `json:"busy"`
	Chunks  int64     `json:"chunks"`
	Lost    int64     `json:"lost"`
	Started time.Time `json:"started"`
	Seen    time.Time `json:"seen"`
	Engine  string    `json:"engine"`
}

// Workers reads the workers, the most recently seen first. Workers that are gone are
// listed for one day.
func (s *Store) Workers(ctx context.Context) ([]WorkerState, error) {
	return rows(ctx, s, `select name, app, host, pid, state, slots, busy, chunks, lost, started, seen, engine from $.workers_v
		where state <> 'gone' or seen > now() - interval '1 day' order by state = 'gone', seen desc, id`, func(r pgx.Rows) (w WorkerState, err error) {
		err = r.Scan(&w.Name, &w.App, &w.Host, &w.PID, &w.State, &w.Slots, &w.Busy, &w.Chunks, &w.Lost, &w.Started, &w.Seen, &w.Engine)
		return w, err
	})
}

// LongTransaction is the oldest transaction of another session that keeps the server
// from cleaning up; Age is 0 if there is none that this role may see.
type LongTransaction struct {
	PID         int
	Application string
	Age         time.Duration
}

// LongestTransaction reads it.
func (s *Store) LongestTransaction(ctx context.Context) (t LongTransaction, err error) {
	var seconds float64
	err = s.one(ctx, `select pid, coalesce(application_name, ''), extract(epoch from clock_timestamp() - xact_start)::float8 from pg_stat_activity
		where xact_start is not null and pid <> pg_backend_pid() and datname = current_database() and backend_type = 'client backend' order by xact_start limit 1`, nil, &t.PID, &t.Application, &seconds)
	if errors.Is(err, store.ErrNoJob) {
		return LongTransaction{}, nil
	}
	t.Age = time.Duration(seconds * float64(time.Second))
	return t, err
}

// Event is an event of a job that the database has recorded.
type Event struct {
	N           int64
	Time        time.Time
	Kind        string
	First, Last int // chunks; both are in it
	Worker, Why string
}

// Events reads at most 1,000 events that came after an event.
func (s *Store) Events(ctx context.Context, job int, after int64) ([]Event, error) {
	return rows(ctx, s, `select n, time, kind, coalesce(first, 0), coalesce(last, 0), coalesce(worker, ''), coalesce(why, '') from $.events
		where job = $1 and n > $2 order by n limit 1000`, func(r pgx.Rows) (e Event, err error) {
		err = r.Scan(&e.N, &e.Time, &e.Kind, &e.First, &e.Last, &e.Worker, &e.Why)
		return e, err
	}, job, after)
}
