package web

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Conn returns a connection that hands a deadline for reads on only if a read waits for
// it. net/http sets up to eight for each request, and each changes a timer. See also
// [ConnContext].
func Conn(c net.Conn) net.Conn { return &conn{Conn: c} }

// conn is a connection that has a deadline for reads at least as early as the one that is
// wanted, while a read waits. If an earlier one ends the read, the read goes on.
type conn struct {
	net.Conn

	mu      sync.Mutex // guards the fields below
	reading int
	want    time.Time // zero = none, as of set
	set     time.Time // that of Conn
	writes  bool      // there is a deadline for writes

	lines []byte // see insert; only for the goroutine that answers
}

type connKey struct{}

// ConnContext is for the field of this name of an [http.Server], and connections of
// [Conn]. [Server] then hands its headers to the connection in one piece: net/http copies,
// sorts and checks each of them.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, connKey{}, c)
	}
	return ctx
}

// statusOK begins an answer to which lines can be added.
const statusOK = "HTTP/1.1 200 OK\r\n"

// insert makes lines, which a next call may reuse, part of the header of the answer that
// is written next, if its status is 200.
func (c *conn) insert(lines []byte) { c.lines = lines }

// pieces are buffers for the first piece of an answer: net/http writes 4 KiB at once.
var pieces = sync.Pool{New: func() any { return new([5 << 10]byte) }}

// Write implements [net.Conn].
func (c *conn) Write(b []byte) (n int, err error) {
	lines := c.lines
	c.lines = lines[:0]
	if len(lines) == 0 || !bytes.HasPrefix(b, []byte(statusOK)) {
		return c.Conn.Write(b)
	}
	room := pieces.Get().(*[5 << 10]byte)
	defer pieces.Put(room)
	const at = len(statusOK)
	n, err = c.Conn.Write(append(append(append(room[:0], statusOK...), lines...), b[at:]...))
	if n > at { // of b
		n = max(at, n-len(lines))
	}
	return n, err
}

// SetReadDeadline implements [net.Conn].
func (c *conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = t
	if c.reading == 0 {
		return nil
	}
	return c.tighten()
}

// SetWriteDeadline implements [net.Conn].
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t.IsZero() && !c.writes { // after each answer
		return nil
	}
	c.writes = !t.IsZero()
	return c.Conn.SetWriteDeadline(t)
}

// SetDeadline implements [net.Conn].
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// tighten sets the wanted deadline if it is earlier than the one that is set. c.mu is held.
func (c *conn) tighten() error {
	if c.want.IsZero() || !c.set.IsZero() && !c.want.Before(c.set) {
		return nil
	}
	c.set = c.want
	return c.Conn.SetReadDeadline(c.set)
}

// Read implements [net.Conn].
func (c *conn) Read(b []byte) (n int, err error) {
	if err := c.begin(); err != nil {
		return 0, err
	}
	defer c.end()
	for err == nil {
		n, err = c.Conn.Read(b)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return n, err
		}
		err = c.extend(err)
	}
	return 0, err
}

// begin begins a read. net/http ends the read by which it notices that a client goes away
// with a deadline that has passed, often before that read has begun: it then takes no
// system calls, and no deadline is set.
func (c *conn) begin() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.want.IsZero() && !time.Now().Before(c.want) {
		return os.ErrDeadlineExceeded
	}
	c.reading++
	return c.tighten()
}

func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading--
}

// extend sets the wanted deadline after the one that was set has passed. If the wanted one
// has passed too, it returns late.
func (c *conn) extend(late error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.want.IsZero() && !time.Now().Before(c.want) {
		return late
	}
	c.set = c.want
	return c.Conn.SetReadDeadline(c.set)
}

// CloseWrite is what net/http calls before it closes a connection whose client still
// sends, so that the client can read the answer.
func (c *conn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}
