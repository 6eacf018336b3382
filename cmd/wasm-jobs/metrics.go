package main

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/telemetry"
	"github.com/wasm-jobs/wasm-jobs/processor/web"
)

// serveMetrics are the metrics of a server, in the text format of Prometheus. Clients
// choose no label values.
type serveMetrics struct {
	set      *metrics.Set
	fuel     *metrics.Counter
	rejected map[web.Reason]*metrics.Counter
	requests sync.Map // *metrics.Counter by answeredKey
	times    sync.Map // *metrics.PrometheusHistogram by name and module
}

// answeredKey identifies a counter of requests.
type answeredKey struct {
	module string
	code   int
}

// timesKey identifies a histogram of a module.
type timesKey struct{ name, module string }

func newServeMetrics() *serveMetrics {
	metrics.ExposeMetadata(true)
	m := &serveMetrics{set: metrics.NewSet(), rejected: map[web.Reason]*metrics.Counter{}}
	m.fuel = m.set.NewCounter(telemetry.FuelTotal)
	for _, reason := range []web.Reason{web.ReasonFull, web.ReasonWait, web.ReasonDeadline, web.ReasonRate, web.ReasonDraining} {
		m.rejected[reason] = m.set.NewCounter(fmt.Sprintf("%s{reason=%q}", telemetry.RejectedTotal, reason))
	}
	return m
}

// Answered implements [web.Observer].
func (m *serveMetrics) Answered(module string, code int, elapsed time.Duration) {
	key := answeredKey{module, code}
	counter, ok := m.requests.Load(key)
	if !ok {
		counter = m.set.GetOrCreateCounter(fmt.Sprintf("%s{module=%q,code=\"%d\"}", telemetry.RequestsTotal, module, code))
		m.requests.Store(key, counter)
	}
	counter.(*metrics.Counter).Inc()
	m.histogram(telemetry.RequestSeconds, module).Update(elapsed.Seconds())
}

// Waited implements [web.Observer].
func (m *serveMetrics) Waited(module string, d time.Duration) {
	m.histogram(telemetry.QueueSeconds, module).Update(d.Seconds())
}

func (m *serveMetrics) histogram(name, module string) *metrics.PrometheusHistogram {
	key := timesKey{name, module}
	h, ok := m.times.Load(key)
	if !ok {
		h = m.set.GetOrCreatePrometheusHistogramExt(fmt.Sprintf("%s{module=%q}", name, module), telemetry.Buckets())
		m.times.Store(key, h)
	}
	return h.(*metrics.PrometheusHistogram)
}

// Rejected implements [web.Observer].
func (m *serveMetrics) Rejected(reason web.Reason) { m.rejected[reason].Inc() }

// Executed implements [web.Observer].
func (m *serveMetrics) Executed(fuel uint64) { m.fuel.AddInt64(int64(fuel)) }

// handler serves the metrics and the numbers that counts returns.
func (m *serveMetrics) handler(counts func() web.Counts) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := counts()
		w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
		m.set.WritePrometheus(w)
		metrics.WriteGaugeUint64(w, telemetry.QueueLength, uint64(c.Queued))
		metrics.WriteGaugeUint64(w, telemetry.Executing, uint64(c.Executing))
		metrics.WriteGaugeUint64(w, telemetry.Instances, c.Instances)
		metrics.WriteCounterUint64(w, telemetry.ReusedTotal, c.Reused)
		metrics.WriteCounterUint64(w, telemetry.StoreErrorsTotal, c.StoreErrors)
	})
}
