package postgres_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestUpkeep takes many leases and gives them back: the tables of leases and of pending
// spans stay small, and the rows of slots are updated in place.
func TestUpkeep(t *testing.T) {
	t.Parallel()
	leases := 1000
	if testing.Short() {
		leases = 300
	}
	url := pgtest.Shared(t).Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, n := handIn(t, s, 1, 1000)
	w := register(t, s, "w")
	take(t, w, n, leases, func(l postgres.Lease) int { return l.First })
	s.Close() // its sessions report their counts
	for _, table := range []string{"slots", "pending"} {
		size, updates, hot := sizeOf(t, url, table)
		if size > 512<<10 || table == "slots" && hot*10 < updates*9 {
			t.Errorf("%s has %d bytes; %d of %d updates in place", table, size, hot, updates)
		}
		t.Logf("%s: %d bytes; %d of %d updates in place", table, size, hot, updates)
	}
}

// TestLongestTransaction finds the transaction of another session that has been open longest.
func TestLongestTransaction(t *testing.T) {
	url := pgtest.Shared(t).Database(t)
	s, err := postgres.Open(t.Context(), url, postgres.Options{Create: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if x, err := s.LongestTransaction(t.Context()); err != nil || x != (postgres.LongTransaction{}) {
		t.Errorf("%+v, %v", x, err)
	}
	var pids [2]int
	for i, name := range []string{"old", "new"} {
		conn, err := pgx.Connect(t.Context(), url+"&application_name="+name)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.WithoutCancel(t.Context()))
		if _, err := conn.Exec(t.Context(), "begin"); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pids[i]); err != nil {
			t.Fatal(err)
		}
	}
	if x, err := s.LongestTransaction(t.Context()); err != nil || x.PID != pids[0] || x.Application != "old" || x.Age <= 0 {
		t.Errorf("%+v, %v, want process %d", x, err, pids[0])
	}
}

// TestUpkeepLong has 16 workers take 100,000 leases and end them in each of two databases, which
// take turns, with the server's own autovacuum. In one, the transaction of another session is
// open meanwhile. The tables of leases and of pending spans stay below 8 MiB, and below 64 MiB
// in the other. It logs the rates, and the processor time of the server.
func TestUpkeepLong(t *testing.T) {
	if !*long {
		t.Skip("it takes minutes: run with -long")
	}
	const rounds, leases = 25, 4000 // in each round
	server := pgtest.Start(t, false)
	both := [2]*upkeep{newUpkeep(t, server, 8<<20), newUpkeep(t, server, 64<<20)}
	openTransaction(t, both[1].url)
	var rates, costs []float64
	for range rounds {
		for _, u := range both {
			u.take(leases / len(u.workers))
		}
		n := len(both[0].took) - 1
		rates = append(rates, both[0].took[n]/both[1].took[n])
		costs = append(costs, both[0].cost[n]/both[1].cost[n])
	}
	for i, u := range both {
		u.store.Close() // its sessions report their counts
		for table, size := range u.largest {
			_, updates, hot := sizeOf(t, u.url, table)
			t.Logf("other transaction %t: %s: at most %.1f MiB, %d of %d updates in place", i == 1, table, float64(size)/(1<<20), hot, updates)
			if size > u.limit || i == 0 && table == "slots" && hot*10 < updates*9 {
				t.Errorf("%s has %d bytes; %d of %d updates in place", table, size, hot, updates)
			}
		}
		t.Logf("other transaction %t: %.0f leases a second; %.2f ms of the server's CPU each", i == 1, rounds*leases/sum(u.took), sum(u.cost)*1000/(rounds*leases))
	}
	verdict := "holds"
	if sum(both[1].took) > 2*sum(both[0].took) {
		verdict = "falls short"
	}
	last := costs[rounds-5:]
	t.Logf("with the transaction open, the rate is %.2f of the other, at least 0.5: %s", sum(both[0].took)/sum(both[1].took), verdict)
	t.Logf("of the last 5 rounds: %.2f by the server's CPU: %.2f", sum(rates[rounds-5:])/5, sum(last)/5)
	slices.Sort(rates)
	slices.Sort(costs)
	t.Logf("%d rounds: median %.2f (quartiles %.2f to %.2f); by the server's CPU %.2f (%.2f to %.2f)", rounds,
		rates[rounds/2], rates[rounds/4], rates[3*rounds/4], costs[rounds/2], costs[rounds/4], costs[3*rounds/4])
}

