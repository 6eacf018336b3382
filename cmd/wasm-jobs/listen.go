package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

const (
	// maxConnections is the limit of open connections; further ones wait to be accepted.
	maxConnections = 8192
	// lateTime is how long an ending server still accepts connections that were made
	// before.
	lateTime = 50 * time.Millisecond
	// unixPrefix begins the address of a socket in the file system.
	unixPrefix = "unix:"
)

func defaultWorkers() int { return goruntime.GOMAXPROCS(0) }

// drainListener is a listener that can end without losing connections that were made
// before.
type drainListener struct {
	net.Listener
	path     string      // of a socket in the file system; "" = none
	temp     string      // its path before it is published
	stat     fs.FileInfo // of the socket, to recognize it
	ending   atomic.Bool
	room     chan struct{} // has one for each connection
	done     chan struct{} // closed when Accept must not wait for room
	draining sync.Once

	mu     sync.Mutex
	silent map[*countedConn]struct{} // connections without data so far
}

func newDrainListener(connections int) *drainListener {
	return &drainListener{room: make(chan struct{}, connections), done: make(chan struct{}), silent: map[*countedConn]struct{}{}}
}

// open listens on the address of the flags.
func (o *serveOptions) open(ctx context.Context) (*drainListener, error) {
	l := newDrainListener(maxConnections)
	path, isUnix := strings.CutPrefix(o.listen, unixPrefix)
	var err error
	switch {
	case isUnix:
		err = l.openUnix(ctx, path)
	case o.listen == "": // which would be all addresses
		err = errors.New("want HOST:PORT or unix:PATH")
	default:
		l.Listener, err = (&net.ListenConfig{}).Listen(ctx, "tcp", o.listen)
	}
	if cause, ok := errors.AsType[*net.OpError](err); ok { // which names a temporary path
		err = cause.Err
	}
	if err != nil {
		return nil, usageErrorf("invalid --listen %q: %w", o.listen, err)
	}
	return l, nil
}

// maxSocketPath is the longest path of a socket that clients can name, in bytes.
const maxSocketPath = len(syscall.RawSockaddrUnix{}.Path) - 1

// openUnix makes a socket under a temporary path; publish renames it.
func (l *drainListener) openUnix(ctx context.Context, path string) (err error) {
	if path == "" || len(path) > maxSocketPath {
		return fmt.Errorf("want unix:PATH with a path of 1 to %d bytes", maxSocketPath)
	}
	if stat, err := os.Lstat(path); err == nil && stat.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists already and is not a socket", path)
	}
	l.path, l.temp = path, filepath.Join(filepath.Dir(path), fmt.Sprintf(".%d.sock", os.Getpid()))
	_ = os.Remove(l.temp) // of a process that died
	if l.Listener, err = (&net.ListenConfig{}).Listen(ctx, "unix", l.temp); err != nil {
		return err
	}
	l.Listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if l.stat, err = os.Lstat(l.temp); err == nil {
		err = os.Chmod(l.temp, 0o600)
	}
	if err != nil {
		return errors.Join(err, l.Close())
	}
	return nil
}

// publish renames the socket to its path when the server is ready: a client meets the
// old socket or the new one, and never a gap.
func (l *drainListener) publish() error {
	if l.path == "" {
		return nil
	}
	return os.Rename(l.temp, l.path)
}

// Accept implements [net.Listener].
func (l *drainListener) Accept() (net.Conn, error) {
	if !l.enter() {
		return nil, net.ErrClosed
	}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.room
		if l.ending.Load() {
			return nil, net.ErrClosed
		}
		return nil, err
	}
	c := &countedConn{Conn: web.Conn(conn), of: l, leave: sync.OnceFunc(func() { <-l.room })}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.silent[c] = struct{}{}
	return c, nil
}

// enter waits for room for a connection. It returns false if there is none when the
// listener ends.
func (l *drainListener) enter() bool {
	select {
	case l.room <- struct{}{}:
		return true
	default:
	}
	select {
	case l.room <- struct{}{}:
		return true
	case <-l.done:
		return false
	}
}

