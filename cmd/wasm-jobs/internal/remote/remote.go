// Package remote reads and writes objects at URLs: https://, and s3:// for stores with
// the protocol of Amazon S3. Credentials are found where other programs find them: for
// https in the file .netrc, for s3 in the variables and shared files of the AWS tools.
package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v4"
)

// Limits of waiting.
const (
	attempts   = 6 // without any progress
	firstDelay = 200 * time.Millisecond
	maxDelay   = 30 * time.Second // also of Retry-After
	stall      = time.Minute      // without a byte
)

// Error is an error about a URL. Its text is one line without secrets.
type Error struct {
	URL    string // without user, password and query
	Reason string
	Err    error // the cause, or nil
}

func (e *Error) Error() string { return e.URL + ": " + e.Reason }
func (e *Error) Unwrap() error { return e.Err }

// OwnPlace says that the error names its place itself.
func (*Error) OwnPlace() {}

// schemes are those of URLs that people give as paths. All but https and s3 are known so
// that they can be refused with a reason.
var schemes = []string{"https", "s3", "http", "file", "ftp", "sftp", "gs", "gcs", "az", "abfs", "abfss", "hdfs"}

// IsURL reports whether a path is a URL, even one that Check refuses.
func IsURL(path string) bool {
	before, _, ok := strings.Cut(path, "://")
	return ok && slices.ContainsFunc(schemes, func(s string) bool { return strings.EqualFold(s, before) })
}

// location is a URL that was checked.
type location struct {
	name        string   // for messages
	url         *url.URL // of https
	bucket, key string   // of s3
}

// Check returns an error if a URL cannot be used.
func Check(path string) error {
	_, err := parse(path)
	return err
}

// Name returns a URL without its parts that may be secret.
func Name(path string) string {
	if u, err := url.Parse(path); err == nil && u.Host != "" {
		u.User, u.RawQuery, u.Fragment = nil, "", ""
		return u.String()
	}
	name, _, _ := strings.Cut(path, "?")
	return name
}

// Recorded returns the URL to keep in records: without its query, if that is a signature
// that lets anyone read the object for some time.
func Recorded(path string) string {
	lower := strings.ToLower(path)
	for _, secret := range []string{"signature=", "x-amz-credential=", "sig=", "token="} {
		if _, query, _ := strings.Cut(lower, "?"); strings.Contains(query, secret) {
			return Name(path)
		}
	}
	return path
}

func parse(path string) (*location, error) {
	if rest, ok := strings.CutPrefix(path, "s3://"); ok {
		bucket, key, _ := strings.Cut(rest, "/")
		if bucket == "" || key == "" {
			return nil, &Error{URL: path, Reason: "invalid URL: want s3://BUCKET/KEY"}
		}
		return &location{name: path, bucket: bucket, key: key}, nil
	}
	u, err := url.Parse(path)
	name := Name(path)
	switch {
	case err == nil && u.Scheme != "https" && u.Scheme != "http":
		return nil, &Error{URL: name, Reason: "unsupported kind of URL: want https://HOST/PATH, s3://BUCKET/KEY, or a path"}
	case err != nil || u.Host == "":
		return nil, &Error{URL: name, Reason: "invalid URL: want https://HOST/PATH or s3://BUCKET/KEY"}
	case u.User != nil:
		return nil, &Error{URL: name, Reason: "a user or password in an argument can be seen by others: put it into ~/.netrc"}
	case u.Scheme == "http" && !isLocal(u.Hostname()):
		return nil, &Error{URL: name, Reason: "not encrypted: want https://, or a host on this machine"}
	}
	return &location{name: name, url: u}, nil
}

// isLocal reports whether a host is this machine.
func isLocal(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// Open begins to read an object. A read that fails goes on where it ended, as long as
// the object is the same. The error is an *[Error], or that of ctx.
func Open(ctx context.Context, path string) (io.ReadCloser, error) {
	l, err := parse(path)
	if err != nil {
		return nil, err
	}
	r := &reader{ctx: ctx, name: l.name, open: l.httpOpener()}
	if l.bucket != "" {
		s, err := newS3(l)
		if err != nil {
			return nil, err
		}
		r.open = s.open
	}
	return r, r.resume()
}

// Target is an object that will be written.
type Target struct {
	l *location
	s *s3
}

// Create checks that an object can be written, as far as that is possible without
// writing: for s3, that the bucket exists. The error is an *[Error].
func Create(ctx context.Context, path string) (*Target, error) {
	l, err := parse(path)
	if err != nil || l.bucket == "" {
		return &Target{l: l}, err
	}
	s, err := newS3(l)
	if err != nil {
		return nil, err
	}
	return &Target{l, s}, s.checkBucket(ctx)
}

// Put writes the object: the whole file, which is read again if an attempt fails. Others
// see the object only when it is complete, if the server keeps to its protocol.
func (t *Target) Put(ctx context.Context, file *os.File) error {
	if t.s != nil {
		return t.s.put(ctx, file.Name())
	}
	return t.l.put(ctx, file)
}

// retryable is a failure that may pass. after is the delay that a server asked for.
type retryable struct {
	err   error
	after time.Duration
}

func (r *retryable) Error() string { return r.err.Error() }
func (r *retryable) Unwrap() error { return r.err }

// fail returns the error about a URL.
func fail(name string, err error) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own
	}
	reason := err.Error()
	if urlErr, ok := errors.AsType[*url.Error](err); ok { // it has the whole URL
		reason = urlErr.Err.Error()
	}
	return &Error{URL: name, Reason: strings.Join(strings.Fields(reason), " "), Err: err}
}

// delays are the delays before attempts.
type delays struct {
	failed int // attempts since the last progress
	b      *backoff.ExponentialBackOff
}

// reset is called after progress.
func (d *delays) reset() { d.failed, d.b = 0, nil }

// wait waits before the next attempt. It returns err if there is none.
func (d *delays) wait(ctx context.Context, err error) error {
	passing, ok := errors.AsType[*retryable](err)
	if d.failed++; !ok || d.failed >= attempts {
		if ok && d.failed > 1 {
			return fmt.Errorf("%w (%d attempts)", err, d.failed)
		}
		return err
	}
	if d.b == nil {
		d.b = backoff.NewExponentialBackOff(backoff.WithInitialInterval(firstDelay), backoff.WithMaxInterval(maxDelay), backoff.WithMaxElapsedTime(0))
	}
	t := time.NewTimer(min(max(d.b.NextBackOff(), passing.after), maxDelay))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
