package postgres

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// WorkerInfo describes a worker.
type WorkerInfo struct {
	Name, App, Host string
	PID             int
	Engine          string // name of its engine, as in receipts
	Slots           int
	Lease           time.Duration // how long a lease lasts if it is not renewed
}

// Worker takes leases and puts their outputs and failures. All methods are safe for
// concurrent use, but only one goroutine at a time may use a slot. Requests may be
// repeated: a lost answer loses no chunk, and nothing is counted twice.
type Worker struct {
	store *Store
	info  WorkerInfo

	mu    sync.Mutex
	id    int64
	token []byte
}

// Lease is a span of chunks, the fold of a job, or a span of the calls of its fold, that a
// slot holds.
type Lease struct {
	Slot        int
	Key         int64 // 0 = there is no lease
	Job         int   // number of the job in the database
	Fold        bool
	Calls       bool // First and Last are calls of the fold
	First, Last int  // chunks; Last is not in it
	Announced   bool
	Until       time.Time
	Version     int64 // of the job's record
}

// Register adds a worker to the database.
func (s *Store) Register(ctx context.Context, info WorkerInfo) (*Worker, error) {
	w := &Worker{store: s, info: info}
	return w, w.register(ctx, 0)
}

// register adds the worker, unless another goroutine has registered it since it had id.
func (w *Worker) register(ctx context.Context, id int64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.id != id {
		return nil
	}
	mark := token()
	i := &w.info
	err := w.store.one(ctx, "select $.worker_register($1, $2, $3, $4, $5, $6, $7, $8, $9)",
		[]any{mark, clean(i.Name), clean(i.App), clean(i.Host), i.PID, i.Engine, i.Slots, i.Lease.Milliseconds(), SchemaVersion}, &w.id)
	if err == nil {
		w.token = mark
	}
	return err
}

// clean returns s as valid UTF-8 without NUL, which the database can hold.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "?"), "\x00", "?")
}

// codes of the errors that functions raise.
const (
	codeUnknownWorker = "WJ001"
	codeNotHeld       = "WJ002"
)

// ErrNotHeld reports that the slot no longer holds the lease.
var ErrNotHeld = errors.New("the lease is over")

// call calls a function of the database. If the database does not know the worker any
// more, the worker registers again, and the call returns [ErrNotHeld].
func (w *Worker) call(ctx context.Context, statement string, args []any, to ...any) error {
	w.mu.Lock()
	id, mark := w.id, w.token
	w.mu.Unlock()
	err := w.store.one(ctx, statement, append([]any{id, mark}, args...), to...)
	return w.answered(ctx, id, err)
}

// answered returns the error of a function as an error of this package.
func (w *Worker) answered(ctx context.Context, id int64, err error) error {
	switch codeOf(err) {
	case codeUnknownWorker:
		return errors.Join(ErrNotHeld, w.register(ctx, id))
	case codeNotHeld:
		return ErrNotHeld
	}
	return err
}

// Want maps the number of a job to the number of chunks that a lease on it should have; 0
// means that no lease on the job is wanted. A lease on any other job has one chunk.
type Want map[int]int

func (w Want) json() string {
	texts := map[string]int{}
	for job, n := range w {
		texts[strconv.Itoa(job)] = n
	}
	b, _ := json.Marshal(texts) // it has only numbers
	return string(b)
}

// leaseColumns are the columns of a lease in the results of functions.
const leaseColumns = "coalesce(key, 0), coalesce(job, 0), coalesce(kind, 0), coalesce(first, 0), coalesce(last, 0), coalesce(announced, false), coalesce(until, 'epoch'), coalesce(version, 0)"

// read returns the destinations of the columns of a lease, and a function that completes
// the lease after they were scanned.
func (l *Lease) read() (to []any, done func()) {
	kind := 0
	return []any{&l.Key, &l.Job, &kind, &l.First, &l.Last, &l.Announced, &l.Until, &l.Version}, func() { l.Fold, l.Calls = kind == 1, kind == 2 }
}

// Next asks for a lease for a slot; the slot no longer holds a former one. The Key of the
// lease is 0 if there is no work. If only is not nil, the lease is of that job.
func (w *Worker) Next(ctx context.Context, slot int, want Want, only *store.JobID) (Lease, error) {
	l := Lease{Slot: slot}
	to, done := l.read()
	err := w.call(ctx, "select "+leaseColumns+" from $.worker_next($1, $2, $3, $4::text::jsonb, $5)", []any{slot, want.json(), idOf(only)}, to...)
	if errors.Is(err, ErrNotHeld) { // it is registered now, and holds nothing
		return Lease{Slot: slot}, nil
	}
	done()
	return l, err
}

