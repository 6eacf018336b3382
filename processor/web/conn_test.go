package web_test

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

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
