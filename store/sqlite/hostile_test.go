package sqlite

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// hostile makes a store and changes its schema, with valid page checksums.
func hostile(t *testing.T, statements ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	finish(t, s, begin(t, s, jobA), 0, 100)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := sqlite3.Open("file:" + filepath.ToSlash(filepath.Join(dir, FileName)))
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range statements {
		if err := c.Exec(statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestHostileSchema opens stores with a schema that is not ours: none of it runs,
// the file is set aside, and its outputs are copied.
func TestHostileSchema(t *testing.T) {
	endless := "with recursive r(x) as (select 1 union all select x+1 from r) select x from r where x<0"
	replaced := func(table, columns string) []string {
		return []string{
			"pragma writable_schema=on", "delete from sqlite_schema where tbl_name='" + table + "'",
			fmt.Sprintf("insert into sqlite_schema(type, name, tbl_name, rootpage, sql) values('view', '%s', '%[1]s', 0, 'create view %[1]s as select %s from (%s)')", table, columns, endless),
		}
	}
	for name, statements := range map[string][]string{
		"a view for actions":   replaced("actions", "x as id, x as digest"),
		"a view for jobs":      replaced("jobs", "x as id, x as digest, x as action, x as derived, x as input, x as total, x as created, x as spec"),
		"a trigger":            {"create trigger t after insert on packs begin update actions set digest=randomblob(100000000); delete from packs; end"},
		"a generated column":   {"alter table runs add column x as (hex(zeroblob(100000000)))"},
		"an index":             {"create index i on packs(length(body))"},
		"a table":              {"create table mine(x)"},
		"no view":              {"drop view outputs"},
		"a check":              {"pragma writable_schema=on", "update sqlite_schema set sql=replace(sql, 'body blob not null', 'body blob not null check(length(hex(body))>0)') where name='packs'"},
		"of an older version":  {"pragma user_version=196611"},
		"of the first version": {"pragma user_version=65537"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := hostile(t, statements...)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			s, err := Open(ctx, dir, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if aside, err := AsideFiles(dir); err != nil || len(aside) != 1 {
				t.Errorf("set aside: %v, %v", aside, err)
			}
			if n := count(t, s, store.Action{1}, records(0, 100)); n != 100 {
				t.Errorf("%d of 100 outputs", n)
			}
			run := begin(t, s, jobA)
			finish(t, s, run, 50, 150)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestForeign opens a database of another program: the error says so, and the file is
// unchanged.
func TestForeign(t *testing.T) {
	for name, statements := range map[string][]string{
		"plain": {"create table a(x)"}, "with a mark": {"pragma application_id=17", "pragma user_version=3", "create table actions(x)"},
		"in WAL mode": {"pragma journal_mode=wal", "create table a(x)"}, "of small pages": {"pragma page_size=512", "create table a(x)"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, FileName)
			c, err := sqlite3.Open("file:" + filepath.ToSlash(path))
			if err != nil {
				t.Fatal(err)
			}
			for _, statement := range statements {
				err = errors.Join(err, c.Exec(statement))
			}
			if err := errors.Join(err, c.Close()); err != nil {
				t.Fatal(err)
			}
			before := filesOf(t, dir)
			for _, readOnly := range []bool{false, true} {
				_, err := Open(t.Context(), dir, Options{ReadOnly: readOnly})
				foreign, ok := errors.AsType[*ForeignError](err)
				if !ok || foreign.Path != path || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v, want a *ForeignError", err)
				}
			}
			if after := filesOf(t, dir); after != before {
				t.Errorf("files before %s and after %s", before, after)
			}
		})
	}
}

// TestDamagedHeaderIsOurs damages each byte of the header of a store: the file does
// not count as a database of another program.
func TestDamagedHeaderIsOurs(t *testing.T) {
	dir, _ := sample(t, 10)
	path := filepath.Join(dir, FileName)
	clean, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for at := range 100 {
		for _, value := range []byte{0, 0xff, clean[at] ^ 1} {
			b := bytes.Clone(clean[:200])
			b[at] = value
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := checkHeader(path); err != nil {
				t.Errorf("byte %d as %#x: %v", at, value, err)
			}
		}
	}
}

// TestWithdraw damages outputs of jobs, with valid page checksums: the spans with
// these outputs and the derived outputs are deleted with them.
func TestWithdraw(t *testing.T) {
	for name, find := range map[string]func(s *Store, keys []store.Key){
		"get": func(s *Store, keys []store.Key) {
			s.Get(t.Context(), store.Action{1}, keys, func(int, store.Value) error { return nil })
		},
		"all":     func(s *Store, _ []store.Key) { s.Check(t.Context(), func(int) {}) },
		"a put":   func(s *Store, _ []store.Key) { s.Put(t.Context(), store.Action{1}, between(records(0, 300))) },
		"nothing": func(*Store, []store.Key) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir(), Options{})
			all := records(0, 300)
			for _, job := range []store.JobRecord{jobA, jobB} {
				run := begin(t, s, job)
				finish(t, s, run, 0, 100)
				finish(t, s, run, 100, 300)
				if err := s.Put(t.Context(), store.Action{9}, []store.Record{{Key: store.Key{Chunk: job.Input}, Value: store.Value{Output: []byte("all")}}}); err != nil {
					t.Fatal(err)
				}
			}
			for _, victim := range []int{120, 250} {
				sum, _ := checksum(store.Action{1}, all[victim].Key, all[victim].Value, nil)
				flipped := sum
				flipped[0] ^= 1
				query := "update packs set body=cast(replace(body, ?1, ?2) as blob) where instr(body, ?1)"
				if err := s.db.writer.exec(query, sum[:], flipped[:]); err != nil {
					t.Fatal(err)
				}
			}
			find(s, []store.Key{all[120].Key, all[250].Key})
			spans, results := rowsOf(t, s, "spans"), count(t, s, store.Action{9}, []store.Record{{Key: store.Key{Chunk: jobA.Input}}})
			if name == "nothing" { // the damage was not found yet
				if spans != 4 || results != 1 {
					t.Errorf("%d spans, %d results", spans, results)
				}
				if report, err := s.Check(t.Context(), func(int) {}); err != nil || report.Damaged != 2 {
					t.Errorf("%+v, %v", report, err)
				}
				return
			}
			if spans != 2 || results != 0 {
				t.Errorf("%d spans are left, want 2, and %d results, want none", spans, results)
			}
		})
	}
}

// between returns records whose orders are between those of others.
func between(all []store.Record) []store.Record {
	for i := range all {
		all[i].Order = append(all[i].Order, 1)
		all[i].Chunk = store.Digest(binary.BigEndian.AppendUint64(bytes.Repeat([]byte{7}, 24), uint64(i)))
	}
	return all
}