func idOf(job *store.JobID) []byte {
	if job == nil {
		return nil
	}
	return job[:]
}

// Span has the outputs of one or more neighbouring chunks of a lease.
type Span struct {
	First   int
	Records []store.Record // of First, First+1, ...
	// Detail returns the details that are recorded with some of the chunks.
	Detail func(from, to int) []byte
}

// Failure is an attempt that failed.
type Failure struct {
	Chunk  int
	Class  string
	Trap   []byte // equal for two failures only if they are the same trap; nil if not a trap
	Detail []byte // JSON, with class, message and perhaps stack
}

// Settlement has the outputs and failures of a lease since its last settlement.
type Settlement struct {
	Lease
	Seq      int64 // number of the settlement, from 1, over all leases of the slot
	Spans    []Span
	Failures []Failure
	Done     int // the first chunk that was not begun
	Executed int
	Busy     time.Duration
	Ends     bool
	Next     bool // a lease is wanted
	Want     Want
	Only     *store.JobID
}

// Settle puts the outputs and the failures of a lease, may end it and may give the
// slot another one, in one transaction. If the lease ended and others had its chunks,
// outputs may be there already: they are compared, and only missing ones are put. The error is [ErrNotHeld] if the slot does not hold the lease, with the next lease
// if one was asked for, and a *[store.ConflictError] if different outputs are there.
func (w *Worker) Settle(ctx context.Context, s *Settlement) (next Lease, err error) {
	for {
		verdict, next, err := w.settle(ctx, s)
		if err != nil || verdict == "done" {
			return next, err
		}
		if verdict == "gone" {
			return next, ErrNotHeld
		}
		if err := w.cover(ctx, s); err != nil {
			return Lease{}, err
		}
	}
}

func (w *Worker) settle(ctx context.Context, s *Settlement) (verdict string, next Lease, err error) {
	var firsts, sizes []int64
	var counts []int32
	var lows, highs, chunks, heads, details, datas, sums [][]byte
	for i := range s.Spans {
		span := &s.Spans[i]
		p := NewPack(span.Records)
		firsts, counts, sizes = append(firsts, int64(span.First)), append(counts, int32(p.Count)), append(sizes, p.Bytes)
		lows, highs, chunks, heads = append(lows, p.Low), append(highs, p.High), append(chunks, p.Chunks), append(heads, p.Heads)
		details = append(details, span.Detail(span.First, span.First+len(span.Records)))
		datas, sums = append(datas, p.Data), append(sums, p.Sum[:])
	}
	next = Lease{Slot: s.Slot}
	to, done := next.read()
	err = w.call(ctx, "select verdict, "+leaseColumns+` from $.worker_settle($1, $2, $3, $4, $5, coalesce($6, '{}'::bigint[]), coalesce($7, '{}'::int[]), coalesce($8, '{}'::bigint[]),
		coalesce($9, '{}'::bytea[]), coalesce($10, '{}'::bytea[]), coalesce($11, '{}'::bytea[]), coalesce($12, '{}'::bytea[]), coalesce($13, '{}'::bytea[]), coalesce($14, '{}'::bytea[]), coalesce($15, '{}'::bytea[]),
		$16::text::jsonb, $17, $18, $19, $20, 'done', $21, $22::text::jsonb, $23)`,
		[]any{s.Slot, s.Key, s.Seq, firsts, counts, sizes, lows, highs, chunks, heads, details, datas, sums,
			failuresJSON(s.Failures), s.Done, s.Executed, s.Busy.Seconds(), s.Ends, s.Next, s.Want.json(), idOf(s.Only)},
		append([]any{&verdict}, to...)...)
	if errors.Is(err, ErrNotHeld) {
		return "gone", Lease{Slot: s.Slot}, nil
	}
	done()
	return verdict, next, err
}

func failuresJSON(failures []Failure) string {
	type failure struct {
		Chunk  int             `json:"chunk"`
		Class  string          `json:"class"`
		Trap   *string         `json:"trap"`
		Detail json.RawMessage `json:"detail"`
	}
	all := []failure{}
	for _, f := range failures {
		// A jsonb holds no NUL.
		detail := bytes.ReplaceAll(f.Detail, []byte(`\u0000`), []byte(`\ufffd`))
		next := failure{Chunk: f.Chunk, Class: f.Class, Detail: detail}
		if f.Trap != nil {
			text := hex.EncodeToString(f.Trap)
			next.Trap = &text
		}
		all = append(all, next)
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err) // details are JSON
	}
	return string(b)
}

