package web

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Headers of requests and answers.
const (
	headerTimeout = "Wasm-Jobs-Timeout" // how long a request may take, as 250ms
	headerFuel    = "Wasm-Jobs-Fuel"
	headerReused  = "Wasm-Jobs-Reused" // 1: nothing was executed for this request
	headerModule  = "Wasm-Jobs-Module" // sha256: and the digest of the module's file
	headerNoSniff = "X-Content-Type-Options"
)

// exec answers one request.
func (s *Server) exec(w *answer, r *http.Request, e *entry, h *headers) {
	timeout, err := s.timeout(h)
	if err != nil {
		s.fail(w, e, http.StatusBadRequest, "malformed", err.Error())
		return
	}
	ctx := &w.context
	ctx.begin(r.Context(), s.hard, w.began, timeout)
	defer ctx.release()
	defer s.drop(w)
	in, own, ok := s.readRequest(w, r, e, h, timeout)
	if !ok {
		return
	}
	result, err := e.cache.Run(ctx, in)
	if err != nil {
		s.failWith(w, r, e, err)
		return
	}
	s.hold(w, len(result.Output))
	if len(result.Output) > firstWrite {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bodyTime)) // for a client that does not read
	}
	s.send(w, r, e, h, own, result)
}

// hold counts bytes that a request holds. It returns those of all requests.
func (s *Server) hold(w *answer, n int) (all int64) {
	w.held += int64(n)
	return s.held.Add(int64(n))
}

// drop ends what hold began.
func (s *Server) drop(w *answer) { s.held.Add(-w.held) }

// timeout returns the time limit of a request; 0 = no limit.
func (s *Server) timeout(h *headers) (time.Duration, error) {
	d, err := s.clientTimeout(h)
	if d == 0 {
		d = s.config.Timeout
	}
	return d, err
}

// clientTimeout returns the time limit that a client asks for, at most Config.Timeout;
// 0 if it asks for none.
func (s *Server) clientTimeout(h *headers) (time.Duration, error) {
	text := first(h.timeLimit)
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("invalid %s %.40q: want a duration such as 250ms", headerTimeout, text)
	}
	if most := s.config.Timeout; most > 0 {
		d = min(d, most)
	}
	return d, nil
}

// readRequest reads the body, and converts it from its form to one item. If ok is false,
// the request has been answered. The bytes count as held in both cases.
func (s *Server) readRequest(w *answer, r *http.Request, e *entry, h *headers, timeout time.Duration) (item []byte, own form, ok bool) {
	own, err := requestForm(h)
	if err != nil {
		s.fail(w, e, http.StatusUnsupportedMediaType, "type", err.Error())
		return nil, own, false
	}
	if timeout == 0 {
		timeout = bodyTime
	}
	w.setReadDeadline(epoch.Add(later(w.began, timeout)))
	body, err := s.readBody(w, r)
	if err != nil {
		s.failBody(w, e, err)
		return nil, own, false
	}
	w.setReadDeadline(time.Time{}) // from now on, the server only notices whether the client is still there
	item, err = own.item(body)
	if err != nil {
		s.fail(w, e, http.StatusBadRequest, "malformed", err.Error())
		return nil, own, false
	}
	if more := len(item) - len(body); more != 0 {
		s.hold(w, more)
	}
	return item, own, true
}

// failBody answers a request whose body could not be read.
func (s *Server) failBody(w *answer, e *entry, err error) {
	large, isLarge := errors.AsType[*largeError](err)
	_, isRejected := errors.AsType[*rejectedError](err)
	switch {
	case isLarge:
		w.Header().Set("Connection", "close") // the rest of the body is not read
		s.fail(w, e, http.StatusRequestEntityTooLarge, "large", large.Error())
	case isRejected:
		s.reject(w, e, ReasonFull)
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.reject(w, e, ReasonDeadline)
	default:
		s.fail(w, e, http.StatusBadRequest, "malformed", "incomplete body: "+err.Error())
	}
}

// largeError says that a body is too large.
type largeError struct{ limit int64 }

func (e *largeError) Error() string {
	return fmt.Sprintf("the body is larger than %d bytes, the limit", e.limit)
}

// firstWrite is the size of an answer that the system takes even if the client does not
// read.
const firstWrite = 4 << 10

// firstRead is how much of a body is read before its declared length is trusted.
const firstRead = 64 << 10

