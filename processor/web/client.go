package web

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/processor"
)

// Client is a runner that sends requests to a server, each as one POST, over
// connections that are reused. It is safe for concurrent use. It never retries.
type Client struct {
	// URL is the URL of a module, such as http://127.0.0.1:7777/v1/square.
	URL   string
	Token string       // bearer token; "" = none
	HTTP  *http.Client // nil = http.DefaultClient
	// MaxOutput is the limit of an output in bytes; 0 = 16 MiB.
	MaxOutput int64
}

// StatusError says that a server did not run a request, or that the answer is not from
// a [Server].
type StatusError struct {
	Status     int
	RetryAfter time.Duration // 0 if the header is missing
	Problem    Problem       // zero if the body is not a problem
}

func (e *StatusError) Error() string {
	if e.Problem.Message == "" {
		return fmt.Sprintf("status %d", e.Status)
	}
	return fmt.Sprintf("status %d: %s", e.Status, e.Problem.Message)
}

// Run implements [processor.Runner]. The error is an *[abi.Failure] if the guest
// failed, a *[StatusError] if the server did not run the request, ctx's, or one of
// net/http.
func (c *Client) Run(ctx context.Context, in []byte) (result processor.Result[[]byte], err error) {
	if err := abi.CheckItem(in); err != nil {
		return result, fmt.Errorf("%w: %w", processor.ErrInput, err)
	}
	answer, err := c.post(ctx, in)
	if err != nil {
		return result, err
	}
	defer answer.Body.Close()
	limit := c.MaxOutput
	if limit <= 0 {
		limit = 16 << 20
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	switch {
	case ended(ctx) != nil:
		return result, ended(ctx)
	case err != nil:
		return result, err
	case answer.StatusCode != http.StatusOK:
		return result, failureOf(answer, body)
	case int64(len(body)) > limit:
		return result, abi.Failf(abi.ClassABI, "the output has more than %d bytes, the limit", limit)
	}
	if err := abi.CheckItem(body); err != nil {
		return result, abi.Failf(abi.ClassABI, "the output is not one CBOR item: %v", err)
	}
	result.Output, result.Reused = body, answer.Header.Get(headerReused) == "1"
	result.Fuel, _ = strconv.ParseUint(answer.Header.Get(headerFuel), 10, 64)
	return result, nil
}

func (c *Client) post(ctx context.Context, in []byte) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(c.URL, "/")+"/exec", bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", string(formCBOR))
	if c.Token != "" {
		r.Header.Set("Authorization", "Bearer "+c.Token)
	}
	if deadline, ok := ctx.Deadline(); ok {
		r.Header.Set(headerTimeout, max(time.Until(deadline), time.Millisecond).String())
	}
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	answer, err := client.Do(r)
	if err != nil && ended(ctx) != nil {
		return nil, ended(ctx)
	}
	return answer, err
}

// ended returns ctx's error. The server has ctx's time limit too, and its answer can be
// here before ctx's own timer fires, so the clock decides.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// failureOf returns the error that a problem describes.
func failureOf(answer *http.Response, body []byte) error {
	e := &StatusError{Status: answer.StatusCode}
	if seconds, err := strconv.Atoi(answer.Header.Get("Retry-After")); err == nil && seconds > 0 {
		e.RetryAfter = time.Duration(min(seconds, 24*60*60)) * time.Second
	}
	if answer.Header.Get("Content-Type") == problemType && json.Unmarshal(body, &e.Problem) == nil {
		for _, class := range abi.Classes() {
			if string(class) == e.Problem.Class {
				return &abi.Failure{Class: class, Message: e.Problem.Message, Stack: e.Problem.Stack}
			}
		}
	}
	return e
}
