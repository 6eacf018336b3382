package postgres

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

//go:embed upgrade.sql
var upgradeSQL string

// upgrade raises a schema from before the first release. Outputs are rewritten; leases are
// given up, and workers of that time are told both versions when they call next: theirs is 0.
func (s *Store) upgrade(ctx context.Context, tx pgx.Tx) error {
	script := func(sql string) error {
		_, err := tx.Conn().PgConn().Exec(ctx, namedIn("set local search_path = @SCHEMA@;\n"+sql, s.schema)).ReadAll()
		return err
	}
	if err := script(upgradeSQL); err != nil {
		return err
	}
	if err := s.rewritePacks(ctx, tx); err != nil {
		return err
	}
	if err := script("alter table packs drop column marks, alter column chunks set not null, alter column heads set not null;\n" + functionsOf(schemaSQL) +
		"update meta set version = 1, serving = serving(), since = pg_postmaster_start_time();\n"); err != nil {
		return err
	}
	var granted bool
	err := tx.QueryRow(ctx, `select exists (select from pg_namespace n, aclexplode(n.nspacl) a join pg_roles r on r.oid = a.grantee
		where n.oid = to_regnamespace($1) and r.rolname = 'wasm_jobs_worker')`, `"`+s.schema+`"`).Scan(&granted)
	if err == nil && granted {
		err = script(rolesSQL)
	}
	return err
}

// functionsOf returns the statements of a script that make functions and views, and that
// revoke rights.
func functionsOf(script string) string {
	var kept strings.Builder
	end := "" // of the statement that is kept
	for line := range strings.Lines(script) {
		switch {
		case end != "":
		case strings.HasPrefix(line, "create function "):
			end = "$$;\n"
		case strings.HasPrefix(line, "create view "), strings.HasPrefix(line, "revoke "):
			end = ";\n"
		}
		if end != "" {
			kept.WriteString(line)
			if strings.HasSuffix(strings.TrimRight(line, "\n")+"\n", end) {
				end = ""
			}
		}
	}
	return kept.String()
}

// rewritePacks gives the packs from before the first release the columns of version 1. A damaged pack stays
// damaged: its next reader says so.
func (s *Store) rewritePacks(ctx context.Context, tx pgx.Tx) error {
	for last := int64(0); ; {
		var ids []int64
		r, err := tx.Query(ctx, s.sql("select id from $.packs where id > $1 order by id limit 1000"), last)
		if err != nil {
			return err
		}
		if ids, err = pgx.CollectRows(r, pgx.RowTo[int64]); err != nil || len(ids) == 0 {
			return err
		}
		for _, id := range ids {
			var data, sum []byte
			if err := tx.QueryRow(ctx, s.sql("select data, sum from $.packs where id = $1"), id).Scan(&data, &sum); err != nil {
				return err
			}
			p := &Pack{Chunks: []byte{}, Heads: []byte{}, Data: data}
			if records, ok := readFirst(data, sum); ok {
				p = NewPack(records)
				sum = p.Sum[:]
			}
			if _, err := tx.Exec(ctx, s.sql("update $.packs set chunks = $2, heads = $3, data = $4, sum = $5 where id = $1"), id, p.Chunks, p.Heads, p.Data, sum); err != nil {
				return err
			}
		}
		last = ids[len(ids)-1]
	}
}

// readFirst reads the records of a pack from before the first release, as views into its data.
func readFirst(data, sum []byte) (records []store.Record, ok bool) {
	got := sha256.Sum256(data)
	if string(got[:]) != string(sum) {
		return nil, false
	}
	for len(data) > 0 {
		var r store.Record
		if len(data) < len(r.Chunk) {
			return nil, false
		}
		r.Chunk, data = store.Digest(data), data[len(r.Chunk):]
		if r.Order, data, ok = cut(data); !ok {
			return nil, false
		}
		if r.Fuel, data, ok = number(data); !ok {
			return nil, false
		}
		if r.Output, data, ok = cut(data); !ok {
			return nil, false
		}
		records = append(records, r)
	}
	return records, len(records) > 0
}
