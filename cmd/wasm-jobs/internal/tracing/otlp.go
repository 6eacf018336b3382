// Package tracing sends spans of jobs to an OpenTelemetry collector.
//
// A job has a span, and so have its phases, its leases and its failed attempts; a chunk that
// succeeds has none. Spans are sent in batches, as OTLP in JSON over HTTP. They are dropped
// if the collector is slow or away: a job never waits for it.
package tracing

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// exporter sends spans to a collector.
type exporter struct {
	url    string
	header http.Header
	client *http.Client
	failed func(error) // called for each batch that was not sent
}

// collectorURL returns the URL for spans: a collector's address gets the path of the
// protocol, as in the variable OTEL_EXPORTER_OTLP_ENDPOINT.
func collectorURL(endpoint string) (string, error) {
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return "", fmt.Errorf("want http://HOST:PORT or https://HOST:PORT, without a password")
	}
	if !strings.HasSuffix(u.Path, "/v1/traces") {
		u.Path = strings.TrimSuffix(u.Path, "/") + "/v1/traces"
	}
	return u.String(), nil
}

// headersOf parses KEY=VALUE pairs separated by commas, as in the variable
// OTEL_EXPORTER_OTLP_HEADERS. Values are percent-encoded. Other pairs are left out.
func headersOf(list string) http.Header {
	h := http.Header{"Content-Type": {"application/json"}}
	for pair := range strings.SplitSeq(list, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(pair), "=")
		if decoded, err := url.PathUnescape(value); ok && err == nil && key != "" && !strings.ContainsAny(key, " \t") && !strings.ContainsAny(key+decoded, "\r\n\x00") {
			h.Set(key, decoded)
		}
	}
	return h
}

// ExportSpans implements [sdktrace.SpanExporter].
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	body, err := json.Marshal(requestOf(spans))
	if err != nil {
		return err
	}
	if err := e.send(ctx, body); err != nil {
		e.failed(err)
	}
	return nil // the SDK would print it
}

func (e *exporter) send(ctx context.Context, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header = e.header.Clone()
	response, err := e.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, 64<<10) // so that the connection is used again
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("the collector answered %s", response.Status)
	}
	return nil
}

// Shutdown implements [sdktrace.SpanExporter].
func (e *exporter) Shutdown(context.Context) error {
	e.client.CloseIdleConnections()
	return nil
}

// The types below are the request of OTLP in JSON, of
// opentelemetry-proto/opentelemetry/proto/collector/trace/v1: ids are in hex, and 64-bit
// integers are texts.
type (
	tracesRequest struct {
		ResourceSpans []resourceSpans `json:"resourceSpans"`
	}
	resourceSpans struct {
		Resource   resource     `json:"resource"`
		ScopeSpans []scopeSpans `json:"scopeSpans"`
	}
	resource struct {
		Attributes []keyValue `json:"attributes"`
	}
	scopeSpans struct {
		Scope scope  `json:"scope"`
		Spans []span `json:"spans"`
	}
	scope struct {
		Name string `json:"name"`
	}
	span struct {
		TraceID      string     `json:"traceId"`
		SpanID       string     `json:"spanId"`
		ParentSpanID string     `json:"parentSpanId,omitempty"`
		Name         string     `json:"name"`
		Kind         int        `json:"kind"`
		Start        string     `json:"startTimeUnixNano"`
		End          string     `json:"endTimeUnixNano"`
		Attributes   []keyValue `json:"attributes,omitempty"`
		Status       status     `json:"status"`
	}
	status struct {
		Code    int    `json:"code,omitempty"`
		Message string `json:"message,omitempty"`
	}
	keyValue struct {
		Key   string `json:"key"`
		Value any    `json:"value"`
	}
	stringValue struct {
		Value string `json:"stringValue"`
	}
	intValue struct {
		Value string `json:"intValue"`
	}
)

func requestOf(spans []sdktrace.ReadOnlySpan) *tracesRequest {
	s := scopeSpans{Scope: scope{scopeName}}
	var r resource
	for _, one := range spans {
		s.Spans = append(s.Spans, spanOf(one))
		r = resource{attributesOf(one.Resource().Attributes())}
	}
	return &tracesRequest{[]resourceSpans{{r, []scopeSpans{s}}}}
}

const (
	kindInternal = 1
	statusError  = 2
)

func spanOf(s sdktrace.ReadOnlySpan) span {
	out := span{
		TraceID: s.SpanContext().TraceID().String(), SpanID: s.SpanContext().SpanID().String(), Name: s.Name(), Kind: kindInternal,
		Start: nanoseconds(s.StartTime()), End: nanoseconds(s.EndTime()), Attributes: attributesOf(s.Attributes()),
	}
	if s.Parent().HasSpanID() {
		out.ParentSpanID = s.Parent().SpanID().String()
	}
	if s.Status().Code == codes.Error {
		out.Status = status{statusError, s.Status().Description}
	}
	return out
}

func nanoseconds(t time.Time) string { return strconv.FormatInt(t.UnixNano(), 10) }

func attributesOf(list []attribute.KeyValue) (out []keyValue) {
	for _, a := range list {
		if a.Value.Type() == attribute.INT64 {
			out = append(out, keyValue{string(a.Key), intValue{strconv.FormatInt(a.Value.AsInt64(), 10)}})
		} else {
			out = append(out, keyValue{string(a.Key), stringValue{a.Value.String()}})
		}
	}
	return out
}
