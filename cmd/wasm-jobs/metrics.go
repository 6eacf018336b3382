package main

import (
	"bytes"
	"cmp"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/telemetry"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

// serveMetrics are the metrics of a server, in the text format of Prometheus. Clients
// choose no label values. It is safe for concurrent use.
type serveMetrics struct {
	mu       sync.Mutex // of all
	fuel     uint64
	rejected map[web.Reason]uint64
	requests map[answeredKey]uint64
	times    map[timesKey]*telemetry.Histogram
}

// answeredKey identifies a counter of requests.
type answeredKey struct {
	module string
	code   int
}

// timesKey identifies a histogram of a module.
type timesKey struct{ name, module string }

func newServeMetrics() *serveMetrics {
	return &serveMetrics{
		rejected: map[web.Reason]uint64{web.ReasonFull: 0, web.ReasonWait: 0, web.ReasonDeadline: 0, web.ReasonRate: 0, web.ReasonDraining: 0},
		requests: map[answeredKey]uint64{},
		times:    map[timesKey]*telemetry.Histogram{},
	}
}

// Answered implements [web.Observer].
func (m *serveMetrics) Answered(module string, code int, elapsed time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests[answeredKey{module, code}]++
	m.histogram(telemetry.RequestSeconds, module).Add(elapsed)
}

// Waited implements [web.Observer].
func (m *serveMetrics) Waited(module string, d time.Duration, requests int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.histogram(telemetry.QueueSeconds, module).AddAll(d, requests)
}

// histogram returns the histogram of a module. mu is held.
func (m *serveMetrics) histogram(name, module string) *telemetry.Histogram {
	key := timesKey{name, module}
	h := m.times[key]
	if h == nil {
		h = new(telemetry.Histogram)
		m.times[key] = h
	}
	return h
}

// Rejected implements [web.Observer].
func (m *serveMetrics) Rejected(reason web.Reason) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rejected[reason]++
}

// Executed implements [web.Observer].
func (m *serveMetrics) Executed(fuel uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fuel += fuel
}

// write writes the metrics, sorted by name and labels.
func (m *serveMetrics) write(to io.Writer) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w := telemetry.NewWriter(to)
	w.Put(telemetry.FuelTotal, m.fuel)
	for _, reason := range slices.Sorted(maps.Keys(m.rejected)) {
		w.Put(telemetry.RejectedTotal, m.rejected[reason], "reason", string(reason))
	}
	for _, key := range slices.SortedFunc(maps.Keys(m.requests), func(a, b answeredKey) int {
		return cmp.Or(cmp.Compare(a.module, b.module), cmp.Compare(a.code, b.code))
	}) {
		w.Put(telemetry.RequestsTotal, m.requests[key], "module", key.module, "code", strconv.Itoa(key.code))
	}
	for _, key := range slices.SortedFunc(maps.Keys(m.times), func(a, b timesKey) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.module, b.module))
	}) {
		w.PutTimes(key.name, m.times[key], "module", key.module)
	}
}

// handler serves the metrics and the numbers that counts returns.
func (m *serveMetrics) handler(counts func() web.Counts) http.Handler {
	return http.HandlerFunc(func(to http.ResponseWriter, _ *http.Request) {
		c := counts()
		var page bytes.Buffer // a slow client must not hold the lock
		m.write(&page)
		w := telemetry.NewWriter(&page)
		w.Put(telemetry.QueueLength, uint64(c.Queued))
		w.Put(telemetry.Executing, uint64(c.Executing))
		w.Put(telemetry.Instances, c.Instances)
		w.Put(telemetry.ReusedTotal, c.Reused)
		w.Put(telemetry.StoreErrorsTotal, c.StoreErrors)
		to.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		_, _ = page.WriteTo(to) // the client may have gone
	})
}
