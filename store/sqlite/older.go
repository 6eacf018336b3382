package sqlite

import (
	"bytes"
	"fmt"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// renew lays a file of an older layout out anew. Version 2 had a row for each
// output, and is carried over with its jobs; what version 1 has is dropped, since
// its outputs have no fuel.
func (db *database) renew() error {
	c := db.writer
	var id, version int64
	for pragma, into := range map[string]*int64{"application_id": &id, "user_version": &version} {
		if _, err := c.ints("pragma "+pragma, []*int64{into}); err != nil {
			return err
		}
	}
	older := version & 0xffff
	if id != applicationID || version>>16 != older || older == 0 || older >= Version {
		return nil
	}
	what := "its outputs are computed again"
	err := c.transaction("begin immediate", func() (err error) {
		if older == 2 {
			var carried int
			carried, err = c.pack2()
			what = fmt.Sprintf("it was laid out anew, with %d outputs", carried)
		} else {
			err = c.dropAll()
		}
		if err != nil {
			return err
		}
		return c.Exec(fmt.Sprintf("pragma user_version=%d", Version<<16|Version))
	})
	if err == nil {
		db.store.options.Notice(fmt.Sprintf("%s has an older layout (version %d): %s", db.store.path, older, what))
	}
	return err
}

// dropAll drops what there is, and makes empty tables.
func (c *conn) dropAll() error {
	var drops []string
	err := c.rows(func(r *columns) {
		drops = append(drops, "drop "+string(r.blob())+" "+sqlite3.QuoteIdentifier(string(r.blob())))
	}, "select type, name from sqlite_schema where type in ('table', 'view') and name not like 'sqlite\\_%' escape '\\'")
	if err != nil {
		return err
	}
	for _, drop := range drops {
		if err := c.Exec(drop); err != nil {
			return err
		}
	}
	return c.Exec(schema + jobSchema)
}

// packOnce bounds the outputs of version 2 that are held in memory, in bytes; a
// larger one is held alone.
const packOnce = 1 << 20

// pack2 packs the outputs of version 2, whose table had their name.
func (c *conn) pack2() (carried int, err error) {
	if err := c.Exec("alter table outputs rename to outputs2;" + packSchema); err != nil {
		return 0, err
	}
	stmt, err := c.prepare("select action, ord, chunk, checksum, fuel, output from outputs2 order by action, ord, chunk")
	if err != nil {
		return 0, err
	}
	b, at := &packer{}, position{}
	for stmt.Step() {
		if action := stmt.ColumnInt64(0); action != at.id || len(b.body) >= packOnce {
			if err := c.insertPacks(at, b.all()); err != nil {
				return 0, err
			}
			b, at = &packer{}, position{id: action}
		}
		r := row{
			bytes.Clone(stmt.ColumnRawBlob(1)), stmt.ColumnRawBlob(2), stmt.ColumnRawBlob(3),
			store.Value{Fuel: uint64(stmt.ColumnInt64(4)), Output: stmt.ColumnRawBlob(5)},
		}
		if len(r.chunk) == len(store.Digest{}) && len(r.sum) == checksumSize { // else it is damaged, and counts as missing
			b.add(r)
			carried++
		}
	}
	if err := stmt.Err(); err != nil {
		return 0, err
	}
	if err := stmt.Reset(); err != nil {
		return 0, err
	}
	if err := c.insertPacks(at, b.all()); err != nil {
		return 0, err
	}
	return carried, c.Exec("drop table outputs2")
}
