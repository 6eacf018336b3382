package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// s3 is an object in a store.
type s3 struct {
	*location
	store    *bucket
	partSize int64 // of uploads in parts, at least
}

// newS3 finds the store as the AWS tools do: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
// AWS_REGION, AWS_DEFAULT_REGION; without an endpoint it is Amazon's.
func newS3(l *location) (*s3, error) {
	b := &bucket{name: l.bucket, login: newLogin()}
	b.setRegion(cmp.Or(firstEnv("AWS_REGION", "AWS_DEFAULT_REGION"), "us-east-1"))
	if endpoint := firstEnv("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"); endpoint != "" {
		u, err := url.Parse(endpoint)
		if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLocal(u.Hostname())) {
			return nil, &Error{URL: l.name, Reason: fmt.Sprintf("invalid AWS_ENDPOINT_URL %.100q: want https://HOST", Name(endpoint))}
		}
		b.endpoint = u
	}
	return &s3{l, b, 16 << 20}, nil
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

func (s *s3) open(ctx context.Context, at int64, version string) (*body, error) {
	header := http.Header{}
	if at > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", at))
	}
	if strings.HasPrefix(version, `"`) {
		header.Set("If-Match", version)
	}
	resp, err := s.store.send(ctx, &call{method: http.MethodGet, key: s.key, header: header})
	if err != nil {
		return nil, explain(err)
	}
	b, err := bodyOf(resp, at)
	if err != nil {
		resp.Body.Close()
	}
	return b, err
}

// explain returns an error of the store in plain words.
func explain(err error) error {
	e, ok := errors.AsType[*answer](err)
	switch {
	case !ok:
		return err
	case e.status == http.StatusPreconditionFailed:
		return errChanged
	case e.Code == "NoSuchKey":
		return errors.New("no such object")
	case e.Code == "NoSuchBucket":
		return errors.New("no such bucket")
	case e.Code == "AccessDenied":
		return errors.New("access denied: credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials")
	}
	return err
}

func (s *s3) checkBucket(ctx context.Context) error {
	err := s.ask(ctx, &call{method: http.MethodHead}, nil)
	e, _ := errors.AsType[*answer](err)
	switch {
	case err == nil:
		return nil
	case e != nil && e.status == http.StatusForbidden:
		return nil // who may write need not be allowed to look
	case e != nil && e.status == http.StatusNotFound:
		return &Error{URL: s.name, Reason: "no such bucket"}
	}
	return fail(s.name, explain(err))
}

// maxFound is the limit of objects that a pattern may match.
const maxFound = 1_000_000

// Match returns the URLs of the objects of s3 that match a pattern, in bytewise order,
// or the URL itself if it is not a pattern.
func Match(ctx context.Context, path string) ([]string, error) {
	special := strings.IndexAny(path, "*?[{")
	if !strings.HasPrefix(path, "s3://") || special < 0 {
		return []string{path}, nil
	}
	l, err := parse(path)
	if err != nil {
		return nil, err
	}
	if !doublestar.ValidatePattern(l.key) || strings.ContainsAny(l.bucket, "*?[{") {
		return nil, &Error{URL: path, Reason: "invalid pattern: want *, ?, [a-z], {a,b} or **, each of them closed, in the key"}
	}
	s, err := newS3(l)
	if err != nil {
		return nil, err
	}
	found, err := s.matching(ctx)
	if err != nil {
		return nil, fail(path, explain(err))
	}
	slices.Sort(found)
	return found, nil
}

// page is a part of a list of objects.
type page struct {
	EncodingType          string
	Contents              []struct{ Key string }
	IsTruncated           bool
	NextContinuationToken string
}

// matching returns the URLs of the objects whose keys match the key of s, a pattern.
func (s *s3) matching(ctx context.Context) ([]string, error) {
	var found []string
	// XML cannot have every character of a key, so keys are asked for with escapes.
	query := url.Values{"list-type": {"2"}, "encoding-type": {"url"}, "prefix": {s.key[:strings.IndexAny(s.key, "*?[{")]}}
	for {
		p := new(page)
		if err := s.ask(ctx, &call{method: http.MethodGet, query: query}, p); err != nil {
			return nil, err
		}
		for _, o := range p.Contents {
			key := o.Key
			if p.EncodingType == "url" {
				var err error
				if key, err = url.QueryUnescape(key); err != nil {
					return nil, err
				}
			}
			if ok, _ := doublestar.Match(s.key, key); ok && !strings.HasSuffix(key, "/") {
				found = append(found, "s3://"+s.bucket+"/"+key)
			}
		}
		if len(found) > maxFound {
			return nil, fmt.Errorf("more than %d objects match the pattern", maxFound)
		}
		if !p.IsTruncated || p.NextContinuationToken == "" {
			return found, nil
		}
		query.Set("continuation-token", p.NextContinuationToken)
	}
}
