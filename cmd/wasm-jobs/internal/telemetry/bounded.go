package telemetry

import (
	"net"
	"sync"
)

// maxClients is the limit of open connections. Further ones are closed at once.
const maxClients = 64

// bounded is a listener with a limit of connections.
type bounded struct {
	net.Listener
	room chan struct{} // has one for each connection
}

// Accept returns the next connection that there is room for.
func (b *bounded) Accept() (net.Conn, error) {
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case b.room <- struct{}{}:
			return &counted{Conn: conn, leave: sync.OnceFunc(func() { <-b.room })}, nil
		default:
			conn.Close()
		}
	}
}

// counted is a connection that leaves room when it is closed.
type counted struct {
	net.Conn
	leave func()
}

func (c *counted) Close() error {
	c.leave()
	return c.Conn.Close()
}
