package web_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/processor"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

// ours accepts connections of web.Conn.
type ours struct{ net.Listener }

func (l ours) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return web.Conn(c), nil
}

// counted counts the deadlines that a connection gets.
type counted struct {
	net.Conn
	set, writes int
}

func (c *counted) SetWriteDeadline(t time.Time) error {
	c.writes++
	return c.Conn.SetWriteDeadline(t)
}

func (c *counted) SetReadDeadline(t time.Time) error {
	c.set++
	return c.Conn.SetReadDeadline(t)
}

// pipe returns both ends of a connection; the first is one of web.Conn.
func pipe(t *testing.T) (ours net.Conn, inner *counted, theirs net.Conn) {
	a, b := net.Pipe()
	inner = &counted{Conn: a}
	return web.Conn(inner), inner, b
}

// A read ends at the deadline that was set last, before or during the read, earlier or
// later than the ones before.
func TestReadDeadlines(t *testing.T) {
	const s = time.Second
	for _, tt := range []struct {
		name   string
		before []time.Duration // deadlines before the read; 0 = none
		during []time.Duration // one a second, from half a second on
		want   time.Duration   // until the read ends
	}{
		{"before", []time.Duration{3 * s}, nil, 3 * s},
		{"earlier", []time.Duration{9 * s, 3 * s}, nil, 3 * s},
		{"later", []time.Duration{3 * s, 9 * s}, nil, 9 * s},
		{"passed", []time.Duration{-s}, nil, 0},
		{"passed, and then another", []time.Duration{-s, 3 * s}, nil, 3 * s},
		{"none, and then one", []time.Duration{9 * s, 0, 3 * s}, nil, 3 * s},
		{"during", nil, []time.Duration{3 * s}, 3 * s},
		{"earlier during", []time.Duration{9 * s}, []time.Duration{3 * s}, 3 * s},
		{"later during", []time.Duration{3 * s}, []time.Duration{9 * s}, 9 * s},
		{"taken back during", []time.Duration{2 * s}, []time.Duration{0, 5 * s}, 5 * s},
		{"passed during", []time.Duration{9 * s}, []time.Duration{-s}, s / 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, _, theirs := pipe(t)
				defer theirs.Close()
				defer ours.Close()
				start := time.Now()
				at := func(d time.Duration) time.Time {
					if d == 0 {
						return time.Time{}
					}
					return start.Add(d)
				}
				for _, d := range tt.before {
					if err := ours.SetReadDeadline(at(d)); err != nil {
						t.Error(err)
					}
				}
				go func() { // until the last deadline is set
					time.Sleep(s / 2)
					for _, d := range tt.during {
						if err := ours.SetReadDeadline(at(d)); err != nil {
							t.Error(err)
						}
						time.Sleep(s)
					}
				}()
				n, err := ours.Read(make([]byte, 1))
				if took := time.Since(start); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || took != tt.want {
					t.Errorf("after %v: %d bytes, error %v", took, n, err)
				}
				time.Sleep(10 * s)
			})
		})
	}
}

// Deadlines that no read waits for cost nothing, and a read after one that has passed
// works.
func TestReadDeadlinesAreLazy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, inner, theirs := pipe(t)
		defer theirs.Close()
		go func() { // until ours is closed
			for i := byte(0); ; i++ {
				if _, err := theirs.Write([]byte{i}); err != nil {
					return
				}
			}
		}()
		b := make([]byte, 1)
		for i := range 100 {
			_ = ours.SetDeadline(time.Unix(1, 0)) // as net/http does
			for _, d := range []time.Duration{time.Minute, 10 * time.Second, 30 * time.Second} {
				_ = ours.SetReadDeadline(time.Now().Add(d))
				_ = ours.SetReadDeadline(time.Time{})
			}
			_ = ours.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadFull(ours, b); err != nil || b[0] != byte(i) {
				t.Fatalf("read %d: %d, %v", i, b, err)
			}
			time.Sleep(time.Second)
		}
		if inner.set > 4 {
			t.Errorf("%d deadlines were set", inner.set)
		}
		ours.Close()
		if _, err := ours.Read(b); err == nil {
			t.Error("a closed connection can be read")
		}
	})
}

