package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// s3 is a store, and an object in it.
type s3 struct {
	*location
	core *minio.Core
}

// newS3 finds the store as the AWS tools do: AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL,
// AWS_REGION, AWS_DEFAULT_REGION; without an endpoint it is Amazon's.
func newS3(l *location) (*s3, error) {
	endpoint := firstEnv("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
	if endpoint == "" {
		endpoint = "https://s3.amazonaws.com"
	}
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.Scheme != "https" && !(u.Scheme == "http" && isLocal(u.Hostname())) {
		return nil, &Error{URL: l.name, Reason: fmt.Sprintf("invalid AWS_ENDPOINT_URL %.100q: want https://HOST", Name(endpoint))}
	}
	core, err := minio.NewCore(u.Host, &minio.Options{
		Creds: login3(), Secure: u.Scheme == "https", Region: firstEnv("AWS_REGION", "AWS_DEFAULT_REGION"), MaxRetries: attempts,
	})
	if err != nil {
		return nil, fail(l.name, err)
	}
	return &s3{l, core}, nil
}

func firstEnv(names ...string) string {
	for _, name := range names {
		if value := os.Getenv(name); value != "" {
			return value
		}
	}
	return ""
}

// login3 finds credentials in variables, in the shared file with the profile of
// AWS_PROFILE, and then in the service of the machine. Without any, requests are not
// signed.
func login3() *credentials.Credentials {
	providers := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if !strings.EqualFold(os.Getenv("AWS_EC2_METADATA_DISABLED"), "true") {
		providers = append(providers, &credentials.IAM{Client: &http.Client{Timeout: 2 * time.Second}})
	}
	return credentials.NewChainCredentials(providers)
}

func (s *s3) open(ctx context.Context, at int64, version string) (*body, error) {
	var o minio.GetObjectOptions
	var err error
	if at > 0 {
		err = o.SetRange(at, 0)
	}
	if version != "" {
		err = errors.Join(err, o.SetMatchETag(version))
	}
	if err != nil {
		return nil, err
	}
	r, info, header, err := s.core.GetObject(ctx, s.bucket, s.key, o)
	if err != nil {
		return nil, explain(err)
	}
	b := &body{r, info.ETag, info.Size}
	if at > 0 {
		start, size, ok := contentRange(header.Get("Content-Range"))
		if !ok || start != at {
			r.Close()
			return nil, fmt.Errorf("the server answered another range: %.100q", header.Get("Content-Range"))
		}
		b.size = size
	}
	return b, nil
}

// explain returns an error of the store in plain words.
func explain(err error) error {
	e := minio.ToErrorResponse(err)
	switch {
	case e.StatusCode == http.StatusPreconditionFailed:
		return errChanged
	case e.Code == "NoSuchKey":
		return errors.New("no such object")
	case e.Code == minio.NoSuchBucket:
		return errors.New("no such bucket")
	case e.Code == "AccessDenied":
		return errors.New("access denied: credentials are read from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials")
	case e.StatusCode == 0 || passing[e.StatusCode]:
		return &retryable{err: err}
	}
	return err
}

func (s *s3) checkBucket(ctx context.Context) error {
	ok, err := s.core.BucketExists(ctx, s.bucket)
	switch {
	case minio.ToErrorResponse(err).Code == "AccessDenied":
		return nil // who may write need not be allowed to look
	case err != nil:
		return fail(s.name, explain(err))
	case !ok:
		return &Error{URL: s.name, Reason: "no such bucket"}
	}
	return nil
}

func (s *s3) put(ctx context.Context, path string) error {
	_, err := s.core.FPutObject(ctx, s.bucket, s.key, path, minio.PutObjectOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return fail(s.name, explain(err))
	}
	return nil
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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the list
	var found []string
	prefix := l.key[:strings.IndexAny(l.key, "*?[{")]
	for o := range s.core.Client.ListObjects(ctx, l.bucket, minio.ListObjectsOptions{Prefix: prefix, Recursive: true}) {
		if o.Err != nil {
			return nil, fail(path, explain(o.Err))
		}
		if ok, _ := doublestar.Match(l.key, o.Key); ok && !strings.HasSuffix(o.Key, "/") {
			found = append(found, "s3://"+l.bucket+"/"+o.Key)
		}
		if len(found) > maxFound {
			return nil, &Error{URL: path, Reason: fmt.Sprintf("more than %d objects match the pattern", maxFound)}
		}
	}
	slices.Sort(found)
	return found, nil
}
