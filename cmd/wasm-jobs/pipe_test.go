package main

import (
	"io"
	"testing"
)

// parts is a reader of data that comes in parts. A client waits for an answer after the
// last one.
type parts struct {
	t   *testing.T
	all []string
}

func (p *parts) Read(b []byte) (int, error) {
	if len(p.all) == 0 {
		p.t.Error("it waits for more than the first request")
		return 0, io.EOF
	}
	n := copy(b, p.all[0])
	p.all = p.all[1:]
	return n, nil
}

// A request is read before the next one comes, whatever its first byte is.
func TestPipeReadsOneRequest(t *testing.T) {
	for _, request := range []string{"\x00", "\x01", "\x28", "\x39\x01\x00", "\x82\x01\x02", "\x50\x2a0123456789abcde", "7\n", "[1]\n", "\x28\x01"} {
		u := &unpackedRequests{raw: &parts{t, []string{request}}}
		got := make([]byte, len(request))
		if _, err := io.ReadFull(u, got); err != nil || string(got) != request {
			t.Errorf("%q: %q, %v", request, got, err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
}
