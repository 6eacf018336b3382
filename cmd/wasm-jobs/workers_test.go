//go:build unix

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store/postgres"
	"github.com/wasm-jobs/wasm-jobs/store/postgres/pgtest"
)

// TestTransactionWarning warns of a transaction that is older than five minutes, and not of
// one that is five minutes old.
func TestTransactionWarning(t *testing.T) {
	for age, want := range map[time.Duration]string{
		0:                            "",
		5 * time.Minute:              "",
		5*time.Minute + 1:            `a transaction of "backup" (process 7) has been open for 5m0s: the database keeps old rows for it, and leases become slower`,
		26*time.Hour + time.Second/4: `a transaction of "backup" (process 7) has been open for 26h0m0s: the database keeps old rows for it, and leases become slower`,
	} {
		if got := transactionWarning(&postgres.LongTransaction{PID: 7, Application: "backup", Age: age}); got != want {
			t.Errorf("%v: %q, want %q", age, got, want)
		}
	}
}

// TestWorkersWarnOfTransactions opens a transaction in a database whose clock is ahead: the
// command workers names it if it is older than five minutes.
func TestWorkersWarnOfTransactions(t *testing.T) {
	store := sharedDatabase(t)
	conn, err := pgx.Connect(t.Context(), store+"&application_name=backup")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	var pid int
	if err := conn.QueryRow(t.Context(), "select pg_backend_pid()").Scan(&pid); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, store, "create schema ahead; create table ahead.of (i interval)")
	pgtest.Exec(t, store, `create view ahead.pg_stat_activity as select pid, application_name, datname, backend_type, xact_start - of.i as xact_start from pg_catalog.pg_stat_activity, ahead.of`)
	if _, err := conn.Exec(t.Context(), "begin"); err != nil {
		t.Fatal(err)
	}
	for ahead, want := range map[string]string{
		"4 minutes": "",
		"5 minutes": fmt.Sprintf("wasm-jobs: warning: a transaction of \"backup\" (process %d) has been open for 5m", pid),
	} {
		pgtest.Exec(t, store, "delete from ahead.of; insert into ahead.of values ('"+ahead+"')")
		cmd := command("workers", "--store", store+"&options=-c%20search_path%3Dahead%2Cpg_catalog")
		var diagnostics strings.Builder
		cmd.Stderr = &diagnostics
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v: %s", err, diagnostics.String())
		}
		if got := diagnostics.String(); !strings.HasPrefix(got, want) || want == "" && got != "" {
			t.Errorf("%s: %q, want %q", ahead, got, want)
		}
	}
}
