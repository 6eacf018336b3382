package postgres

import (
	"context"
	_ "embed"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// SchemaVersion is the version of the schema that this program makes and needs.
const SchemaVersion = 1

// unreleased is the version of a schema that was made before the first release. Its tables
// say 1 too, but lack the version of each worker.
const unreleased = -1

//go:embed schema.sql
var schemaSQL string

//go:embed roles.sql
var rolesSQL string

// Schema returns the SQL that makes the schema, as one transaction, and, if roles is
// set, the roles that work with it.
func Schema(name string, roles bool) string {
	text := "begin;\n" + createSQL(name)
	if roles {
		text += namedIn(rolesSQL, name)
	}
	return text + "commit;\n"
}

// namedIn sets the name of the schema, which may be a reserved word.
func namedIn(sql, schema string) string {
	return strings.NewReplacer("@SCHEMA@", `"`+schema+`"`, "@NAME@", schema).Replace(sql)
}

func createSQL(name string) string {
	return namedIn("create schema if not exists @SCHEMA@;\nset local search_path = @SCHEMA@;\n"+schemaSQL, name)
}

// migrationLock is held while a schema is made: several processes may try at once.
const migrationLock = 0x5753_4a4d

// Migrate makes the schema, or upgrades it to this program's version, in one transaction;
// several processes may call it at once. If roles is set, it makes the four roles too. It
// returns the version. It returns the same errors as [Open]; a newer schema is a
// *[SchemaError], and nothing is written.
func Migrate(ctx context.Context, url string, o Options, roles bool) (int, error) {
	s, err := connect(ctx, url, o)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	return SchemaVersion, s.migrate(ctx, roles)
}

func (s *Store) migrate(ctx context.Context, roles bool) error {
	return s.inTx(transfers(ctx, anyTime), func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "select pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		have, err := s.version(ctx, tx.Conn())
		if err != nil {
			return err
		}
		script := ""
		switch have {
		case 0:
			script = createSQL(s.schema)
		case unreleased:
			if err := s.upgrade(ctx, tx); err != nil {
				return err
			}
		}
		if roles {
			script += namedIn("set local search_path = @SCHEMA@;\n"+rolesSQL, s.schema)
		}
		if script == "" {
			return nil
		}
		_, err = tx.Conn().PgConn().Exec(ctx, script).ReadAll()
		return err
	})
}

// version returns the version of the schema, 0 if there is none, or unreleased. A schema of
// another program and a newer version are errors.
func (s *Store) version(ctx context.Context, c *pgx.Conn) (version int, err error) {
	var tables int
	err = c.QueryRow(ctx, `select count(*) from pg_class where relnamespace = to_regnamespace($1)`, `"`+s.schema+`"`).Scan(&tables)
	if err != nil || tables == 0 {
		return 0, err
	}
	var ours, released bool
	err = c.QueryRow(ctx, `select exists (select from pg_class where relnamespace = to_regnamespace($1) and relname = 'schema_v'),
		exists (select from pg_class r join pg_attribute a on a.attrelid = r.oid where r.relnamespace = to_regnamespace($1) and r.relname = 'workers' and a.attname = 'schema')`, `"`+s.schema+`"`).Scan(&ours, &released)
	if err != nil {
		return 0, err
	}
	if !ours {
		return 0, &SchemaError{Want: SchemaVersion, Foreign: true}
	}
	if err := c.QueryRow(ctx, s.sql("select $.schema_version()")).Scan(&version); err != nil {
		return 0, err
	}
	if version > SchemaVersion {
		return version, &SchemaError{Have: version, Want: SchemaVersion}
	}
	if version == 1 && !released {
		version = unreleased
	}
	return version, nil
}

// checkSchema returns an error unless the schema exists and has this version.
func (s *Store) checkSchema(ctx context.Context) error {
	have := 0
	err := s.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		have, err = s.version(ctx, c)
		return err
	})
	switch {
	case err != nil:
		return err
	case have == SchemaVersion:
		return nil
	case have == 0 && s.options.Create:
		return s.migrate(ctx, false)
	}
	return &SchemaError{Have: have, Want: SchemaVersion}
}

// A Store is a journal and a store.
var (
	_ store.Store   = (*Store)(nil)
	_ store.Journal = (*Store)(nil)
)