// closeSilent closes the connections without data.
func (l *drainListener) closeSilent() {
	l.mu.Lock()
	silent := slices.Collect(maps.Keys(l.silent))
	l.mu.Unlock()
	for _, c := range silent {
		_ = c.Close()
	}
}

// countedConn is a connection that frees its room when it is closed.
type countedConn struct {
	net.Conn
	of    *drainListener
	spoke bool // data was read; only the reader uses it
	leave func()
}

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.spoke {
		c.spoke = true
		c.heard()
	}
	return n, err
}

// CloseWrite is what net/http calls before it closes a connection whose client still
// sends, so that the client reads the answer to its end.
func (c *countedConn) CloseWrite() error {
	return c.Conn.(interface{ CloseWrite() error }).CloseWrite()
}

func (c *countedConn) heard() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	delete(c.of.silent, c)
}

func (c *countedConn) Close() error {
	err := c.Conn.Close()
	c.heard()
	c.leave()
	return err
}

// drain accepts the connections that were made before, as far as there is room, and then
// no more.
func (l *drainListener) drain() {
	l.draining.Do(func() {
		l.unlink()
		l.ending.Store(true)
		close(l.done)
		if d, ok := l.Listener.(interface{ SetDeadline(time.Time) error }); !ok || d.SetDeadline(time.Now().Add(lateTime)) != nil {
			_ = l.Listener.Close()
		}
	})
}

// unlink removes the socket, unless another one has replaced it.
func (l *drainListener) unlink() {
	if l.path == "" {
		return
	}
	for _, path := range []string{l.path, l.temp} {
		if now, err := os.Lstat(path); err == nil && os.SameFile(now, l.stat) {
			_ = os.Remove(path)
		}
	}
}

// Close implements [net.Listener].
func (l *drainListener) Close() error {
	l.draining.Do(func() {
		l.unlink()
		l.ending.Store(true)
		close(l.done)
	})
	return l.Listener.Close()
}

// url returns the URL of the server.
func (l *drainListener) url(secure bool) string {
	if l.path != "" {
		return unixPrefix + l.path
	}
	scheme := "http"
	if secure {
		scheme = "https"
	}
	return scheme + "://" + l.Addr().String()
}

// isPrivate reports whether only this machine reaches the server.
func (l *drainListener) isPrivate() bool { return isLoopback(l.Addr()) }

// connContext is web.ConnContext for connections of a drainListener, without TLS.
func connContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*countedConn); ok {
		return web.ConnContext(ctx, c.Conn)
	}
	return ctx
}

// newHTTPServer returns the server of a handler.
func newHTTPServer(handler http.Handler, c *certificates, say func(line string)) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &http.Server{
		Handler: handler, Protocols: protocols, MaxHeaderBytes: 2 * web.MaxHeaders,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ConnContext: connContext,
		ErrorLog: log.New(lineWriter(func(line string) {
			if strings.Contains(line, "panic") { // mistakes of clients are not logged
				say(line)
			}
		}), "", 0),
	}
	if c != nil {
		s.TLSConfig = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: c.get}
	}
	return s
}

// lineWriter calls a function with each line written to it.
type lineWriter func(line string)

func (f lineWriter) Write(b []byte) (int, error) {
	f(strings.TrimSpace(string(b)))
	return len(b), nil
}

// serveOn serves the connections of a listener until it is closed.
func serveOn(s *http.Server, l net.Listener, c *certificates) error {
	if c != nil {
		return s.ServeTLS(l, "", "")
	}
	return s.Serve(l)
}

// certificates are a certificate and its key, which can be read again while in use.
type certificates struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]
}

// openCertificates returns nil if there are none.
func (o *serveOptions) openCertificates() (*certificates, error) {
	if o.certFile == "" {
		return nil, nil
	}
	c := &certificates{certFile: o.certFile, keyFile: o.keyFile}
	return c, c.load()
}

func (c *certificates) load() error {
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return usageErrorf("the certificate %s and key %s: %w", c.certFile, c.keyFile, err)
	}
	c.current.Store(&pair)
	return nil
}

func (c *certificates) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return c.current.Load(), nil
}
