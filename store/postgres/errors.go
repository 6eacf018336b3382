package postgres

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// ErrUnreachable reports that the database could not be reached in time, or that it
// refused the login or a permission.
var ErrUnreachable = errors.New("the database cannot be reached")

// SchemaError reports that the schema in the database does not fit this program.
type SchemaError struct {
	Have, Want int  // versions; Have is 0 if there is none, and below 0 if it was made before the first release
	Foreign    bool // another program has a schema of this name
}

func (e *SchemaError) Error() string {
	switch {
	case e.Foreign:
		return "the schema of this name belongs to another program"
	case e.Have == 0:
		return fmt.Sprintf("the database has no schema of this program: want version %d", e.Want)
	case e.Have < 0:
		return fmt.Sprintf("the database has a schema from before the first release: want version %d", e.Want)
	case e.Have > e.Want:
		return fmt.Sprintf("unsupported schema version %d: this program supports version %d; a newer program is needed", e.Have, e.Want)
	}
	return fmt.Sprintf("the database has schema version %d: want version %d", e.Have, e.Want)
}

// ConnectionError reports an invalid or unsafe URL, or an unsupported server.
type ConnectionError struct {
	Reason   string
	Password bool // the URL has a password, which is not allowed
	Insecure bool // the URL allows an unencrypted connection to another machine
}

func (e *ConnectionError) Error() string { return e.Reason }

// temporary reports whether a request that failed may succeed when it is repeated.
func temporary(err error) bool {
	if pg, ok := errors.AsType[*pgconn.PgError](err); ok {
		switch pg.Code {
		case "25006", "40001", "40P01", "55P03", "57P01", "57P02", "57P03", "57P05", "58P01", "57014":
			return true
		}
		return strings.HasPrefix(pg.Code, "08") || strings.HasPrefix(pg.Code, "53")
	}
	return isNetwork(err)
}

// isNetwork reports whether an error comes from a connection and not from a statement.
func isNetwork(err error) bool {
	if _, ok := errors.AsType[*pgconn.ConnectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, context.DeadlineExceeded) || pgconn.Timeout(err) || errors.Is(err, errConnClosed) ||
		strings.Contains(err.Error(), "conn closed") || strings.Contains(err.Error(), "conn busy")
}

// refused reports whether the server refused the login or a permission.
func refused(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (strings.HasPrefix(pg.Code, "28") || pg.Code == "42501" || pg.Code == "3D000")
}

// readOnly reports whether the server no longer accepts writes.
func readOnly(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && pg.Code == "25006"
}

var errConnClosed = errors.New("connection closed")

// explain returns an error that callers can test with errors.Is and errors.As, and whose
// text has nothing of the connection string.
func explain(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, pgx.ErrNoRows):
		return store.ErrNoJob
	case strings.Contains(err.Error(), "closed pool"):
		return store.ErrClosed
	}
	if refused(err) || isNetwork(err) || readOnly(err) || temporary(err) && !isFull(err) {
		return fmt.Errorf("%w: %w", ErrUnreachable, &quiet{err})
	}
	return err
}

// IsServer reports whether an error comes from the database or from the connection to it.
func IsServer(err error) bool {
	_, pg := errors.AsType[*pgconn.PgError](err)
	return pg || errors.Is(err, ErrUnreachable) || errors.Is(err, store.ErrClosed)
}

// isFull reports whether the server is out of disk space or memory.
func isFull(err error) bool {
	pg, ok := errors.AsType[*pgconn.PgError](err)
	return ok && (pg.Code == "53100" || pg.Code == "53200")
}

// quiet is an error of the driver on one line.
type quiet struct{ err error }

func (q *quiet) Error() string {
	if pg, ok := errors.AsType[*pgconn.PgError](q.err); ok {
		return fmt.Sprintf("%s (SQLSTATE %s)", pg.Message, pg.Code)
	}
	text := strings.ReplaceAll(q.err.Error(), "\n", " ")
	return strings.Join(strings.Fields(text), " ")
}

func (q *quiet) Unwrap() error { return q.err }