// cover compares the spans with the stored outputs, and keeps in s.Spans the chunks that
// are not stored. The error joins a *[store.ConflictError] for each different output.
func (w *Worker) cover(ctx context.Context, s *Settlement) error {
	var left []Span
	var conflicts []error
	for i := range s.Spans {
		span := &s.Spans[i]
		there, err := w.overlaps(ctx, s.Lease, span)
		if err != nil {
			return err
		}
		for from := 0; from < len(span.Records); {
			kept, covered := there[span.First+from]
			if covered {
				r := &span.Records[from]
				if kept.Chunk != r.Chunk || kept.Fuel != r.Fuel || !bytes.Equal(kept.Output, r.Output) {
					conflicts = append(conflicts, &store.ConflictError{Chunk: r.Chunk, Stored: store.VersionOf(kept.Value), Put: store.VersionOf(r.Value)})
				}
				from++
				continue
			}
			to := from
			for ; to < len(span.Records); to++ {
				if _, covered := there[span.First+to]; covered {
					break
				}
			}
			left = append(left, Span{span.First + from, span.Records[from:to], span.Detail})
			from = to
		}
	}
	s.Spans = left
	return errors.Join(conflicts...)
}

// overlaps returns the stored outputs of the chunks of a span. It drops damaged packs.
func (w *Worker) overlaps(ctx context.Context, l Lease, span *Span) (map[int]store.Record, error) {
	w.mu.Lock()
	id, mark := w.id, w.token
	w.mu.Unlock()
	type overlap struct {
		fetched
		first, count int
	}
	all, err := rows(ctx, w.store, "select "+packColumns+", first, count from $.worker_overlaps($1, $2, $3, $4, $5, $6)", func(r pgx.Rows) (o overlap, err error) {
		err = r.Scan(append(o.columns(), &o.first, &o.count)...)
		return o, err
	}, id, mark, l.Slot, l.Key, span.First, span.First+len(span.Records))
	if err != nil {
		return nil, w.answered(ctx, id, err)
	}
	there := map[int]store.Record{}
	for _, o := range all {
		records, err := o.read()
		if err != nil || len(records) != o.count {
			var dropped bool
			if err := w.store.one(ctx, "select $.drop_damaged($1)", []any{o.id}, &dropped); err != nil {
				return nil, err
			}
			if w.store.options.Damaged != nil {
				w.store.options.Damaged(Damage{Pack: o.id, Count: o.count})
			}
			continue
		}
		for i := range records {
			if _, known := there[o.first+i]; !known {
				there[o.first+i] = records[i]
			}
		}
	}
	return there, nil
}

// Announce names the chunk that runs next, if the lease is Announced: if the worker then
// dies, that chunk is to blame. It reports whether the slot still holds the lease.
func (w *Worker) Announce(ctx context.Context, l Lease, chunk int) (goes bool, err error) {
	err = w.call(ctx, "select $.worker_announce($1, $2, $3, $4, $5)", []any{l.Slot, l.Key, chunk}, &goes)
	if errors.Is(err, ErrNotHeld) {
		return false, nil
	}
	return goes, err
}

// At is the progress of the holder of a lease.
type At struct {
	Slot int
	Key  int64
	Done int // the first chunk that was not begun
}

// Renewal is the state of a lease after a heartbeat.
type Renewal struct {
	Slot int
	Key  int64
	Last int  // its end now
	Goes bool // false if it is over, or its job is cancelled
}

// Beat renews the leases of a worker.
func (w *Worker) Beat(ctx context.Context, held []At) ([]Renewal, error) {
	slots, keys, done := []int32{}, []int64{}, []int64{}
	for _, h := range held {
		slots, keys, done = append(slots, int32(h.Slot)), append(keys, h.Key), append(done, int64(h.Done))
	}
	w.mu.Lock()
	id, mark := w.id, w.token
	w.mu.Unlock()
	all, err := rows(ctx, w.store, "select slot, key, last, goes from $.worker_beat($1, $2, $3, $4, $5)", func(r pgx.Rows) (n Renewal, err error) {
		err = r.Scan(&n.Slot, &n.Key, &n.Last, &n.Goes)
		return n, err
	}, id, mark, slots, keys, done)
	if err = w.answered(ctx, id, err); errors.Is(err, ErrNotHeld) {
		all = nil
		for _, h := range held {
			all = append(all, Renewal{Slot: h.Slot, Key: h.Key})
		}
		return all, nil
	}
	return all, err
}

