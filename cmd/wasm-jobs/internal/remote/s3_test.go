package remote

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// interceptor answers some requests of a store itself, and counts the others.
type interceptor struct {
	http.Handler
	answer func(w http.ResponseWriter, r *http.Request) bool // reports that it answered

	mu       sync.Mutex
	requests []string
}

func (i *interceptor) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !i.answered(w, r) {
		i.Handler.ServeHTTP(w, r)
	}
}

func (i *interceptor) answered(w http.ResponseWriter, r *http.Request) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests = append(i.requests, r.Method)
	return i.answer != nil && i.answer(w, r)
}

func (i *interceptor) count(method string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, m := range i.requests {
		if m == method {
			n++
		}
	}
	return n
}

// fakeWith starts a store whose requests pass through an interceptor.
func fakeWith(t *testing.T, answer func(http.ResponseWriter, *http.Request) bool) *interceptor {
	t.Helper()
	i := &interceptor{answer: answer}
	fake3(t, func(h http.Handler) http.Handler {
		i.Handler = h
		return i
	})
	return i
}

func s3At(t *testing.T, url string) *s3 {
	t.Helper()
	l, err := parse(url)
	if err != nil {
		t.Fatal(err)
	}
	s, err := newS3(l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// answerOnce answers the first request with a method and a query that has a part.
func answerOnce(method, query string, status int, body string) func(http.ResponseWriter, *http.Request) bool {
	done := false
	return func(w http.ResponseWriter, r *http.Request) bool {
		if done || r.Method != method || !strings.Contains(r.URL.RawQuery, query) {
			return false
		}
		done = true
		w.WriteHeader(status)
		io.WriteString(w, body)
		return true
	}
}

// A large object is uploaded in parts, each of them again after a failure that passes.
func TestPutParts(t *testing.T) {
	failure := `<?xml version="1.0"?><Error><Code>InternalError</Code><Message>again</Message></Error>`
	for name, answer := range map[string]func(http.ResponseWriter, *http.Request) bool{
		"no failure": nil,
		"begin":      answerOnce("POST", "uploads", 503, ""),
		"part":       answerOnce("PUT", "partNumber=3&", 500, failure),
		"complete":   answerOnce("POST", "uploadId", 200, failure),
	} {
		i := fakeWith(t, answer)
		s := s3At(t, "s3://bucket/parts")
		s.partSize = 100_000
		if err := s.put(t.Context(), fileOf(t, content).Name()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		got, err := readURL(t, "s3://bucket/parts")
		if err != nil || !bytes.Equal(got, content) || i.count("PUT") < 7 {
			t.Errorf("%s: %d bytes in %d parts, error %v", name, len(got), i.count("PUT"), err)
		}
	}
}

// After a failure that stays, nobody sees the object, and the store forgets the parts.
func TestPutPartsFails(t *testing.T) {
	i := fakeWith(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.RawQuery, "partNumber=5&") {
			return false
		}
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, `<Error><Code>QuotaExceeded</Code><Message>the quota is used up</Message></Error>`)
		return true
	})
	s := s3At(t, "s3://bucket/parts")
	s.partSize = 100_000
	if err := s.put(t.Context(), fileOf(t, content).Name()); err == nil || err.Error() != "s3://bucket/parts: the quota is used up" {
		t.Errorf("error %v", err)
	}
	if _, err := readURL(t, "s3://bucket/parts"); err == nil || i.count("DELETE") != 1 {
		t.Errorf("the object can be read, or was not aborted: %q", i.requests)
	}
}

// Keys may have every character, and signatures are of the escaped key.
func TestKeys(t *testing.T) {
	fakeWith(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if path, _, _ := strings.Cut(r.RequestURI, "?"); strings.Trim(path, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEF%/-._~") != "" {
			t.Errorf("path %s is not escaped as it is signed", path)
		}
		return false
	})
	for _, key := range []string{"a b", "plus+", "ü", "q?&=#", "100%25", "a//b", "(x)'!*;,:@$"} {
		s := s3At(t, "s3://bucket/k/"+key)
		if err := s.put(t.Context(), fileOf(t, []byte(key)).Name()); err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if got, err := readURL(t, "s3://bucket/k/"+key); string(got) != key || err != nil {
			t.Errorf("%s: %q, error %v", key, got, err)
		}
	}
	if found, err := Match(t.Context(), "s3://bucket/k/*"); len(found) != 6 || err != nil || !slices.Contains(found, "s3://bucket/k/plus+") {
		t.Errorf("%q, error %v", found, err)
	}
}

