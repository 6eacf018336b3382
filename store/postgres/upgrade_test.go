package postgres_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// firstPack encodes records as the schema has them that was made before the first release.
func firstPack(records []store.Record) (marks, data, sum []byte) {
	for i := range records {
		r := &records[i]
		marks = append(marks, r.Chunk[:8]...)
		data = append(data, r.Chunk[:]...)
		data = append(binary.AppendUvarint(data, uint64(len(r.Order))), r.Order...)
		data = binary.AppendUvarint(data, r.Fuel)
		data = append(binary.AppendUvarint(data, uint64(len(r.Output))), r.Output...)
	}
	of := sha256.Sum256(data)
	return marks, data, of[:]
}

// first makes the schema from before the first release, which testdata has, with a job of six
// chunks: two are in a pack, two in a damaged one, and two were never executed.
func first(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	text, err := os.ReadFile("testdata/schema0.sql")
	if err != nil {
		t.Fatal(err)
	}
	script := strings.NewReplacer("@SCHEMA@", "wasm_jobs", "@NAME@", "wasm_jobs").Replace(string(text))
	if _, err := conn.PgConn().Exec(t.Context(), "create schema wasm_jobs; set search_path = wasm_jobs;"+script).ReadAll(); err != nil {
		t.Fatal(err)
	}
	exec := func(sql string, args ...any) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	action, id := store.Action{1}, store.JobID{1}
	exec("insert into actions (digest) values ($1)", action[:])
	exec("insert into jobs (id, action, derived, input, total, spec, latest, state, run, classes) values ($1, 1, '{}', '\\x', 6, '{}', 1, 'active', 1, '{trap}')", id[:])
	exec("insert into runs (job, number, token, info) values (1, 1, '\\x01', '{}')")
	for _, from := range []int{0, 2} {
		records := spanOf(from, from+2, usual).Records
		marks, data, sum := firstPack(records)
		exec("insert into packs (action, job, first, count, bytes, low, high, marks, data, sum) values (1, 1, $1, 2, 16, $2, $3, $4, $5, $6)", from, records[0].Order, records[1].Order, marks, data, sum)
		digests := slices.Concat(records[0].Chunk[:], records[1].Chunk[:])
		exec("insert into spans (job, first, run, count, chunks, detail) values (1, $1, 1, 2, $2, '\\x00')", from, digests)
	}
	exec("update packs set data = set_byte(data, 40, 255 # get_byte(data, 40)) where first = 2")
	exec("insert into workers (token, name, app, host, pid, engine, slots, lease_ms) values ('\\x02', 'first', 'a', 'h', 1, '', 1, 30000)")
	exec("insert into slots (worker, slot, key, job, first, last, granted_job, granted_first, granted_last, since, until) values (1, 1, 7, 1, 4, 6, 1, 4, 6, now(), now() + interval '30 seconds')")
}

// objects describes all tables, functions and views of a schema, and the rights on them.
func objects(t *testing.T, conn *pgx.Conn) []string {
	t.Helper()
	r, err := conn.Query(t.Context(), `
		select format('column %s.%s %s %s %s %s', table_name, column_name, data_type, is_nullable, column_default, is_identity) from information_schema.columns where table_schema = 'wasm_jobs'
		union all select format('storage %s.%s %s', attrelid::regclass, attname, attstorage) from pg_attribute a join pg_class c on c.oid = a.attrelid where relnamespace = 'wasm_jobs'::regnamespace and attnum > 0 and not attisdropped
		union all select format('function %s %s %s %s %s', p.oid::regprocedure, p.prosecdef, p.proconfig, p.prosrc, (select array_agg(a::text order by a::text) from unnest(p.proacl) a)) from pg_proc p where pronamespace = 'wasm_jobs'::regnamespace
		union all select format('view %s %s', viewname, definition) from pg_views where schemaname = 'wasm_jobs'
		union all select format('rights %s %s', relname, (select array_agg(a::text order by a::text) from unnest(relacl) a)) from pg_class where relnamespace = 'wasm_jobs'::regnamespace and relkind in ('r', 'v', 'S')
		union all select format('index %s', indexdef) from pg_indexes where schemaname = 'wasm_jobs'
		order by 1`)
	if err != nil {
		t.Fatal(err)
	}
	all, err := pgx.CollectRows(r, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// connection connects to a database.
func connection(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// TestUpgrade raises a schema from before the first release: it is then the same as a new one, outputs are kept, a
// damaged pack stays damaged, jobs go on, and workers of that time are told both
// versions.
func TestUpgrade(t *testing.T) {
	server := pgtest.Shared(t)
	fresh, url := server.Database(t), server.Database(t)
	if _, err := postgres.Migrate(t.Context(), fresh, postgres.Options{}, true); err != nil {
		t.Fatal(err)
	}
	conn := connection(t, url)
	first(t, conn)
	pgtest.Exec(t, url, "grant usage on schema wasm_jobs to wasm_jobs_admin, wasm_jobs_submit, wasm_jobs_worker, wasm_jobs_read")
	if _, err := postgres.Open(t.Context(), url, postgres.Options{Create: true}); !isSchema(err, -1, false) || !strings.Contains(err.Error(), "before the first release: want version 1") {
		t.Errorf("before: %v", err)
	}
	var all sync.WaitGroup
	for range 5 {
		all.Go(func() {
			if version, err := postgres.Migrate(t.Context(), url, postgres.Options{}, false); err != nil || version != postgres.SchemaVersion {
				t.Errorf("schema %d, %v", version, err)
			}
		})
	}
	if all.Wait(); t.Failed() {
		t.FailNow()
	}
	got, want := objects(t, connection(t, url)), objects(t, connection(t, fresh))
	for _, pair := range [2][2][]string{{got, want}, {want, got}} {
		for _, o := range pair[0] {
			if !slices.Contains(pair[1], o) {
				t.Errorf("only one of both schemas has %.200s", o)
			}
		}
	}
	_, err := conn.Exec(t.Context(), "select wasm_jobs.worker_next(1, '\\x02', 1, '{}', null)")
	if pg, ok := errors.AsType[*pgconn.PgError](err); !ok || !strings.Contains(pg.Message, "schema version 1, and this worker needs version 0") {
		t.Errorf("a worker of that time: %v", err)
	}
	afterUpgrade(t, url)
}

// afterUpgrade executes the rest of the job.
func afterUpgrade(t *testing.T, url string) {
	t.Helper()
	damaged := 0
	s, err := postgres.Open(t.Context(), url, postgres.Options{Connections: 4, Damaged: func(d postgres.Damage) { damaged += d.Count }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if r, err := s.Check(t.Context()); err != nil || r.Outputs != 2 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := stored(t, s, 1, 6); damaged != 2 || fmt.Sprint(got) != "[output 0 output 1 - - - -]" {
		t.Errorf("%d damaged, %v", damaged, got)
	}
	w := register(t, s, "w")
	if executed := finishJob(t, w, 1, 6); executed != 4 {
		t.Errorf("%d chunks were executed, want 4", executed)
	}
	if got := stored(t, s, 1, 6); fmt.Sprint(got) != "[output 0 output 1 output 2 output 3 output 4 output 5]" {
		t.Errorf("%v", got)
	}
}
