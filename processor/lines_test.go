package processor_test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// lateReader is a reader whose SetReadDeadline takes a second.
type lateReader struct {
	io.Reader
	began, ended atomic.Bool
}

func (l *lateReader) SetReadDeadline(time.Time) error {
	l.began.Store(true)
	time.Sleep(time.Second)
	l.ended.Store(true)
	return nil
}

// After the last request, the reader is no longer used: it may be the body of a request
// that has ended.
func TestRequestsLetGoOfTheirReader(t *testing.T) {
	for format, input := range map[processor.Format]string{processor.CBOR: "\x01\x02", processor.JSONLines: "1\n2\n"} {
		synctest.Test(t, func(t *testing.T) {
			r := &lateReader{Reader: bytes.NewReader([]byte(input))}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			for range processor.Requests(ctx, r, format, chunks.Options{}) {
				cancel()
				synctest.Wait()
				break
			}
			if r.began.Load() != r.ended.Load() || !r.began.Load() {
				t.Errorf("format %d: a deadline was being set: %v, and was set: %v", format, r.began.Load(), r.ended.Load())
			}
		})
	}
}

// Observe gets the answer that is written, once.
func TestAnswersAreObserved(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer processor.Answer
		lines  string
		failed bool
	}{
		{"an output", processor.Answer{ID: abi.IntID(1), Result: processor.Result[[]byte]{Output: []byte{7}}}, `{"id":1,"output":7}`, false},
		{"a failure", processor.Answer{ID: abi.IntID(1), Failure: abi.Failf(abi.ClassGuest, "no")}, `{"id":1,"failure":{"class":"guest","message":"observed: no"}}`, true},
		{"an output that JSON cannot express", processor.Answer{ID: abi.IntID(1), Result: processor.Result[[]byte]{Output: []byte("\xa2\x01\x00\x611\x00")}},
			`{"id":1,"failure":{"class":"abi","message":"observed: the output cannot be written as JSON: duplicate key `, true},
	} {
		var out bytes.Buffer
		var observed []bool
		w := &processor.AnswerWriter{W: bufio.NewWriter(&out), Format: processor.JSONLines, Observe: func(a *processor.Answer) {
			observed = append(observed, a.Failure != nil)
			if a.Failure != nil {
				a.Failure = abi.Failf(a.Failure.Class, "observed: %s", a.Failure.Message)
			}
		}}
		if err := w.Write(&tt.answer); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		if len(observed) != 1 || observed[0] != tt.failed || !bytes.HasPrefix(out.Bytes(), []byte(tt.lines)) || bytes.Count(out.Bytes(), []byte("\n")) != 1 {
			t.Errorf("%s: observed failures %v; %s", tt.name, observed, out.Bytes())
		}
	}
}
