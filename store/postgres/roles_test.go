package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// as returns the URL of a database for a role.
func as(t *testing.T, database, role string) string {
	t.Helper()
	return strings.Replace(database, "postgres://postgres@", "postgres://"+role+"@", 1)
}

func codeFor(t *testing.T, database, sql string) string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	_, err = conn.PgConn().Exec(t.Context(), sql).ReadAll()
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		return pg.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

// TestRights tries the statements that each role may execute, and those that it may not.
func TestRights(t *testing.T) {
	database := pgtest.Shared(t).Database(t)
	if _, err := postgres.Migrate(t.Context(), database, postgres.Options{}, true); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"worker", "submit", "read", "admin"} {
		pgtest.Exec(t, database, fmt.Sprintf("do $$ begin if not exists (select from pg_roles where rolname = 'test_%s') then create role test_%s login; end if; end $$; grant wasm_jobs_%s to test_%s", kind, kind, kind, kind))
	}
	pgtest.Exec(t, database, "do $$ begin if not exists (select from pg_roles where rolname = 'test_nobody') then create role test_nobody login; end if; end $$")
	tables := []string{"actions", "packs", "folds", "jobs", "ids", "runs", "spans", "attempts", "blobs", "segments", "files", "workers", "slots", "pending", "histories", "events", "meta"}
	const denied = "42501"
	for _, table := range tables {
		if code := codeFor(t, as(t, database, "test_worker"), "select 1 from wasm_jobs."+table); code != denied {
			t.Errorf("a worker may read %s: %q", table, code)
		}
		for _, role := range []string{"test_worker", "test_read"} {
			if code := codeFor(t, as(t, database, role), "delete from wasm_jobs."+table); code != denied {
				t.Errorf("%s may delete from %s: %q", role, table, code)
			}
		}
		if code := codeFor(t, as(t, database, "test_nobody"), "select 1 from wasm_jobs."+table); code != denied {
			t.Errorf("anybody may read %s: %q", table, code)
		}
	}
	for _, role := range []string{"test_read", "test_submit"} {
		for _, table := range []string{"workers", "slots"} { // which hold the tokens of workers
			if code := codeFor(t, as(t, database, role), "select 1 from wasm_jobs."+table); code != denied {
				t.Errorf("%s may read %s: %q", role, table, code)
			}
		}
		for _, view := range []string{"jobs_v", "leases_v", "workers_v", "scale_v", "schema_v"} {
			if code := codeFor(t, as(t, database, role), "select * from wasm_jobs."+view); code != "" {
				t.Errorf("%s may not read %s: %q", role, view, code)
			}
		}
	}
	functions := map[string]string{
		"set_state":  "select wasm_jobs.set_state('x', 'paused')",
		"set_job":    "select wasm_jobs.set_job('x', 1, 1)",
		"activate":   "select wasm_jobs.activate(1)",
		"grant":      "select * from wasm_jobs.grant_lease(null, null, 1, '{}', null)",
		"give_back":  "select wasm_jobs.give_back(1, 0, 1, false)",
		"end_broken": "select wasm_jobs.end_broken(1)",
		"mend":       "select wasm_jobs.mend(1)",
	}
	for name, sql := range functions {
		for _, role := range []string{"test_worker", "test_read", "test_nobody"} {
			if code := codeFor(t, as(t, database, role), sql); code != denied {
				t.Errorf("%s may call %s: %q", role, name, code)
			}
		}
	}
	if code := codeFor(t, as(t, database, "test_read"), "select wasm_jobs.worker_register('t', 'n', 'a', 'h', 1, 'e', 1, 2000, 2)"); code != denied {
		t.Errorf("a reader may be a worker: %q", code)
	}
	work(t, database)
}