// upkeep is a database in which workers take leases.
type upkeep struct {
	t          *testing.T
	server     *pgtest.Server
	url        string
	limit      int64 // bytes of a table
	store      *postgres.Store
	job        int
	workers    []*postgres.Worker
	took, cost []float64        // seconds of each round, and of the server's processors
	largest    map[string]int64 // bytes of each table
}

func newUpkeep(t *testing.T, server *pgtest.Server, limit int64) *upkeep {
	t.Helper()
	u := &upkeep{t: t, server: server, url: server.Database(t), limit: limit, largest: map[string]int64{}}
	var err error
	if u.store, err = postgres.Open(t.Context(), u.url, postgres.Options{Create: true, Connections: 16, GiveUp: 5 * time.Minute}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.store.Close() })
	_, u.job = handIn(t, u.store, 1, 1<<20)
	for range 16 {
		u.workers = append(u.workers, register(t, u.store, "w"))
	}
	return u
}

// take has each worker take leases.
func (u *upkeep) take(leases int) {
	begun, cpu := time.Now(), u.server.CPU()
	var working sync.WaitGroup
	for _, w := range u.workers {
		working.Go(func() { take(u.t, w, u.job, leases, func(l postgres.Lease) int { return l.Last }) })
	}
	working.Wait()
	u.took, u.cost = append(u.took, time.Since(begun).Seconds()), append(u.cost, (u.server.CPU()-cpu).Seconds())
	for _, table := range []string{"workers", "slots", "pending"} {
		u.largest[table] = max(u.largest[table], u.store.SizeOf(u.t, table))
	}
}

func sum(all []float64) (sum float64) {
	for _, x := range all {
		sum += x
	}
	return sum
}

// openTransaction opens a transaction of another session, for which the server keeps all
// versions of rows until the test ends.
func openTransaction(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	if _, err := conn.Exec(t.Context(), "begin isolation level repeatable read; select count(*) from wasm_jobs.jobs"); err != nil {
		t.Fatal(err)
	}
	return conn
}

// take takes leases, and ends each at once, at the chunk that done returns. The heart of the
// worker beats after every 32 leases, which a worker takes in about a second if 16 do.
func take(t *testing.T, w *postgres.Worker, job, leases int, done func(postgres.Lease) int) {
	l, err := w.Next(t.Context(), 1, postgres.Want{job: 5}, nil)
	for i := 0; err == nil && i < leases; i++ {
		l, err = w.Settle(t.Context(), &postgres.Settlement{Lease: l, Seq: l.Key, Done: done(l), Ends: true, Next: true, Want: postgres.Want{job: 5}})
		if err == nil && l.Key == 0 {
			err = errors.New("no lease")
		}
		if err == nil && i%32 == 31 {
			_, err = w.Beat(t.Context(), []postgres.At{{Slot: 1, Key: l.Key, Done: l.First}})
		}
	}
	if err != nil {
		t.Error(err)
	}
}

// sizeOf returns the size of a table with its indexes, and its updates, of which some were
// heap-only. The sessions that made them have ended.
func sizeOf(t *testing.T, url, table string) (size, updates, hot int64) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	for updates == 0 {
		err := conn.QueryRow(t.Context(), `select pg_total_relation_size(relid), n_tup_upd, n_tup_hot_upd from pg_stat_user_tables
			where schemaname = 'wasm_jobs' and relname = $1`, table).Scan(&size, &updates, &hot)
		if err != nil {
			t.Fatal(err)
		}
	}
	return size, updates, hot
}

// TestSpace deletes a job: another job of the same size uses its space.
func TestSpace(t *testing.T) {
	t.Parallel()
	s := open(t)
	size := func() (bytes int64) {
		t.Helper()
		return s.SizeOf(t, "packs")
	}
	fill := func(number byte) store.JobID {
		id, n := handIn(t, s, number, 200)
		w := register(t, s, "w")
		l, err := s.Grant(t.Context(), w, 1, n, 0, 200)
		if err != nil {
			t.Fatal(err)
		}
		large := string(make([]byte, 8<<10))
		for first := 0; first < 200; first += 50 {
			_, err := w.Settle(t.Context(), &postgres.Settlement{
				Lease: l, Seq: int64(first) + 1, Done: first + 50, Ends: first == 150,
				Spans: []postgres.Span{spanOf(first, first+50, func(i int) string { return usual(i) + large })},
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		return id
	}
	id := fill(1)
	before := size()
	if err := s.Delete(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	s.Vacuum(t)
	fill(2)
	if after := size(); before < 1<<20 || after > before+before/10 {
		t.Errorf("%d bytes, and %d after a job was deleted and another one ran", before, after)
	}
}
