package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/jdx/go-netrc"
)

// client follows redirects, but not from https to http.
var client = &http.Client{
	Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 20 * time.Second,
		ResponseHeaderTimeout: stall, DisableCompression: true, IdleConnTimeout: time.Minute,
	},
	CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("more than 10 redirects")
		}
		if req.URL.Scheme != "https" && !isLocal(req.URL.Hostname()) {
			return errors.New("redirected to a URL that is not encrypted")
		}
		return nil
	},
}

// passing are the statuses of failures that may pass.
var passing = map[int]bool{408: true, 425: true, 429: true, 500: true, 502: true, 503: true, 504: true}

// statusError returns the error of a response.
func statusError(resp *http.Response) error {
	err := fmt.Errorf("the server answered %s", resp.Status)
	if !passing[resp.StatusCode] {
		return err
	}
	return &retryable{err, retryAfter(resp.Header.Get("Retry-After"))}
}

func retryAfter(s string) time.Duration {
	if seconds, err := strconv.Atoi(s); err == nil && seconds > 0 {
		return time.Duration(min(seconds, int(maxDelay/time.Second))) * time.Second
	}
	if at, err := http.ParseTime(s); err == nil {
		return min(time.Until(at), maxDelay)
	}
	return 0
}

// do sends a request with the credentials for its host.
func (l *location) do(req *http.Request) (*http.Response, error) {
	if user, password := login(req.URL.Hostname()); user != "" || password != "" {
		req.SetBasicAuth(user, password)
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, &retryable{err: err}
	}
	return resp, nil
}

// login returns the user and password of a host in the file of NETRC, or ~/.netrc.
func login(host string) (user, password string) {
	path := os.Getenv("NETRC")
	if home, err := os.UserHomeDir(); path == "" && err == nil {
		path = filepath.Join(home, ".netrc")
	}
	if stat, err := os.Stat(path); err != nil || !stat.Mode().IsRegular() || stat.Size() > 1<<20 {
		return "", ""
	}
	n, err := netrc.Parse(path)
	if err != nil {
		return "", ""
	}
	m := n.Machine(host)
	if m == nil {
		return "", ""
	}
	return m.Get("login"), m.Get("password")
}

func (l *location) httpOpener() func(context.Context, int64, string) (*body, error) {
	return func(ctx context.Context, at int64, version string) (*body, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, l.url.String(), nil)
		if err != nil {
			return nil, err
		}
		if at > 0 {
			req.Header.Set("Range", fmt.Sprintf("bytes=%d-", at))
			if version != "" {
				req.Header.Set("If-Range", version)
			}
		}
		resp, err := l.do(req)
		if err != nil {
			return nil, err
		}
		b, err := bodyOf(resp, at)
		if err != nil {
			resp.Body.Close()
		}
		return b, err
	}
}

// bodyOf returns the body of a response from a byte on.
func bodyOf(resp *http.Response, at int64) (*body, error) {
	b := &body{resp.Body, versionOf(resp.Header), resp.ContentLength}
	switch {
	case resp.StatusCode == http.StatusOK:
		if _, err := io.CopyN(io.Discard, resp.Body, at); err != nil { // the server has no ranges
			return nil, &retryable{err: err}
		}
		return b, nil
	case resp.StatusCode == http.StatusPartialContent && at > 0:
		start, size, ok := contentRange(resp.Header.Get("Content-Range"))
		if !ok || start != at {
			return nil, fmt.Errorf("the server answered another range: %.100q", resp.Header.Get("Content-Range"))
		}
		b.size = size
		return b, nil
	}
	return nil, statusError(resp)
}

// versionOf returns the strong validator of a response (RFC 9110, section 8.8).
func versionOf(h http.Header) string {
	if tag := h.Get("ETag"); strings.HasPrefix(tag, `"`) {
		return tag
	}
	return h.Get("Last-Modified")
}

// contentRange reads "bytes 5-9/10".
func contentRange(s string) (start, size int64, ok bool) {
	spec, ok := strings.CutPrefix(s, "bytes ")
	span, total, slash := strings.Cut(spec, "/")
	from, _, dash := strings.Cut(span, "-")
	start, err := strconv.ParseInt(from, 10, 64)
	if size = -1; total != "*" {
		var sizeErr error
		size, sizeErr = strconv.ParseInt(total, 10, 64)
		err = errors.Join(err, sizeErr)
	}
	return start, size, ok && slash && dash && err == nil
}

// put writes the object with PUT.
func (l *location) put(ctx context.Context, file *os.File) error {
	for d := new(delays); ; {
		err := l.putOnce(ctx, file)
		if err == nil {
			return nil
		}
		if err = d.wait(ctx, err); err != nil {
			return fail(l.name, err)
		}
	}
}

func (l *location) putOnce(ctx context.Context, file *os.File) error {
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, l.url.String(), io.NewSectionReader(file, 0, stat.Size()))
	if err != nil {
		return err
	}
	if req.ContentLength = stat.Size(); req.ContentLength == 0 {
		req.Body = http.NoBody
	}
	req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(file, 0, stat.Size())), nil }
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := l.do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return statusError(resp)
	}
	return nil
}