// Leave gives all leases back.
func (w *Worker) Leave(ctx context.Context) error {
	var none any
	err := w.call(ctx, "select $.worker_leave($1, $2)::text", nil, &none)
	if errors.Is(err, ErrNotHeld) {
		return nil
	}
	return err
}

// Break ends a job that cannot be completed, for example because its outputs conflict. by
// is the reason: conflict, init or module.
func (w *Worker) Break(ctx context.Context, l Lease, by, text string) error {
	var none any
	return w.call(ctx, "select $.worker_break($1, $2, $3, $4, $5, $6)::text", []any{l.Slot, l.Key, by, clean(text)}, &none)
}

// Job reads the record of the job of a lease.
func (w *Worker) Job(ctx context.Context, l Lease) (store.JobRecord, error) {
	var j store.JobRecord
	var id, action, input []byte
	var spec string
	var run int
	err := w.call(ctx, "select id, action, input, total, spec, run from $.worker_job($1, $2, $3, $4)", []any{l.Slot, l.Key}, &id, &action, &input, &j.Total, &spec, &run)
	if errors.Is(err, store.ErrNoJob) {
		return j, ErrNotHeld
	}
	j.ID, j.Action, j.Input, j.Spec = store.JobID(digestOf(id)), store.Action(digestOf(action)), digestOf(input), []byte(spec)
	return j, err
}

// IDs reads the n-th piece of the ids of a job; nil if there is none.
func (w *Worker) IDs(ctx context.Context, l Lease, n int) (piece []byte, err error) {
	err = w.call(ctx, "select $.worker_ids($1, $2, $3, $4, $5)", []any{l.Slot, l.Key, n}, &piece)
	return piece, err
}

// Part is a piece of a file or of the input, by its digest. Data is nil if it is kept
// outside of the database.
type Part struct {
	First, Count int // chunks, of a segment
	Digest       store.Digest
	Data         []byte
}

// File reads the n-th part of a file of the job; nil if there is none.
func (w *Worker) File(ctx context.Context, l Lease, role string, n int) (*Part, error) {
	var digest []byte
	p := &Part{}
	err := w.call(ctx, "select digest, data from $.worker_file($1, $2, $3, $4, $5, $6)", []any{l.Slot, l.Key, role, n}, &digest, &p.Data)
	if errors.Is(err, store.ErrNoJob) {
		return nil, nil
	}
	p.Digest = digestOf(digest)
	return p, err
}

// Segments reads segments of the input, beginning with the segment of the first chunk.
// They may end before the last chunk.
func (w *Worker) Segments(ctx context.Context, l Lease, first, last int) ([]Part, error) {
	w.mu.Lock()
	id, mark := w.id, w.token
	w.mu.Unlock()
	all, err := rows(ctx, w.store, "select first, count, digest, data from $.worker_segments($1, $2, $3, $4, $5, $6)", scanPart, id, mark, l.Slot, l.Key, first, last)
	return all, w.answered(ctx, id, err)
}

func scanPart(r pgx.Rows) (p Part, err error) {
	var digest []byte
	err = r.Scan(&p.First, &p.Count, &digest, &p.Data)
	p.Digest = digestOf(digest)
	return p, err
}

// FailedChunk is a chunk that failed for good.
type FailedChunk struct {
	Chunk  int
	Class  string
	Detail []byte
}

func scanFailed(r pgx.Rows) (f FailedChunk, err error) {
	var detail string
	err = r.Scan(&f.Chunk, &f.Class, &detail)
	f.Detail = []byte(detail)
	return f, err
}

// Failures reads the failed chunks of the job whose fold is leased.
func (w *Worker) Failures(ctx context.Context, l Lease) ([]FailedChunk, error) {
	w.mu.Lock()
	id, mark := w.id, w.token
	w.mu.Unlock()
	all, err := rows(ctx, w.store, "select chunk, class, detail from $.worker_failures($1, $2, $3, $4)", scanFailed, id, mark, l.Slot, l.Key)
	return all, w.answered(ctx, id, err)
}

// Finish ends the job whose fold is leased: succeeded, incomplete or broken. It reports
// false if outputs are missing, and the job continues.
func (w *Worker) Finish(ctx context.Context, l Lease, state, text string, report []byte) (ended bool, err error) {
	err = w.call(ctx, "select $.worker_finish($1, $2, $3, $4, $5, $6, $7)", []any{l.Slot, l.Key, state, clean(text), clean(string(report))}, &ended)
	return ended, err
}

