package postgres

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// ActiveLease is a lease on the chunks From..To-1 that a worker executes.
type ActiveLease struct {
	From      int       `json:"from"`
	To        int       `json:"to"`
	Worker    string    `json:"worker"`
	App       string    `json:"app"`
	Host      string    `json:"host"`
	Since     time.Time `json:"since"`
	Deadline  time.Time `json:"deadline"` // if it is not renewed
	Announced bool      `json:"announced"`
}

// Moment is the state of a job's chunks in one snapshot of the database. Groups are spans
// of chunks, of which the first is in it and the last is not; the other chunks are pending.
// Leases may hold chunks that have an output already, or that another lease has too.
type Moment struct {
	Succeeded, Failed [][2]int
	Active            []ActiveLease
}

// MomentOf reads the state of a job's chunks. The error is [store.ErrNoJob] if there is no
// such job.
func (s *Store) MomentOf(ctx context.Context, job store.JobID) (m Moment, err error) {
	var succeeded, failed, active string
	err = s.one(ctx, `select
			coalesce((select json_agg(json_build_array(lower(r), upper(r))) from unnest((select range_agg(int8range(s.first, s.first + s.count)) from $.spans s where s.job = j.n)) r), '[]')::text,
			coalesce((select json_agg(json_build_array(lower(r), upper(r))) from unnest((select range_agg(int8range(h.chunk, h.chunk + 1)) from $.histories h where h.job = j.n and h.failed)) r), '[]')::text,
			coalesce((select json_agg(json_build_object('from', s.done, 'to', s.last, 'worker', w.name, 'app', w.app, 'host', w.host,
				'since', s.since, 'deadline', s.until, 'announced', s.announced) order by s.done, s.since)
				from $.active_slots(j.n) s join $.workers_v w on w.id = s.worker where s.kind = 0), '[]')::text
		from $.jobs j where j.id = $1`, []any{job[:]}, &succeeded, &failed, &active)
	if err != nil {
		return m, err
	}
	return m, errors.Join(json.Unmarshal([]byte(succeeded), &m.Succeeded), json.Unmarshal([]byte(failed), &m.Failed), json.Unmarshal([]byte(active), &m.Active))
}

// ChunkState is a chunk of a job that workers share.
type ChunkState struct {
	Worker   string     `json:"worker"` // that leases the chunk or leased it last; "" if none did
	App      string     `json:"app"`
	Host     string     `json:"host"`
	Start    *time.Time `json:"start"`    // of the lease
	Deadline *time.Time `json:"deadline"` // of the lease, if it goes on; nil = none does
	Failures int        `json:"failures"` // that count, since the job was submitted
	Requeues int        `json:"requeues"`
	Losses   int        `json:"losses"` // workers that died or vanished while only this chunk ran
}

// ChunkOf reads the state of a chunk, by its number. The error is [store.ErrNoJob] if the
// store does not have the job.
func (s *Store) ChunkOf(ctx context.Context, job store.JobID, chunk int) (c ChunkState, err error) {
	err = s.one(ctx, `select coalesce(w.name, e.worker, ''), coalesce(w.app, e.app, ''), coalesce(w.host, e.host, ''), coalesce(w.since, e.time), w.until,
			coalesce(h.failures, 0), coalesce(h.requeues, 0), coalesce(h.losses, 0)
		from $.jobs j
		left join $.histories h on h.job = j.n and h.chunk = $2
		left join lateral (select v.name, v.app, v.host, s.since, s.until from $.active_slots(j.n) s join $.workers_v v on v.id = s.worker
			where s.kind = 0 and s.done <= $2 and s.last > $2 order by s.since limit 1) w on true
		left join lateral (select e.worker, e.time, v.app, v.host from $.events e
			left join lateral (select v.app, v.host from $.workers_v v where v.name = e.worker order by v.started desc limit 1) v on true
			where e.job = j.n and e.kind = 'leased' and e.first <= $2 and e.last >= $2 order by e.n desc limit 1) e on true
		where j.id = $1`, []any{job[:], chunk}, &c.Worker, &c.App, &c.Host, &c.Start, &c.Deadline, &c.Failures, &c.Requeues, &c.Losses)
	return c, err
}

// JobWork is the work of workers on a job.
type JobWork struct {
	Most    int // most leases at once
	Workers []WorkerShare
}

// WorkerShare is the work of one worker on a job. Workers with the same name are one.
type WorkerShare struct {
	Name, App, Host string
	Chunks          int64         // attempts whose end it reported
	Busy            time.Duration // sum of the times of its leases
	Lost            int64         // leases that expired
}

// WorkOn reads the work on a job from its events. number is the job's number in the
// database.
func (s *Store) WorkOn(ctx context.Context, number int) (w JobWork, err error) {
	err = s.one(ctx, `select coalesce(max(busy), 0) from (select sum(case when kind = 'leased' then 1 else -1 end) over (order by n) busy
		from $.events where job = $1 and (kind = 'leased' or kind = 'lease_ended' and why <> 'stolen')) b`, []any{number}, &w.Most)
	if err != nil {
		return w, err
	}
	w.Workers, err = rows(ctx, s, `select e.worker, coalesce(max(w.app), ''), coalesce(max(w.host), ''), sum(e.executed)::bigint,
			coalesce(sum(extract(epoch from e.time - b.time)), 0)::float8, count(*) filter (where e.why = 'expired')
		from $.events e
		left join lateral (select time from $.events b where b.job = e.job and b.kind = 'leased' and b.first = e.first and b.worker = e.worker and b.n < e.n order by b.n desc limit 1) b on true
		left join lateral (select app, host from $.workers_v v where v.name = e.worker order by v.started desc limit 1) w on true
		where e.job = $1 and e.kind = 'lease_ended' and e.why <> 'stolen' and e.worker is not null
		group by e.worker order by e.worker`, func(r pgx.Rows) (share WorkerShare, err error) {
		var seconds float64
		err = r.Scan(&share.Name, &share.App, &share.Host, &share.Chunks, &seconds, &share.Lost)
		share.Busy = time.Duration(seconds * float64(time.Second))
		return share, err
	}, number)
	return w, err
}
