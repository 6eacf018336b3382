package telemetry

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"time"
)

// Server serves metrics under /metrics.
type Server struct {
	listener net.Listener
	server   *http.Server
	ended    chan struct{}
}

// Listen serves what write writes, on a TCP address, until Close. Several scrapes may run
// write at once.
func Listen(ctx context.Context, address string, write func(io.Writer)) (*Server, error) {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, _ *http.Request) {
		var page bytes.Buffer // a slow client must not hold locks of a job
		write(&page)
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = page.WriteTo(w) // the client may have gone
	})
	s := &Server{listener: listener, ended: make(chan struct{})}
	s.server = &http.Server{
		Handler: mux, ErrorLog: log.New(io.Discard, "", 0),
		ReadTimeout: 10 * time.Second, WriteTimeout: 10 * time.Second, IdleTimeout: time.Minute, MaxHeaderBytes: 16 << 10,
	}
	go func() {
		defer close(s.ended)
		if err := s.server.Serve(&bounded{Listener: listener, room: make(chan struct{}, maxClients)}); !errors.Is(err, http.ErrServerClosed) {
			listener.Close()
		}
	}()
	return s, nil
}

// Address returns the address that the server listens on.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Close ends the server and its connections, and waits for it.
func (s *Server) Close() {
	s.server.Close()
	<-s.ended
}
