package effects

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// HTTP is an executor: each step makes the request that its data describes, and the
// response is its output.
//
// The data is the map {"method", "url", "headers", "body"}, in which only url is
// required. The output is {"status", "headers", "body"}. A request has the key of its
// step in the header Idempotency-Key.
type HTTP struct {
	Allow       []string          // URLs that may be reached, with all below them
	Headers     map[string]string // of each request, but not of a redirect to another host; "env:NAME" is read at each call, and recorded nowhere
	RetryStatus []int             // statuses that are retried; nil = [DefaultRetryStatus]
	Timeout     time.Duration     // of one attempt; 0 = none
	MaxBody     int64             // of a response; 0 = 16 MiB
	Client      *http.Client      // CheckRedirect and Timeout are ignored; nil = one of its own
}

// DefaultRetryStatus are the statuses that are retried unless a definition has
// others. 429 and 503 are slow-downs, not failures.
var DefaultRetryStatus = []int{408, 425, 429, 500, 502, 503, 504}

const defaultMaxBody = 16 << 20

// Kind implements [flow.Executor].
func (h *HTTP) Kind() string { return "http" }

// Action implements [flow.Executor].
func (h *HTTP) Action() (store.Action, bool) { return store.Action{}, false }

// Open implements [flow.Executor].
func (h *HTTP) Open(context.Context) (flow.Pool, error) {
	c := &caller{HTTP: *h}
	for _, text := range h.Allow {
		a, err := parseAllowed(text)
		if err != nil {
			return nil, err
		}
		c.allow = append(c.allow, a)
	}
	if c.MaxBody == 0 {
		c.MaxBody = defaultMaxBody
	}
	if c.RetryStatus == nil {
		c.RetryStatus = DefaultRetryStatus
	}
	var client http.Client
	if h.Client != nil {
		client = *h.Client
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.MaxIdleConnsPerHost = 64
		client.Transport = t
	}
	client.CheckRedirect = func(r *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return abi.Failf(flow.ClassEffect, "more than 10 redirects")
		}
		if from := via[0].URL; r.URL.Scheme != from.Scheme || r.URL.Host != from.Host {
			for name := range h.Headers { // they may be secrets of the first host
				r.Header.Del(name)
			}
		}
		return c.check(r.URL.String())
	}
	c.client = &client
	return &pool{call: c.perform, close: client.CloseIdleConnections}, nil
}

// CheckAllowed returns an error if a URL is not valid in [HTTP.Allow].
func CheckAllowed(text string) error {
	_, err := parseAllowed(text)
	return err
}

// CheckHeader returns an error if a header is not valid in [HTTP.Headers].
func CheckHeader(name, value string) error {
	if http.CanonicalHeaderKey(name) == stepHeader {
		return fmt.Errorf("invalid header %s: each request has the key of its step in it", name)
	}
	if variable, secret := strings.CutPrefix(value, "env:"); secret && variable == "" {
		return fmt.Errorf("invalid header %s: missing name of a variable after env", name)
	}
	err := setHeader(&http.Request{Header: http.Header{}}, name, value)
	if failure, ok := errors.AsType[*abi.Failure](err); ok {
		return errors.New(failure.Message)
	}
	return err
}

// stepHeader has the key of a step.
const stepHeader = "Idempotency-Key"

func parseAllowed(text string) (*url.URL, error) {
	u, err := parseURL(text)
	if err == nil && (u.RawQuery != "" || u.Fragment != "") {
		err = errors.New("want a URL without a query")
	}
	if err != nil {
		return nil, fmt.Errorf("invalid allow %q: %w", text, err)
	}
	return u, nil
}

// parseURL refuses URLs that two programs could read differently.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("want a URL")
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("scheme %q: want http or https", u.Scheme)
	case u.User != nil:
		return nil, errors.New("want a URL without user information")
	case u.Host == "" || u.Host != strings.ToLower(u.Host):
		return nil, errors.New("want a host in lower case")
	case !strings.HasPrefix(text, u.Scheme+"://"+u.Host):
		return nil, errors.New("want it in its normal form")
	}
	path := strings.ToLower(u.EscapedPath())
	if strings.ContainsAny(path, "\\;") || strings.Contains(path, "%2f") || strings.Contains(path, "%5c") || strings.Contains(path, "%2e") {
		return nil, errors.New("want a path without encoded slashes or dots, backslashes and semicolons")
	}
	for _, segment := range strings.Split(u.Path, "/") {
		if segment == "." || segment == ".." {
			return nil, errors.New("want a path without the segments . and .. in it")
		}
	}
	return u, nil
}

// caller performs requests. It is safe for concurrent use.
type caller struct {
	HTTP
	allow  []*url.URL
	client *http.Client
}

// check returns a failure of class effect for a URL that is not allowed.
func (c *caller) check(text string) error {
	u, err := parseURL(text)
	if err != nil {
		return abi.Failf(flow.ClassEffect, "refused URL %.200q: %v", text, err)
	}
	for _, a := range c.allow {
		prefix := strings.TrimSuffix(a.Path, "/")
		if u.Scheme == a.Scheme && hostPort(u) == hostPort(a) && (u.Path == prefix || u.Path == a.Path || strings.HasPrefix(u.Path, prefix+"/")) {
			return nil
		}
	}
	return abi.Failf(flow.ClassEffect, "refused URL %.200q: not below an allowed URL", text)
}