// A deadline for writes is set and taken back, and not taken back twice.
func TestWriteDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, inner, theirs := pipe(t)
		defer theirs.Close()
		defer ours.Close()
		for range 3 {
			_ = ours.SetWriteDeadline(time.Time{})
		}
		if inner.writes != 0 {
			t.Errorf("%d deadlines were set", inner.writes)
		}
		_ = ours.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := ours.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		_ = ours.SetWriteDeadline(time.Time{})
		go func() { _, _ = theirs.Read(make([]byte, 1)) }() // until it is written
		if _, err := ours.Write([]byte{1}); err != nil {
			t.Error(err)
		}
	})
}

// An answer has the same header whether its connection takes lines or not, and none of
// the answer before it on the connection.
func TestHeadersOfAnswers(t *testing.T) {
	s := start(t, web.Config{}, processor.Options{})
	plain := httptest.NewServer(s.Server)
	defer plain.Close()
	hidden := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.ServeHTTP(hiding{w}, r) }))
	hidden.Config.ConnContext, hidden.Listener = web.ConnContext, ours{hidden.Listener}
	hidden.Start()
	defer hidden.Close()
	servers := []string{s.url, plain.URL, hidden.URL}
	conns := make([]*dialog, len(servers))
	for i, url := range servers {
		conns[i] = dial(t, url)
	}
	large := fmt.Sprintf("%q", strings.Repeat("x", 9000))
	_, h, _ := s.exec("7")
	tag := h.Get("Etag")
	for _, tt := range []struct{ version, path, body, more string }{
		{"1.1", "faulty/exec", "7", ""},
		{"1.1", "faulty/exec", large, ""},
		{"1.1", "faulty/exec", large, "Accept: application/cbor\r\n"},
		{"1.1", "faulty/exec", large, "Accept: text/plain\r\n"},
		{"1.1", "faulty/exec", "7", "If-None-Match: " + tag + "\r\n"},
		{"1.1", "faulty/exec", "7", "If-None-Match: \"x\"\r\n"},
		{"1.1", "faulty/exec", "7", "Accept: text/plain\r\n"}, // the output is no text
		{"1.1", "faulty/batch", "7", ""},
		{"1.1", "faulty/exec", "7", "Expect: 100-continue\r\n"},
		{"1.1", "other/exec", "7", ""},
		{"1.1", "square/exec", "7", ""},
		{"1.1", "faulty/exec", `{"do":"trap"}`, ""},
		{"1.0", "faulty/exec", "7", "Connection: keep-alive\r\n"},
		{"1.1", "faulty", "", ""},
	} {
		request := fmt.Sprintf("POST /v1/%s HTTP/%s\r\nHost: x\r\nContent-Type: application/json\r\n%sContent-Length: %d\r\n\r\n%s", tt.path, tt.version, tt.more, len(tt.body), tt.body)
		want, wantBody := conns[1].ask(request)
		for i, c := range conns {
			if h, body := c.ask(request); !reflect.DeepEqual(h, want) || body != wantBody {
				t.Errorf("server %d: %.200q: %v, %.200q, want %v, %.200q", i, request, h, body, want, wantBody)
			}
		}
		isExec := tt.path == "faulty/exec" && !strings.Contains(tt.more, "text") && !strings.Contains(tt.body, "do")
		if got := len(want["Etag"]) + len(want["Wasm-Jobs-Fuel"]) + len(want["Wasm-Jobs-Reused"]) + len(want["Wasm-Jobs-Module"]); isExec && got != 4 {
			t.Errorf("%.200q: %v", request, want)
		}
	}
}

// hiding is a writer of a handler in front of a server.
type hiding struct{ http.ResponseWriter }

func (h hiding) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// dialog is a connection to a server.
type dialog struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func dial(t *testing.T, url string) *dialog {
	c, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &dialog{t, c, bufio.NewReader(c)}
}

// ask returns the answer to a request, without its date.
func (d *dialog) ask(request string) (http.Header, string) {
	d.t.Helper()
	if _, err := io.WriteString(d.conn, request); err != nil {
		d.t.Fatal(err)
	}
	for {
		answer, err := http.ReadResponse(d.r, nil)
		if err != nil {
			d.t.Fatal(err)
		}
		if answer.StatusCode == http.StatusContinue {
			continue
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			d.t.Fatal(err)
		}
		answer.Header.Del("Date")
		answer.Header.Set("Status", answer.Status)
		return answer.Header, string(body)
	}
}
