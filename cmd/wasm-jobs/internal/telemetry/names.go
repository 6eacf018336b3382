// Package telemetry offers the numbers of jobs, flows and workers in the text format of
// Prometheus.
//
// All commands use the names of this package. No label has an id, and guests choose no
// label values: the number of series is bounded by the modules, states and classes of
// failure.
package telemetry

// The names of the metrics. A name that ends in _total is of a counter, one in _seconds of a
// histogram, the others are of gauges.
const (
	RequestsTotal  = "wasm_jobs_requests_total"  // serve: by module and code
	RequestSeconds = "wasm_jobs_request_seconds" // serve: by module
	QueueSeconds   = "wasm_jobs_queue_seconds"   // serve: by module
	RejectedTotal  = "wasm_jobs_rejected_total"  // serve: by reason

	QueueLength      = "wasm_jobs_queue_length" // requests, chunks or items that wait
	Executing        = "wasm_jobs_executing"    // requests, leases or items that are executed
	Instances        = "wasm_jobs_instances"    // of guests
	FuelTotal        = "wasm_jobs_fuel_total"
	ReusedTotal      = "wasm_jobs_reused_total" // outputs that the store had
	StoreErrorsTotal = "wasm_jobs_store_errors_total"

	Chunks         = "wasm_jobs_chunks"          // of the job
	SucceededTotal = "wasm_jobs_succeeded_total" // chunks, the reused ones included
	FailedTotal    = "wasm_jobs_failed_total"    // chunks by class, or items
	AttemptsTotal  = "wasm_jobs_attempts_total"
	RetriesTotal   = "wasm_jobs_retries_total"
	RequeuedTotal  = "wasm_jobs_requeued_total"
	ChunkSeconds   = "wasm_jobs_chunk_seconds" // attempts that succeeded
	Phase          = "wasm_jobs_phase"         // 1 for the phase of the job

	Items        = "wasm_jobs_items"               // of a flow: by progress
	StateItems   = "wasm_jobs_state_items"         // by state and progress
	EnteredTotal = "wasm_jobs_state_entered_total" // by state
	LeftTotal    = "wasm_jobs_state_left_total"    // by state
	SlowedTotal  = "wasm_jobs_slowed_total"        // by state

	Slots     = "wasm_jobs_slots" // of a worker: chunks that it can execute at once
	LostTotal = "wasm_jobs_lost_total"
)

// Names returns all names.
func Names() []string {
	return []string{
		RequestsTotal, RequestSeconds, QueueSeconds, RejectedTotal,
		QueueLength, Executing, Instances, FuelTotal, ReusedTotal, StoreErrorsTotal,
		Chunks, SucceededTotal, FailedTotal, AttemptsTotal, RetriesTotal, RequeuedTotal, ChunkSeconds, Phase,
		Items, StateItems, EnteredTotal, LeftTotal, SlowedTotal, Slots, LostTotal,
	}
}