func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return u.Hostname() + ":" + port
}

func (c *caller) perform(ctx context.Context, key [32]byte, data []byte) ([]byte, error) {
	if c.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.Timeout)
		defer cancel()
	}
	request, err := c.request(ctx, key, data)
	if err != nil {
		return nil, err
	}
	response, err := c.client.Do(request)
	if err != nil {
		return nil, callError(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, c.MaxBody+1))
	switch {
	case err != nil:
		return nil, callError(ctx, err)
	case int64(len(body)) > c.MaxBody:
		return nil, abi.Failf(flow.ClassEffect, "the response has more than %d bytes", c.MaxBody)
	}
	if slices.Contains(c.RetryStatus, response.StatusCode) {
		return nil, retryable(response)
	}
	return appendResponse(nil, response, body), nil
}

// retryable returns the error of a status that is retried.
func retryable(r *http.Response) error {
	err := abi.Failf(abi.ClassGuestRetryable, "status %d", r.StatusCode)
	if r.StatusCode != http.StatusTooManyRequests && r.StatusCode != http.StatusServiceUnavailable {
		return err
	}
	return &flow.SlowDown{After: retryAfter(r.Header.Get("Retry-After"), time.Now()), Err: err}
}

// longest is the longest Retry-After that is told apart, in seconds: 100 years.
const longest = 100 * 366 * 24 * 3600

// retryAfter reads Retry-After (RFC 9110, section 10.2.3); 0 = missing or invalid.
func retryAfter(value string, now time.Time) time.Duration {
	seconds, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
	if err == nil || errors.Is(err, strconv.ErrRange) {
		return time.Duration(min(seconds, longest)) * time.Second
	}
	if at, err := http.ParseTime(value); err == nil {
		return max(at.Sub(now), 0)
	}
	return 0
}

// callError returns the failure of a request without a response. A refused request
// is a failure already. Messages of the transport name the URL, but no header.
func callError(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*abi.Failure](err); ok {
		return f
	}
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return abi.Failf(abi.ClassTimeout, "no response in time")
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	return abi.Failf(abi.ClassGuestRetryable, "%v", err)
}

// request makes the request that data describes.
func (c *caller) request(ctx context.Context, key [32]byte, data []byte) (*http.Request, error) {
	asked, err := parseRequest(data)
	if err != nil {
		return nil, err
	}
	if err := c.check(asked.url); err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, asked.method, asked.url, bytes.NewReader(asked.body))
	if err != nil {
		return nil, abi.Failf(flow.ClassEffect, "invalid request: %v", err)
	}
	for name, value := range asked.headers {
		if err := setHeader(r, name, value); err != nil {
			return nil, err
		}
	}
	for name, value := range c.Headers {
		if variable, secret := strings.CutPrefix(value, "env:"); secret {
			var set bool
			if value, set = os.LookupEnv(variable); !set {
				return nil, abi.Failf(flow.ClassEffect, "header %s: missing environment variable %s", name, variable)
			}
		}
		if err := setHeader(r, name, value); err != nil {
			return nil, err
		}
	}
	r.Header.Set(stepHeader, hex.EncodeToString(key[:]))
	return r, nil
}

// ownHeaders are set by the transport.
var ownHeaders = []string{"Host", "Content-Length", "Transfer-Encoding", "Connection", "Upgrade", "Trailer", "Te"}

func setHeader(r *http.Request, name, value string) error {
	canonical := http.CanonicalHeaderKey(name)
	switch {
	case name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' || strings.ContainsRune("()<>@,;:\\\"/[]?={}", c) }):
		return abi.Failf(flow.ClassEffect, "invalid header name %.100q", name)
	case strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }):
		return abi.Failf(flow.ClassEffect, "invalid header %s: want a value without line breaks and other control characters", name)
	case slices.Contains(ownHeaders, canonical):
		return abi.Failf(flow.ClassEffect, "invalid header %s: it cannot be set", name)
	}
	r.Header.Set(canonical, value)
	return nil
}

func appendResponse(b []byte, r *http.Response, body []byte) []byte {
	b = abi.AppendHead(b, abi.MajorMap, 3)
	b = abi.AppendHead(abi.AppendText(b, "status"), abi.MajorUint, uint64(r.StatusCode))
	names := make([]string, 0, len(r.Header))
	for name := range r.Header {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(strings.ToLower(a), strings.ToLower(b)) })
	b = abi.AppendHead(abi.AppendText(b, "headers"), abi.MajorMap, uint64(len(names)))
	for _, name := range names {
		b = abi.AppendText(b, strings.ToLower(name))
		b = abi.AppendText(b, strings.ToValidUTF8(strings.Join(r.Header[name], ", "), "\uFFFD"))
	}
	b = abi.AppendHead(abi.AppendText(b, "body"), abi.MajorBytes, uint64(len(body)))
	return append(b, body...)
}
