package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// migrate converts a file of an older layout. Version 3 had another index of chunks,
// and version 2 a row for each output; both are converted with their jobs. The
// outputs of version 1 are deleted, since they have no fuel.
func (db *database) migrate() error {
	c := db.writer
	older, err := c.version()
	if err != nil || older == 0 || older >= Version {
		return err
	}
	what := "its outputs will be computed again"
	err = c.transaction("begin immediate", func() (err error) {
		switch carried := 0; older {
		case 3:
			what = "converted its index"
			err = c.migrateV3()
		case 2:
			if carried, err = c.migrateV2(); err == nil {
				err = c.migrateV3()
			}
			what = fmt.Sprintf("converted it, with %d outputs", carried)
		default:
			err = c.reset()
		}
		if err != nil {
			return err
		}
		return c.Exec(fmt.Sprintf("pragma user_version=%d", Version<<16|Version))
	})
	if err != nil {
		return err
	}
	db.store.options.Notice(fmt.Sprintf("%s has an older layout (version %d): %s", db.store.path, older, what))
	if db.store.vfs.image != nil {
		return nil
	}
	return errors.Join(db.truncateLog(), db.store.waitsFor(db.writer, busyTimeout)) // the file's header must show the version to older programs
}

// version returns the version of the file's layout, 0 if it is not a store.
func (c *conn) version() (int64, error) {
	var id, version int64
	for pragma, into := range map[string]*int64{"application_id": &id, "user_version": &version} {
		if _, err := c.ints("pragma "+pragma, []*int64{into}); err != nil {
			return 0, err
		}
	}
	if id != applicationID || version>>16 != version&0xffff {
		return 0, nil
	}
	return version & 0xffff, nil
}

// batchOnce bounds the entries of version 3 that are in memory, in bytes.
const batchOnce = 4 << 20

// migrateV3 converts the log and the index of version 3 into batches.
func (c *conn) migrateV3() error {
	err := c.Exec("alter table actions rename to actions3; alter table batches rename to batches3; alter table chunks rename to chunks3;" +
		actionSchema + batchSchema + `insert into actions select id, digest from actions3;
		delete from sqlite_sequence where name='actions';
		update sqlite_sequence set name='actions' where name='actions3'`)
	if err != nil {
		return err
	}
	var positions [][2]int64
	err = c.rows(func(r *columns) { positions = append(positions, [2]int64{r.int(), r.int()}) }, "select id, indexed from actions3")
	for _, p := range positions {
		if err == nil {
			err = c.migrateLog(p[0], p[1])
		}
	}
	if err != nil {
		return err
	}
	for _, stmt := range c.stmts {
		stmt.Reset()
	}
	return c.Exec("drop table actions3; drop table batches3; drop table chunks3")
}

// prefixV3 converts a prefix of version 3, which is 8 bytes of the digest as a
// little-endian number.
func prefixV3(prefix uint64) uint64 {
	return bits.ReverseBytes64(prefix) >> (64 - 8*prefixSize) << (64 - 8*prefixSize)
}

// eachEntryV3 is eachEntry for a batch of version 3.
func eachEntryV3(b []byte, f func(entry)) (ok bool) {
	if b, ok = unseal(b); !ok {
		return false
	}
	for len(b) > 0 {
		if len(b) < 8 {
			return false
		}
		prefix := prefixV3(binary.LittleEndian.Uint64(b))
		n, width := binary.Uvarint(b[8:])
		if width <= 0 || n > uint64(len(b)-8-width) {
			return false
		}
		end := 8 + width + int(n)
		f(entry{prefix, b[8+width : end : end]})
		b = b[end:]
	}
	return true
}

// migrateLog converts the entries of an action of version 3: the rows of its log
// after number indexed, and its index, which has the others.
func (c *conn) migrateLog(action, indexed int64) (err error) {
	var entries []byte
	write := func(least int) {
		if err == nil && len(entries) >= least {
			_, err = c.addBatch(action, entries)
			entries = nil
		}
	}
	damaged := false
	rowsErr := c.rows(func(r *columns) {
		damaged = !eachEntryV3(r.blob(), func(e entry) { entries = appendEntry(entries, e) }) || damaged
		write(batchOnce)
	}, "select entries from batches3 where action=? and seq>? order by seq", action, indexed)
	if damaged {
		return fmt.Errorf("%w: the log of action %d", errDamaged, action)
	}
	if rowsErr == nil {
		rowsErr = c.rows(func(r *columns) {
			entries = appendEntry(entries, entry{prefixV3(uint64(r.int())), r.blob()})
			write(batchOnce)
		}, "select prefix, ord from chunks3 where action=?", action)
	}
	write(1)
	return errors.Join(err, rowsErr)
}

// reset drops all tables and views, and creates empty ones.
func (c *conn) reset() error {
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

// packOnce bounds the outputs of version 2 that are in memory, in bytes, unless there
// is only one.
const packOnce = 1 << 20

// migrateV2 packs the outputs of version 2, which were in a table named outputs.
func (c *conn) migrateV2() (carried int, err error) {
	if err := c.Exec("alter table outputs rename to outputs2;" + packSchema); err != nil {
		return 0, err
	}
	stmt, err := c.prepare("select action, ord, chunk, checksum, fuel, output from outputs2 order by action, ord, chunk")
	if err != nil {
		return 0, err
	}
	b, at := &packer{}, int64(0)
	for stmt.Step() {
		if action := stmt.ColumnInt64(0); action != at || len(b.body) >= packOnce {
			if err := c.insertPacks(at, b.all()); err != nil {
				return 0, err
			}
			b, at = &packer{}, action
		}
		r := row{
			bytes.Clone(stmt.ColumnRawBlob(1)), stmt.ColumnRawBlob(2), stmt.ColumnRawBlob(3),
			store.Value{Fuel: uint64(stmt.ColumnInt64(4)), Output: stmt.ColumnRawBlob(5)},
		}
		if len(r.chunk) == len(store.Digest{}) && len(r.sum) == checksumSize { // if not, it is damaged and counts as missing
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
