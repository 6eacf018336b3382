package tracing

import (
	"context"
	"net/http"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const scopeName = "github.com/wasm-jobs/wasm-jobs"

// Config has the collector of spans.
type Config struct {
	Endpoint string // its URL
	Headers  string // of requests: KEY=VALUE, separated by commas
	Version  string // of the command
}

// Tracer makes spans and sends them.
type Tracer struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer

	mu  sync.Mutex
	err error // the first of a batch
}

const (
	// maxWaiting is the number of spans that wait to be sent. Further ones are dropped.
	maxWaiting = 8192
	// maxText bounds texts in spans, in bytes. They may come from guests.
	maxText = 4 << 10
	// sendTime bounds one request, and endTime sending what remains at the end.
	sendTime, endTime = 5 * time.Second, 5 * time.Second
)

// New returns a tracer. Nothing is sent before the first spans have ended. The error says
// which form of the endpoint is wanted.
func New(c Config) (*Tracer, error) {
	to, err := collectorURL(c.Endpoint)
	if err != nil {
		return nil, err
	}
	t := &Tracer{}
	client := &http.Client{Timeout: sendTime, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	limits := sdktrace.NewSpanLimits()
	limits.AttributeValueLengthLimit = maxText
	t.provider = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(&exporter{to, headersOf(c.Headers), client, t.fail}, sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithBatchTimeout(time.Second), sdktrace.WithExportTimeout(sendTime)),
		sdktrace.WithResource(sdkresource.NewSchemaless(attribute.String("service.name", "wasm-jobs"), attribute.String("service.version", c.Version))),
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithRawSpanLimits(limits),
	)
	t.tracer = t.provider.Tracer(scopeName)
	return t, nil
}

func (t *Tracer) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

// Close sends the spans that have ended, waits for at most 5 seconds, and returns the first
// error of all that were sent.
func (t *Tracer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), endTime)
	defer cancel()
	err := t.provider.Shutdown(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return t.err
	}
	return err
}