// A list of several pages is read to its end.
func TestPages(t *testing.T) {
	fakeWith(t, func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Query().Get("continuation-token") {
		case "":
			io.WriteString(w, `<ListBucketResult><IsTruncated>true</IsTruncated><NextContinuationToken>a b</NextContinuationToken><Contents><Key>x1+</Key></Contents></ListBucketResult>`)
		case "a b":
			io.WriteString(w, `<ListBucketResult><EncodingType>url</EncodingType><Contents><Key>x2%2B</Key></Contents><Contents><Key>x/</Key></Contents></ListBucketResult>`)
		default:
			w.WriteHeader(http.StatusNotFound)
		}
		return true
	})
	found, err := Match(t.Context(), "s3://bucket/x**")
	if err != nil || strings.Join(found, " ") != "s3://bucket/x1+ s3://bucket/x2+" {
		t.Errorf("%q, error %v", found, err)
	}
}

// A read that goes on asks for the object that it began with.
func TestIfMatch(t *testing.T) {
	gets := 0
	fakeWith(t, func(w http.ResponseWriter, r *http.Request) bool {
		if gets++; gets > 1 && r.Header.Get("If-Match") == `"one"` {
			w.WriteHeader(http.StatusPreconditionFailed)
			return true
		}
		w.Header().Set("ETag", `"one"`)
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		(&limited{w, 300_000}).Write(content)
		return true
	})
	if _, err := readURL(t, "s3://bucket/x"); err == nil || err.Error() != "s3://bucket/x: the object changed while it was read; run again" {
		t.Errorf("error %v", err)
	}
}

