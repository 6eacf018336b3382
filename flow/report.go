package flow

import (
	"time"

	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Report describes the progress of a run, or its end. At every moment, entered =
// left + failed + waiting + executing + limited + retrying for each state, and
// total = ended + failed + held + live for the items.
type Report struct {
	Kind  string `json:"kind"` // flow
	Run   string `json:"run"`
	State string `json:"state"`
	Error string `json:"error,omitempty"`
	Items Items  `json:"items"`

	States        []StateReport `json:"states"` // in declared order
	Bottleneck    *Bottleneck   `json:"bottleneck,omitempty"`
	Effects       Effects       `json:"effects"`
	Interventions int           `json:"interventions"`
	Digests       Digests       `json:"digests"`
	Instances     runtime.Stats `json:"instances"`
	Workers       int           `json:"workers"`
	Seconds       float64       `json:"seconds"`
}

// The states of a run.
const (
	Running     = "running"
	Succeeded   = "succeeded"
	Failed      = "failed"
	Held        = "held"
	Interrupted = "interrupted"
	Crashed     = "crashed" // its process died
)

// Items counts items and the steps that they began.
type Items struct {
	Total  int `json:"total"`
	Roots  int `json:"roots"`
	Live   int `json:"live"`
	Ended  int `json:"ended"`
	Failed int `json:"failed"` // includes items at a failed end
	Held   int `json:"held"`
	Steps  int `json:"steps"` // visits to states other than ends
}

// StateReport describes the items and steps of one state.
type StateReport struct {
	Name          string       `json:"name"`
	Kind          string       `json:"kind"`
	Waiting       int          `json:"waiting"`
	Executing     int          `json:"executing"`
	Limited       int          `json:"limited"`
	Retrying      int          `json:"retrying"`
	Entered       int          `json:"entered"`
	Left          int          `json:"left"`
	Failed        int          `json:"failed"`
	Attempts      int          `json:"attempts"`
	Retries       int          `json:"retries"`
	Slowed        int          `json:"slowed"`
	Reused        int          `json:"reused"`
	Fuel          uint64       `json:"fuel"`
	Seconds       StateSeconds `json:"seconds"`
	MeanExecuting float64      `json:"mean_executing"`
	Saturated     float64      `json:"saturated"` // share of the run's time in which ready work was held up
	Limit         LimitReport  `json:"limit"`
}

// StateSeconds are distributions of times, in seconds.
type StateSeconds struct {
	Wait    Distribution `json:"wait"`
	Execute Distribution `json:"execute"`
}

// Distribution describes times, in seconds.
type Distribution struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
	Sum float64 `json:"sum"`
}

func (h *histogram) distribution() Distribution {
	return Distribution{
		h.quantile(0.5).Seconds(), h.quantile(0.95).Seconds(), h.quantile(0.99).Seconds(), h.max.Seconds(), h.sum.Seconds(),
	}
}

// LimitReport is the current value of a state's limit.
type LimitReport struct {
	Rate float64 `json:"rate"` // steps a second; 0 = any
	// Concurrency is the number of steps that may run at once; 0 = any.
	Concurrency int `json:"concurrency,omitempty"`
	Pauses      int `json:"pauses"`
	Cut         int `json:"cut,omitempty"` // slow-downs that were longer than allowed
}

// Bottleneck is the state that was held up for the largest share of the time.
type Bottleneck struct {
	State string  `json:"state"`
	Cause string  `json:"cause"` // workers, concurrency, rate or slow-down
	Share float64 `json:"share"`
}

// Effects counts results of effects.
type Effects struct {
	Made      int `json:"made"`
	Reused    int `json:"reused"`
	Uncertain int `json:"uncertain"`
}

// Digests are "sha256:" and 64 hex digits, or empty.
type Digests struct {
	Flow   string `json:"flow"`
	Input  string `json:"input"`
	Result string `json:"result,omitempty"`
}

