package ui

import (
	"html/template"
	"time"

	"github.com/wasm-jobs/wasm-jobs/flow"
)

func (s *server) flows(r *request) (*view, error) {
	v := &view{Title: "Flows", Regions: []string{"flow-rows"}, Data: []Flow{}}
	if r.store == nil {
		return v, nil
	}
	all, err := s.Flows(r.Context(), r.store)
	if err != nil {
		return nil, err
	}
	v.Data = all
	return v, nil
}

// flowView is the page of the run of a flow.
type flowView struct {
	*Flow
	Why   string
	Graph template.HTML
}

func (s *server) flow(r *request) (*view, error) {
	if r.store == nil {
		return nil, ErrNotFound
	}
	f, err := s.Flow(r.Context(), r.store, r.PathValue("name"))
	if err != nil {
		return nil, err
	}
	v := &flowView{Flow: f}
	if f.Report != nil {
		v.Why = bottleneck(f.Report)
		v.Graph = graph(f)
	}
	return &view{Title: "Flow " + cut(f.Name, 64), Regions: []string{"flow-state"}, Data: v}, nil
}

// bottleneck returns the bottleneck of a flow as a sentence.
func bottleneck(r *flow.Report) string {
	if r.Bottleneck == nil {
		return ""
	}
	return "The state " + r.Bottleneck.State + " was held up for " + percent(r.Bottleneck.Share) + " of the time, by its limit of " + r.Bottleneck.Cause + "."
}

func (s *server) workers(r *request) (*view, error) {
	if s.Workers == nil || r.store == nil {
		return nil, ErrNotFound
	}
	all, err := s.Workers(r.Context(), r.store)
	if err != nil {
		return nil, err
	}
	return &view{Title: "Workers", Regions: []string{"worker-rows"}, Data: all}, nil
}

// clock returns a time of the day, with its date.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format("2006-01-02 15:04:05")
}