// A request for a bucket of another region is signed again for that.
func TestRegion(t *testing.T) {
	for name, inBody := range map[string]bool{"header": false, "body": true} {
		var regions []string
		fakeWith(t, func(w http.ResponseWriter, r *http.Request) bool {
			scope := strings.Split(r.Header.Get("Authorization"), "/")
			regions = append(regions, scope[2])
			if scope[2] == "eu-west-1" {
				return false
			}
			if !inBody {
				w.Header().Set("X-Amz-Bucket-Region", "eu-west-1")
			}
			w.WriteHeader(http.StatusBadRequest)
			if inBody {
				io.WriteString(w, `<Error><Code>AuthorizationHeaderMalformed</Code><Region>eu-west-1</Region></Error>`)
			}
			return true
		})
		s := s3At(t, "s3://bucket/x")
		for range 2 {
			if err := s.put(t.Context(), fileOf(t, content).Name()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if got := strings.Join(regions, " "); got != "us-east-1 eu-west-1 eu-west-1" {
			t.Errorf("%s: regions %s", name, got)
		}
	}
}

// Amazon's hosts have the bucket in their name, other stores have it in the path.
func TestHosts(t *testing.T) {
	for _, x := range [][]string{
		{"", "bucket", "https://bucket.s3.eu-west-1.amazonaws.com/a/b%2Bc"},
		{"", "dotted.bucket", "https://s3.eu-west-1.amazonaws.com/dotted.bucket/a/b%2Bc"},
		{"https://h:9000/base/", "bucket", "https://h:9000/base/bucket/a/b%2Bc"},
	} {
		t.Setenv("AWS_ENDPOINT_URL_S3", x[0])
		t.Setenv("AWS_ENDPOINT_URL", "")
		s := s3At(t, "s3://"+x[1]+"/a/b+c")
		if got := s.store.url(&call{key: s.key}, "eu-west-1").String(); got != x[2] {
			t.Errorf("%s, want %s", got, x[2])
		}
		want := strings.TrimSuffix(strings.TrimSuffix(x[2], "a/b%2Bc"), "/")
		if got := s.store.url(&call{}, "eu-west-1").String(); strings.TrimSuffix(got, "/") != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// roles serves credentials as machines, containers and the token service do.
func roles(w http.ResponseWriter, r *http.Request) {
	const role = `{"Code":"Success","AccessKeyId":"role","SecretAccessKey":"s","Token":"t","Expiration":"2100-01-01T00:00:00Z"}`
	machine := "/latest/meta-data/iam/security-credentials/"
	isToken := r.Header.Get("X-Aws-Ec2-Metadata-Token") == "token"
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token":
		io.WriteString(w, "token")
	case r.URL.Path == machine && isToken:
		io.WriteString(w, "me\n")
	case r.URL.Path == machine+"me" && isToken, r.URL.Path == "/container" && r.Header.Get("Authorization") == "container token":
		io.WriteString(w, role)
	case r.FormValue("Action") == "AssumeRoleWithWebIdentity" && r.FormValue("WebIdentityToken") == "jwt" && r.FormValue("RoleArn") == "arn":
		io.WriteString(w, `<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleWithWebIdentityResult><Credentials>
			<AccessKeyId>web</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2100-01-01T00:00:00Z</Expiration>
			</Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>`)
	default:
		w.WriteHeader(http.StatusUnauthorized)
	}
}

// noLogin removes all variables that have or name credentials.
func noLogin(t *testing.T) {
	t.Helper()
	for _, name := range []string{
		"AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY", "AWS_SECRET_ACCESS_KEY", "AWS_SECRET_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE",
		"AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
		"AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE",
	} {
		t.Setenv(name, "")
	}
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", filepath.Join(t.TempDir(), "none"))
}

func textFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestLogin(t *testing.T) {
	h := httptest.NewServer(http.HandlerFunc(roles))
	defer h.Close()
	file := textFile(t, "# mine\n[default]\naws_access_key_id = first\naws_secret_access_key=s=\n[other]\n"+
		"AWS_ACCESS_KEY_ID=second\naws_secret_access_key=s\naws_session_token = t\n[half]\naws_access_key_id=half\n")
	for _, x := range []struct {
		name, want string
		variables  map[string]string
	}{
		{"none", "none none ", nil},
		{"variables", "a s t", map[string]string{"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t", "AWS_SHARED_CREDENTIALS_FILE": file}},
		{"file", "first s= ", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}},
		{"profile", "second s t", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "other"}},
		{"half a profile", "none none ", map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file, "AWS_PROFILE": "half"}},
		{"container", "role s t", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": h.URL + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN": "container token"}},
		{"container, file", "role s t", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": h.URL + "/container", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": textFile(t, "container token\n")}},
		{"container refuses", "none none ", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": h.URL + "/container"}},
		{"container elsewhere", "none none ", map[string]string{"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.com/container"}},
		{"web identity", "web s t", map[string]string{"AWS_WEB_IDENTITY_TOKEN_FILE": textFile(t, "jwt\n"), "AWS_ROLE_ARN": "arn", "AWS_ENDPOINT_URL_STS": h.URL}},
	} {
		noLogin(t)
		for name, value := range x.variables {
			t.Setenv(name, value)
		}
		c, err := newLogin().Retrieve(t.Context())
		if got := c.AccessKeyID + " " + c.SecretAccessKey + " " + c.SessionToken; got != x.want || err != nil {
			t.Errorf("%s: %q, want %q, error %v", x.name, got, x.want, err)
		}
	}
	c, err := machine(t.Context(), h.URL)
	if c.AccessKeyID != "role" || !c.CanExpire || c.Expires.Before(time.Now()) || err != nil {
		t.Errorf("machine: %q, expires %v, error %v", c.AccessKeyID, c.Expires, err)
	}
}

// Without credentials, requests are not signed.
func TestUnsigned(t *testing.T) {
	var signed []string
	fakeWith(t, func(w http.ResponseWriter, r *http.Request) bool {
		signed = append(signed, r.Header.Get("Authorization"))
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "<Error><Code>AccessDenied</Code></Error>")
		return true
	})
	noLogin(t)
	_, err := readURL(t, "s3://bucket/x")
	if want := "s3://bucket/x: access denied: credentials are read from AWS_ACCESS_KEY_ID"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v", err)
	}
	if len(signed) != 1 || signed[0] != "" {
		t.Errorf("signatures %q", signed)
	}
	if _, err := Create(t.Context(), "s3://bucket/x"); err != nil {
		t.Errorf("who may write need not be allowed to look: %v", err)
	}
}

// A context that ends, ends an upload that waits.
func TestCancelPut(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	fakeWith(t, func(w http.ResponseWriter, _ *http.Request) bool {
		cancel()
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	if err := s3At(t, "s3://bucket/x").put(ctx, fileOf(t, content).Name()); err == nil || ctx.Err() == nil {
		t.Errorf("error %v", err)
	}
}