// TestEveryRight compares the rights of each role on every function, table and view of the
// schema with a rule. A new function or table needs a place in it.
func TestEveryRight(t *testing.T) {
	database := pgtest.Shared(t).Database(t)
	if _, err := postgres.Migrate(t.Context(), database, postgres.Options{}, true); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "drop role if exists test_nobody; create role test_nobody")
	readers := []string{"schema_version", "wanted_workers", "queued", "active_slots", "failures_of", "index_of", "outputs_of", "whole"}
	submitters := append([]string{
		"set_state", "set_job", "activate", "spread", "uncovered", "notify_work", "drop_damaged", "give_back", "mend", "tell",
	}, readers...)
	hidden := []string{"slots", "workers"} // they have the tokens of workers, and what checks them
	mayCall := map[string]func(name string) bool{
		"test_nobody": func(string) bool { return false },
		"wasm_jobs_worker": func(name string) bool {
			return strings.HasPrefix(name, "worker_") || name == "drop_damaged" || name == "schema_version"
		},
		"wasm_jobs_read":   func(name string) bool { return slices.Contains(readers, name) },
		"wasm_jobs_submit": func(name string) bool { return slices.Contains(submitters, name) },
		"wasm_jobs_admin":  func(string) bool { return true },
	}
	mayDo := map[string]func(name, kind, right string) bool{
		"test_nobody":      func(string, string, string) bool { return false },
		"wasm_jobs_worker": func(string, string, string) bool { return false },
		"wasm_jobs_read":   func(name, _, right string) bool { return right == "select" && !slices.Contains(hidden, name) },
		"wasm_jobs_submit": func(name, kind, right string) bool {
			return !slices.Contains(hidden, name) && (right == "select" || kind == "r" && name != "meta")
		},
		"wasm_jobs_admin": func(string, string, string) bool { return true },
	}
	conn, err := pgx.Connect(t.Context(), database)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.WithoutCancel(t.Context()))
	checked := 0
	for role := range mayCall {
		rows, _ := conn.Query(t.Context(), `select p.proname, '', 'execute', has_function_privilege($1, p.oid, 'execute') from pg_proc p where p.pronamespace = 'wasm_jobs'::regnamespace
			union all select c.relname, c.relkind::text, r, has_table_privilege($1, c.oid, r) from pg_class c, unnest('{select,insert,update,delete}'::text[]) r
			where c.relnamespace = 'wasm_jobs'::regnamespace and c.relkind in ('r', 'v')`, role)
		var name, kind, right string
		var may bool
		_, err := pgx.ForEachRow(rows, []any{&name, &kind, &right, &may}, func() error {
			checked++
			want := mayCall[role](name)
			if right != "execute" {
				want = mayDo[role](name, kind, right)
			}
			if may != want {
				t.Errorf("%s: %s on %s: %v, want %v", role, right, name, may, want)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if checked < 400 {
		t.Errorf("only %d rights", checked)
	}
}

// work uses each role for its purpose: one submits a job, one works, with its own search
// path, and one reads.
func work(t *testing.T, database string) {
	open := func(role, more string) *postgres.Store {
		s, err := postgres.Open(t.Context(), as(t, database, role)+more, postgres.Options{GiveUp: time.Second})
		if err != nil {
			t.Fatalf("%s: %v", role, err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	submitter, reader := open("test_submit", ""), open("test_read", "")
	worker := open("test_worker", "&options=-c%20search_path%3Dpg_temp,public")
	id, n := handIn(t, submitter, 1, 20)
	w := register(t, worker, `'; drop table jobs; --"`)
	if executed := finishJob(t, w, n, 5); executed != 20 {
		t.Errorf("%d chunks", executed)
	}
	p, err := reader.Progress(t.Context(), id)
	if err != nil || p.Succeeded != 20 {
		t.Errorf("%+v, %v", p, err)
	}
	workers, err := reader.Workers(t.Context())
	if err != nil || len(workers) != 1 || workers[0].Name != `'; drop table jobs; --"` {
		t.Errorf("%+v, %v", workers, err)
	}
	for i, got := range stored(t, reader, 1, 20) {
		if got != usual(i) {
			t.Fatalf("chunk %d: %q", i, got)
		}
	}
	if _, err := reader.SetState(t.Context(), id, "cancelled"); !errors.Is(err, postgres.ErrUnreachable) {
		t.Errorf("a reader cancels: %v", err)
	}
	if _, err := submitter.SetState(t.Context(), id, "cancelled"); err != nil {
		t.Errorf("a submitter cancels: %v", err)
	}
	if err := submitter.Delete(t.Context(), id); err != nil {
		t.Errorf("a submitter deletes: %v", err)
	}
}

// TestMigrate makes the schema from many connections at once, and makes sure that schemas
// of other programs are rejected.
func TestMigrate(t *testing.T) {
	database := pgtest.URL(t)
	if _, err := postgres.Open(t.Context(), database, postgres.Options{}); !isSchema(err, 0, false) {
		t.Errorf("without a schema: %v", err)
	}
	errs := make(chan error)
	for range 20 {
		go func() {
			_, err := postgres.Migrate(t.Context(), database, postgres.Options{}, false)
			errs <- err
		}()
	}
	for range 20 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	s, err := postgres.Open(t.Context(), database, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.ExecForTest(t, "update meta set version = 99")
	s.Close()
	if _, err := postgres.Open(t.Context(), database, postgres.Options{Create: true}); !isSchema(err, 99, false) {
		t.Errorf("a newer schema: %v", err)
	}
	foreign := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, foreign, "create schema wasm_jobs; create table wasm_jobs.meta (x int)")
	if _, err := postgres.Open(t.Context(), foreign, postgres.Options{Create: true}); !isSchema(err, 0, true) {
		t.Errorf("a schema of others: %v", err)
	}
	printed := pgtest.Shared(t).Database(t)
	pgtest.Exec(t, printed, postgres.Schema("other_name", true))
	if s, err := postgres.Open(t.Context(), printed+"&wasm_jobs_schema=other_name", postgres.Options{}); err != nil {
		t.Errorf("the printed schema: %v", err)
	} else {
		s.Close()
	}
}

func isSchema(err error, have int, foreign bool) bool {
	e, ok := errors.AsType[*postgres.SchemaError](err)
	return ok && e.Have == have && e.Foreign == foreign && e.Want == postgres.SchemaVersion
}

// TestURLs makes sure that unusable URLs are rejected in time, and that no message has a
// password.
func TestURLs(t *testing.T) {
	server := pgtest.Shared(t)
	readOnly := server.Database(t)
	if _, err := postgres.Migrate(t.Context(), readOnly, postgres.Options{}, false); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		url  string
		want error
	}{
		{"mysql://x/y", &postgres.ConnectionError{}},
		{"postgres://u:secret@localhost/db", &postgres.ConnectionError{}},
		{"postgres://u@localhost/db?password=secret", &postgres.ConnectionError{}},
		{"postgres://u@db.example/db", &postgres.ConnectionError{}},
		{"postgres://u@db.example/db?sslmode=disable", &postgres.ConnectionError{}},
		{"postgres://u@localhost/db?wasm_jobs_schema=A-B", &postgres.ConnectionError{}},
		{"postgres://u@localhost/db?sslmode=maybe", &postgres.ConnectionError{}},
		{"postgres://u@127.0.0.1:1/db?sslmode=disable", postgres.ErrUnreachable},
		{server.URL("nosuchdatabase"), postgres.ErrUnreachable},
		{as(t, server.URL("postgres"), "nosuchrole"), postgres.ErrUnreachable},
		{"postgres://u@localhost/db?pool_max_conns=1", &postgres.ConnectionError{}},
		{"postgres://u@localhost/db?pool_max_conns=many", &postgres.ConnectionError{}},
		{"postgres://u@" + listening(t, func(net.Conn) {}) + "/db?sslmode=disable", postgres.ErrUnreachable},
		{"postgres://u@" + listening(t, func(c net.Conn) {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			c.Close()
		}) + "/db?sslmode=disable", postgres.ErrUnreachable},
		{readOnly + "&target_session_attrs=standby", postgres.ErrUnreachable},
		{"postgres://u@localhost/db?sslpassword=secret", &postgres.ConnectionError{}},
	} {
		start := time.Now()
		_, err := postgres.Open(t.Context(), test.url, postgres.Options{GiveUp: time.Second})
		_, isConnection := errors.AsType[*postgres.ConnectionError](err)
		_, wantsConnection := test.want.(*postgres.ConnectionError)
		if err == nil || isConnection != wantsConnection || !wantsConnection && !errors.Is(err, test.want) || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", test.url, err)
		}
		if took := time.Since(start); took > 20*time.Second {
			t.Errorf("%s: after %s", test.url, took)
		}
	}
}

// listening returns the address of a server that is no PostgreSQL.
func listening(t *testing.T, answer func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() { // until the listener is closed
		var held []net.Conn
		defer func() {
			for _, c := range held {
				c.Close()
			}
		}()
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			held = append(held, c) // it stays open
			answer(c)
		}
	}()
	return l.Addr().String()
}

// TestSecretsInURLs has passwords that are not encoded as a URL needs it: no message has a
// part of them.
func TestSecretsInURLs(t *testing.T) {
	for _, url := range []string{
		"postgres://u:a@secret@localhost:1/db", "postgres://u:a/secret@localhost:1/db", "postgres://u:1/secret@localhost:1/db", "postgres://u:a?secret@localhost:1/db",
		"postgres://u:a%zzsecret@localhost:1/db", "postgres://u:secret%", "postgres://u@localhost:1/db?password=%secret", "postgres://u:secret@localhost:x/db",
		"postgres://localhost:1/u:secret@db", "postgres://u:secret@localhost:1/db?sslmode=maybe", "postgres://u:a[secret@localhost:1/db",
	} {
		_, err := postgres.Open(t.Context(), url, postgres.Options{GiveUp: time.Second, AllowPassword: true})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// TestReadOnlyServer makes sure that a server that accepts no writes is reported in time.
func TestReadOnlyServer(t *testing.T) {
	server := pgtest.Shared(t)
	url := server.Database(t)
	if _, err := postgres.Migrate(t.Context(), url, postgres.Options{}, false); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(t.Context(), url+"&options=-c%20default_transaction_read_only%3Don", postgres.Options{GiveUp: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Register(t.Context(), postgres.WorkerInfo{Name: "w", Slots: 1, Lease: 2 * time.Second}); !errors.Is(err, postgres.ErrUnreachable) {
		t.Errorf("%v", err)
	}
}

// TestReservedSchema makes a schema whose name is a word of SQL.
func TestReservedSchema(t *testing.T) {
	url := pgtest.Shared(t).Database(t) + "&wasm_jobs_schema=user"
	if _, err := postgres.Migrate(t.Context(), url, postgres.Options{}, true); err != nil {
		t.Fatal(err)
	}
	s, err := postgres.Open(t.Context(), url, postgres.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	_, n := handIn(t, s, 1, 5)
	if executed := finishJob(t, register(t, s, "w"), n, 5); executed != 5 {
		t.Errorf("%d chunks", executed)
	}
	if err := s.WaitForWork(t.Context(), time.Millisecond, func(context.Context) bool { return false }); err != nil {
		t.Error(err)
	}
}

// TestDocumentedSQL executes each SQL text of the documentation and of deploy as the role
// that it is meant for.
func TestDocumentedSQL(t *testing.T) {
	database := pgtest.Shared(t).Database(t)
	if _, err := postgres.Migrate(t.Context(), database, postgres.Options{}, true); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, database, "drop role if exists alice; drop role if exists farm; drop role if exists grafana")
	b, err := os.ReadFile("../../docs/cluster.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := strings.Split(string(b), "```sql\n")[1:]
	if len(blocks) != 2 {
		t.Fatalf("%d blocks of SQL, want the grants and the views", len(blocks))
	}
	roles := []string{"postgres", "grafana"}
	for i, block := range blocks {
		sql, _, _ := strings.Cut(block, "```")
		if code := codeFor(t, as(t, database, roles[i]), sql); code != "" {
			t.Errorf("%s gives %s", sql, code)
		}
	}
	if b, err = os.ReadFile("../../deploy/kubernetes/keda.yaml"); err != nil {
		t.Fatal(err)
	}
	_, query, _ := strings.Cut(string(b), "query: ")
	query, _, _ = strings.Cut(query, "\n")
	if code := codeFor(t, as(t, database, "grafana"), query); code != "" || !strings.HasPrefix(query, "select ") {
		t.Errorf("%s gives %s", query, code)
	}
	pgtest.Exec(t, database, "drop role alice; drop role farm; drop role grafana")
}