// Outputs returns the outputs of the job whose fold is leased, and the records that the
// fold keeps. The store belongs to the lease: callers do not close it.
func (w *Worker) Outputs(l Lease) store.Store {
	s := &Store{pool: w.store.pool, options: w.store.options, schema: w.store.schema, url: w.store.url, indexes: map[store.Action]*index{}}
	s.access = &leased{s, w, l}
	return s
}

// leased reads and writes outputs with functions that check the lease.
type leased struct {
	*Store
	worker *Worker
	lease  Lease
}

// args returns the arguments that functions check the lease by, and the id of the worker.
func (l *leased) args(more ...any) (id int64, all []any) {
	l.worker.mu.Lock()
	defer l.worker.mu.Unlock()
	return l.worker.id, append([]any{l.worker.id, l.worker.token, l.lease.Slot, l.lease.Key}, more...)
}

func (l *leased) action(ctx context.Context, digest store.Action, _ bool) (id int, err error) {
	worker, args := l.args(digest[:])
	err = l.one(ctx, "select $.worker_action($1, $2, $3, $4, $5)", args, &id)
	return id, l.worker.answered(ctx, worker, err)
}

func (l *leased) index(ctx context.Context, action int, since string, known []int64) ([]listed, error) {
	worker, args := l.args(action, since, known)
	all, err := rows(ctx, l.Store, indexColumns+"$.worker_index($1, $2, $3, $4, $5, $6, $7)", scanListed, args...)
	return all, l.worker.answered(ctx, worker, err)
}

func (l *leased) packs(ctx context.Context, ids []int64) ([]fetched, error) {
	worker, args := l.args(ids)
	all, err := rows(ctx, l.Store, "select "+packColumns+" from $.worker_packs($1, $2, $3, $4, $5)", scanFetched, args...)
	return all, l.worker.answered(ctx, worker, err)
}

// keep puts a pack of a record that the fold keeps.
func (l *leased) keep(ctx context.Context, action int, p *Pack) (id int64, err error) {
	worker, args := l.args(action, p.Count, p.Bytes, p.Low, p.High, p.Chunks, p.Heads, p.Data, p.Sum[:])
	err = l.one(ctx, "select $.worker_keep($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)", args, &id)
	return id, l.worker.answered(ctx, worker, err)
}

// put keeps the records of a fold. Workers that fold the same job give the same records:
// they are compared with stored ones first; two workers that put at the same time store
// the same records in two packs.
func (l *leased) put(ctx context.Context, x *index, action store.Action, records []store.Record, _ func(ctx context.Context, tx pgx.Tx, clean bool) error) error {
	if err := l.refresh(ctx, x); err != nil {
		return err
	}
	var fresh []store.Record
	for i := range records {
		kept, err := l.record(ctx, x, &records[i].Chunk, func() []int64 { return nil })
		switch {
		case err != nil:
			return err
		case kept == nil:
			fresh = append(fresh, records[i])
		case kept.Fuel != records[i].Fuel || !bytes.Equal(kept.Output, records[i].Output):
			return &store.ConflictError{Action: action, Chunk: records[i].Chunk, Stored: store.VersionOf(kept.Value), Put: store.VersionOf(records[i].Value)}
		}
	}
	for _, p := range packs(slices.Clone(fresh)) {
		id, err := l.keep(ctx, x.id, p)
		if err != nil {
			return err
		}
		x.enter(p.entry(id), p.Chunks)
	}
	return nil
}

// WaitForWork waits until there may be work: until a notification comes, or for at most
// d. A pooler passes on no notifications; the wait then takes d. f is called once the
// connection listens, and ends the wait by returning true.
func (s *Store) WaitForWork(ctx context.Context, d time.Duration, f func(ctx context.Context) (found bool)) error {
	c, err := s.pool.Acquire(ctx)
	if err != nil {
		return explain(ctx, err)
	}
	defer c.Release()
	if _, err := c.Exec(ctx, `listen "`+s.schema+`"`); err != nil {
		return explain(ctx, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if _, err := c.Exec(closing, "unlisten *"); err != nil {
			_ = c.Conn().Close(closing)
		}
	}()
	if f(ctx) {
		return nil
	}
	limited, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	if _, err := c.Conn().WaitForNotification(limited); err != nil && limited.Err() == nil {
		return explain(ctx, err)
	}
	return ctx.Err()
}

// String names a lease in messages.
func (l Lease) String() string { return fmt.Sprintf("chunks %d to %d", l.First, l.Last-1) }
