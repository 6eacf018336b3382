package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	signer "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

// maxAnswer is the limit of bytes of an answer in XML. A list has at most 1000 keys of
// 1024 bytes, each of which may need three.
const maxAnswer = 16 << 20

// client3 follows no redirects: a request is signed for one host.
var client3 = &http.Client{
	Transport:     client.Transport,
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// bucket sends requests to a bucket, by the REST protocol of Amazon S3 with signatures of
// version 4. It is safe for concurrent use.
type bucket struct {
	endpoint *url.URL // nil: Amazon's
	name     string
	login    aws.CredentialsProvider
	region   atomic.Pointer[string]
}

func (b *bucket) setRegion(region string) { b.region.Store(&region) }

// call is a request to a bucket.
type call struct {
	method string
	key    string // "" asks the bucket
	query  url.Values
	header http.Header
	body   *io.SectionReader // nil: none
}

// answer is the error in a response.
type answer struct {
	status int    // of HTTP
	text   string // of the status
	Code   string
	Region string // of the bucket
	// Message is for people. It may be empty.
	Message string
}

func (a *answer) Error() string {
	return cmp.Or(a.Message, a.Code, "the server answered "+a.text)
}

// passes reports whether the failure may pass. A status of 200 can come with an error,
// if an upload in parts fails at its end.
func (a *answer) passes() bool {
	return passing[a.status] || a.Code == "InternalError" || a.Code == "SlowDown" || a.Code == "RequestTimeout"
}

// send sends a request once, or twice if the first answer tells another region. The error
// is an *[answer], in a *[retryable] if it may pass, or that of the connection.
func (b *bucket) send(ctx context.Context, c *call) (*http.Response, error) {
	for first := true; ; first = false {
		region := *b.region.Load()
		req, err := b.request(ctx, c, region)
		if err != nil {
			return nil, err
		}
		resp, err := client3.Do(req)
		if err != nil {
			return nil, &retryable{err: err}
		}
		if resp.StatusCode >= 200 && resp.StatusCode <= 299 {
			return resp, nil
		}
		e := readError(resp)
		other := cmp.Or(resp.Header.Get("X-Amz-Bucket-Region"), e.Region)
		switch {
		case first && other != "" && other != region:
			b.setRegion(other)
		case e.passes():
			return nil, &retryable{e, retryAfter(resp.Header.Get("Retry-After"))}
		default:
			return nil, e
		}
	}
}

// readError reads the error of a response, and closes it.
func readError(resp *http.Response) *answer {
	defer resp.Body.Close()
	e := &answer{status: resp.StatusCode, text: resp.Status}
	_ = xml.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(e) // otherwise the status tells enough
	return e
}

// ask sends a request, and decodes the answer if into is not nil.
func (b *bucket) ask(ctx context.Context, c *call, into any) error {
	resp, err := b.send(ctx, c)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return &retryable{err: err}
	}
	e := &answer{status: resp.StatusCode, text: resp.Status}
	if root := struct{ XMLName xml.Name }{}; xml.Unmarshal(content, &root) == nil && root.XMLName.Local == "Error" {
		_ = xml.Unmarshal(content, e) // it is XML
		if e.passes() {
			return &retryable{err: e}
		}
		return e
	}
	if into == nil {
		return nil
	}
	if err := xml.Unmarshal(content, into); err != nil {
		return fmt.Errorf("invalid answer of the server: %w", err)
	}
	return nil
}

// request makes a request, signed if there are credentials.
func (b *bucket) request(ctx context.Context, c *call, region string) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, c.method, b.url(c, region).String(), nil)
	if err != nil {
		return nil, err
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	digest, err := setBody(req, c.body)
	if err != nil {
		return nil, err
	}
	login, err := b.login.Retrieve(ctx)
	if err != nil {
		return nil, &retryable{err: err}
	}
	if login.Source == unsigned.Source {
		return req, nil
	}
	req.Header.Set("X-Amz-Content-Sha256", digest)
	plain := func(o *signer.SignerOptions) { o.DisableURIPathEscaping = true } // s3 alone escapes once
	return req, signer.NewSigner(plain).SignHTTP(ctx, login, req, digest, "s3", region, time.Now())
}

// setBody sets the body of a request, and returns its digest, by which the server finds
// damage.
func setBody(req *http.Request, body *io.SectionReader) (string, error) {
	hash := sha256.New()
	if body == nil || body.Size() == 0 {
		return hex.EncodeToString(hash.Sum(nil)), nil
	}
	again := func() (io.ReadCloser, error) { return io.NopCloser(io.NewSectionReader(body, 0, body.Size())), nil }
	req.GetBody, req.ContentLength = again, body.Size()
	req.Body, _ = again()
	_, err := io.Copy(hash, io.NewSectionReader(body, 0, body.Size()))
	return hex.EncodeToString(hash.Sum(nil)), err
}

// url returns the URL of a call. Other stores than Amazon's have the bucket in the path,
// and so has Amazon's if the certificate of its hosts does not cover the name.
func (b *bucket) url(c *call, region string) *url.URL {
	u := &url.URL{Scheme: "https", Host: "s3." + region + "." + domain(region), RawQuery: c.query.Encode()}
	path := "/" + c.key
	switch {
	case b.endpoint != nil:
		u.Scheme, u.Host = b.endpoint.Scheme, b.endpoint.Host
		path = strings.TrimSuffix(b.endpoint.Path, "/") + "/" + b.name + path
	case strings.Contains(b.name, "."):
		path = "/" + b.name + path
	default:
		u.Host = b.name + "." + u.Host
	}
	if c.key == "" && path != "/" {
		path = strings.TrimSuffix(path, "/")
	}
	u.Path, u.RawPath = path, escape(path)
	return u
}

// domain returns Amazon's domain of a region.
func domain(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}

// escape escapes a path as signatures need it: all but letters, digits, "-", ".", "_",
// "~" and "/".
func escape(path string) string {
	return strings.NewReplacer("+", "%20", "%2F", "/").Replace(url.QueryEscape(path))
}

// repeat calls f until it succeeds, or its failure does not pass.
func repeat(ctx context.Context, f func() error) error {
	for d := new(delays); ; {
		err := f()
		if err == nil {
			return nil
		}
		if err = d.wait(ctx, err); err != nil {
			return err
		}
	}
}