// readBody reads a body to its end; only then does net/http notice that a client goes
// away. The returned bytes are counted as held.
func (s *Server) readBody(w *answer, r *http.Request) (body []byte, err error) {
	limit := s.config.MaxBody
	if r.ContentLength > limit {
		return nil, &largeError{limit}
	}
	size := int64(512)
	if r.ContentLength >= 0 {
		size = min(r.ContentLength, firstRead) + 1 // for the read that finds the end
	}
	body = make([]byte, 0, size)
	for {
		if len(body) == cap(body) {
			body = append(body, 0)[:len(body)]
		}
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		held := s.hold(w, n)
		switch {
		case int64(len(body)) > limit:
			return body, &largeError{limit}
		case held > heldBodies*limit && int64(len(body)) > firstRead:
			return body, &rejectedError{ReasonFull}
		case err == io.EOF:
			return body, nil
		case err != nil:
			return body, err
		}
	}
}

// Values of headers, shared by all answers: nobody changes them.
var (
	zeroOne    = []string{"0", "1"}
	varyAccept = []string{"Accept"}
	noSniff    = []string{"nosniff"}
)

// send sends an output.
func (s *Server) send(w *answer, r *http.Request, e *entry, asked *headers, own form, result processor.Result[[]byte]) {
	direct := w.conn(r)
	if direct != nil && asked.noneMatch == nil {
		direct.insert(appendLines(direct.lines[:0], e, &result))
	} else if tag := setHeaders(w, e, &result); matches(asked.noneMatch, tag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	err := writeOutput(w, acceptedForms(asked.accept, own), result.Output)
	if err == nil {
		return
	}
	h := w.Header()
	for _, name := range []string{headerFuel, headerReused, "Etag"} {
		h.Del(name)
	}
	h[headerModule], h["Vary"] = e.digestValue, varyAccept
	s.fail(w, e, http.StatusInternalServerError, "abi", err.Error())
}

// conn returns the connection that takes headers; nil if there is none: it is not one of
// Conn, or the answer is not in HTTP/1.1, or a handler in front of the server may change
// the headers.
func (a *answer) conn(r *http.Request) *conn {
	if _, ok := a.ResponseWriter.(readDeadliner); !ok || r.ProtoMajor != 1 || r.ProtoMinor != 1 {
		return nil
	}
	c, _ := r.Context().Value(connKey{}).(*conn)
	return c
}

// setHeaders sets the headers of an output. It returns its tag.
func setHeaders(w *answer, e *entry, result *processor.Result[[]byte]) (tag string) {
	text, size := outputText(result)
	w.values = [...]string{text[:size], text[size:]}
	h := w.Header()
	h["Etag"], h[headerFuel] = w.values[:1:1], w.values[1:]
	h[headerReused], h[headerModule], h["Vary"], h[headerNoSniff] = zeroOne[:1:1], e.digestValue, varyAccept, noSniff
	if result.Reused {
		h[headerReused] = zeroOne[1:]
	}
	return w.values[0]
}

// appendLines appends the lines of the headers of an output.
func appendLines(b []byte, e *entry, result *processor.Result[[]byte]) []byte {
	b = appendTag(append(b, "Vary: Accept\r\n"+headerNoSniff+": nosniff\r\nEtag: "...), result.Output)
	b = strconv.AppendUint(append(b, "\r\n"+headerFuel+": "...), result.Fuel, 10)
	b = append(append(b, "\r\n"+headerModule+": "...), e.digest...)
	if result.Reused {
		return append(b, "\r\n"+headerReused+": 1\r\n"...)
	}
	return append(b, "\r\n"+headerReused+": 0\r\n"...)
}

// outputText returns the tag of an output, which has the returned size, and after it the
// fuel: in one allocation.
func outputText(result *processor.Result[[]byte]) (text string, size int) {
	var room [2 + 2*sha256.Size + 20]byte
	b := appendTag(room[:0], result.Output)
	return string(strconv.AppendUint(b, result.Fuel, 10)), len(b)
}

// appendTag appends the tag of an output.
func appendTag(b, output []byte) []byte {
	digest := sha256.Sum256(output)
	return append(hex.AppendEncode(append(b, '"'), digest[:]), '"')
}

// matches reports whether a tag is among those of If-None-Match (RFC 9110, section
// 13.1.2).
func matches(values []string, tag string) bool {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			one = strings.TrimPrefix(strings.TrimSpace(one), "W/")
			if one == tag || one == "*" {
				return true
			}
		}
	}
	return false
}