// report returns the progress of the run.
func (x *execution) report() Report {
	now := time.Now()
	r := Report{
		Kind: "flow", Run: x.Name, State: Running, Workers: x.config.Workers, Instances: x.folds, Seconds: now.Sub(x.started).Seconds(),
		Digests: Digests{Flow: hexDigest(x.Flow.digest()), Input: hexDigest(x.Input.Digest())},
	}
	t := x.walk.sum()
	if x.live != nil && !x.walk.final {
		t.add(x.live.machine, 0)
		r.Items.Held, t.uncertain = x.live.holding, x.live.uncertain
	}
	r.Items.Total, r.Items.Roots, r.Items.Ended, r.Items.Failed, r.Items.Steps = t.total, x.Input.Len(), t.ended, t.failed, t.steps
	r.Items.Live = r.Items.Total - r.Items.Ended - r.Items.Failed - r.Items.Held
	if x.live != nil && x.walk.final {
		for i := range t.tallies { // steps that this process executed are not reused
			t.tallies[i].reused = x.before.tallies[i].reused + x.live.machine.tallies[i].reused
		}
	}
	r.Interventions, r.Effects.Uncertain = x.replay.redrives.count(), t.uncertain
	for i := range x.plan.states {
		r.States = append(r.States, x.stateReport(&x.plan.states[i], &t.tallies[i]))
		if s := &x.plan.states[i]; !s.pure && s.Exec != nil {
			r.Effects.Reused += t.tallies[i].reused
		}
	}
	if x.live != nil {
		x.live.measure(&r, now)
	}
	return r
}

func (x *execution) stateReport(s *state, t *tally) StateReport {
	return StateReport{
		Name: s.Name, Kind: s.kind(), Entered: t.entered, Left: t.left, Failed: t.failed, Reused: t.reused, Fuel: t.fuel,
		Waiting: t.entered - t.left - t.failed,
	}
}

func (s *State) kind() string {
	switch {
	case s.Exec != nil:
		return s.Exec.Kind()
	case s.isEnd():
		return "end"
	}
	return "wait"
}

// sum returns a copy of the totals.
func (t *totals) sum() totals {
	sum := *t
	sum.tallies = append([]tally(nil), t.tallies...)
	return sum
}

// measure adds the measurements of the lanes.
func (l *live) measure(r *Report, now time.Time) {
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	for i, ln := range l.lanes {
		if ln == nil {
			continue
		}
		s, t := &r.States[i], &l.times[i]
		ln.blocked(now, ln.why)
		s.Executing, s.Retrying = ln.running, len(ln.retries)
		if ln.why == rated || ln.why == slowed || ln.why == concurrency {
			s.Limited = ln.nReady
		}
		s.Waiting -= s.Executing + s.Retrying + s.Limited
		s.Attempts, s.Retries, s.Slowed = ln.counts.attempts, ln.counts.retries, ln.counts.slowed
		s.Seconds = StateSeconds{t.wait.distribution(), t.execute.distribution()}
		if span := ln.last.Sub(ln.first); span > 0 {
			s.MeanExecuting = float64(ln.busy) / float64(span)
		}
		s.Limit = LimitReport{Pauses: ln.counts.pauses, Cut: ln.counts.cut}
		if ln.limit != nil {
			s.Limit.Rate, s.Limit.Concurrency = ln.limit.rate(), ln.limit.concurrency()
		}
		if s.Kind != "module" && !ln.state.pure {
			r.Effects.Made += t.execute.count
		}
		l.judge(r, s, ln, now)
	}
	addStats(&r.Instances, l.created)
}

// judge computes how long a lane was held up, and whether it is the bottleneck.
func (l *live) judge(r *Report, s *StateReport, ln *lane, now time.Time) {
	var sum time.Duration
	most := none
	for c := range ln.held {
		sum += ln.held[c]
		if ln.held[c] > ln.held[most] {
			most = cause(c)
		}
	}
	if all := now.Sub(l.started); all > 0 {
		s.Saturated = float64(sum) / float64(all)
	}
	if most != none && (r.Bottleneck == nil || s.Saturated > r.Bottleneck.Share) {
		r.Bottleneck = &Bottleneck{s.Name, most.String(), s.Saturated}
	}
}

// observe reports the progress of the run.
func (x *execution) observe() {
	if x.Observe != nil {
		r := x.report()
		x.Observe(&r)
	}
}

// observing is the interval between two reports to an observer.
const observing = 100 * time.Millisecond

// tell reports to the observer and the record, if it is time.
func (l *live) tell() {
	if l.Observe == nil && l.record == nil {
		return
	}
	now := time.Now()
	if now.Sub(l.seen) < observing {
		return
	}
	l.seen = now
	r := l.report()
	if l.Observe != nil {
		l.Observe(&r)
	}
	l.record.note(&r)
}

// result returns the result of the run.
func (x *execution) result(err error) *Result {
	if x.live == nil {
		x.walk.final = true
	}
	res := &Result{Report: x.report(), Output: x.output}
	r := &res.Report
	switch {
	case err != nil:
		r.State, r.Error = Failed, err.Error()
		if isInterrupted(err) {
			r.State = Interrupted
		}
	case r.Items.Held > 0:
		r.State = Held
	case r.Items.Failed > 0:
		r.State = Failed
	default:
		r.State = Succeeded
		res.Receipt = x.receipt()
		r.Digests.Result = res.Receipt.Result.String()
	}
	return res
}
