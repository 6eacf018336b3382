package sqlite

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// checksumSize is how much of a SHA-256 each output keeps.
const checksumSize = 16

// sum is what is kept of the checksum of an output.
type sum [checksumSize]byte

// checksum is over all that an output is and where it stands. scratch, which
// is returned grown, spares an allocation.
func checksum(action store.Action, key store.Key, v store.Value, scratch []byte) (sum, []byte) {
	b := append(scratch[:0], action[:]...)
	b = append(b, key.Chunk[:]...)
	b = binary.AppendUvarint(b, uint64(len(key.Order)))
	b = append(b, key.Order...)
	b = binary.AppendUvarint(b, v.Fuel)
	if len(v.Output) < 4096 {
		b = append(b, v.Output...)
		full := sha256.Sum256(b)
		return sum(full[:]), b
	}
	h := sha256.New()
	h.Write(b)
	h.Write(v.Output)
	return sum(h.Sum(nil)), b
}

// row is an output as it stands in the file; its bytes are valid until the
// statement moves on.
type row struct {
	order, chunk, sum []byte
	store.Value
}

func readRow(stmt *sqlite3.Stmt) row {
	return row{
		stmt.ColumnRawBlob(0), stmt.ColumnRawBlob(1), stmt.ColumnRawBlob(2),
		store.Value{Fuel: uint64(stmt.ColumnInt64(3)), Output: stmt.ColumnRawBlob(4)},
	}
}

// verify returns the key of a row that passes its checksum.
func (r *row) verify(action store.Action, scratch *[]byte) (key store.Key, ok bool) {
	if len(r.chunk) != len(key.Chunk) || len(r.sum) != checksumSize {
		return key, false
	}
	key = store.Key{Chunk: store.Digest(r.chunk), Order: r.order}
	sum, grown := checksum(action, key, r.Value, *scratch)
	*scratch = grown
	return key, bytes.Equal(sum[:], r.sum)
}

const selectOne = "select ord, chunk, checksum, fuel, output from outputs where action=? and ord=? and chunk=?"

// one looks an output up where its order says. found is called with a row that
// may be damaged.
func (c *conn) one(p position, key store.Key, found func(row) error) (ok bool, err error) {
	stmt, err := c.prepare(selectOne, p.id, key.Order, key.Chunk[:])
	if err != nil {
		return false, err
	}
	defer stmt.Reset()
	if !stmt.Step() {
		return false, stmt.Err()
	}
	return true, found(readRow(stmt))
}
