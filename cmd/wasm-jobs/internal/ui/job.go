package ui

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/report"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
)

// jobView is the page of one job.
type jobView struct {
	jobRow
	Error      string
	Host       string
	PID        int
	Meta       map[string]string
	Module     string
	Chunks     string
	Runs       int
	Pending    int
	Active     []journal.Lease // while it runs; To is the last chunk
	ActiveSum  int
	Rate       float64 // chunks a second; negative = not known yet
	Left       time.Duration
	Groups     report.Groups
	Why        string
	Command    string
	Aggregates bool
}

// maxLeases is the number of leases on a page.
const maxLeases = 64

func (s *server) job(r *request) (*view, error) {
	j, err := r.find(r.PathValue("job"))
	if err != nil {
		return nil, err
	}
	row, err := rowOf(r, j)
	if err != nil {
		return nil, err
	}
	d, err := s.Report(r.Context(), j, true)
	if err != nil {
		return nil, err
	}
	last := j.Last()
	p := journal.ProcessOf(last)
	v := &jobView{
		jobRow: row, Error: j.Error(), Host: p.Host, PID: p.PID, Meta: j.Spec.Meta, Runs: len(j.Runs), Rate: -1,
		Module: j.Spec.Module.Path, Chunks: j.Spec.Chunks.Path, Groups: d.Groups, Why: d.Why, Command: d.Command,
	}
	v.Pending, v.ActiveSum, v.Succeeded, v.Failed, err = j.Counts(r.Context())
	if err != nil {
		return nil, err
	}
	if last.Ended.IsZero() {
		v.Active = leasesOf(last.Active)
	} else {
		v.Error = d.Error
	}
	v.measure(r)
	return &view{Title: "Job " + row.ID[:12], Regions: []string{"job-state", "job-failures"}, Data: v}, nil
}

func leasesOf(active []byte) (leases []journal.Lease) {
	_ = json.Unmarshal(active, &leases) // unreadable leases are left out
	if len(leases) > maxLeases {
		leases = leases[:maxLeases]
	}
	for i := range leases {
		leases[i].To--
	}
	return leases
}

// measure computes the rate since the last look of the same stream.
func (v *jobView) measure(r *request) {
	now := &progress{time.Now(), v.Succeeded}
	if b := r.before; b != nil && now.at.After(b.at) {
		v.Rate = float64(now.succeeded-b.succeeded) / now.at.Sub(b.at).Seconds()
		if v.Rate > 0 {
			v.Left = time.Duration(float64(v.Total-v.Succeeded-v.Failed) / v.Rate * float64(time.Second))
		}
	}
	r.before = now
}

// reportPolicy is that of a report, which has its style inside and no script.
const reportPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// report serves the report of a job.
func (s *server) report(w http.ResponseWriter, hr *http.Request) {
	r := &request{Request: hr}
	d, err := s.document(r)
	if err != nil {
		s.fail(w, err)
		return
	}
	h := w.Header()
	switch r.PathValue("file") {
	case "report.html":
		h.Set("Content-Security-Policy", reportPolicy)
		h.Set("Content-Type", "text/html; charset=utf-8")
		_ = d.WritePage(w) // the reader may have gone
	case "report.txt":
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_ = d.WriteText(w, s.Printable)
	case "report.json":
		h.Set("Content-Type", "application/json")
		b, err := d.JSON()
		if err == nil {
			_, _ = w.Write(b)
		}
	default:
		s.fail(w, fmt.Errorf("%w: want report.html, report.txt or report.json", ErrNotFound))
	}
}

func (s *server) document(r *request) (*report.Document, error) {
	var err error
	if r.store, err = s.Open(r.Context()); err != nil {
		return nil, err
	}
	j, err := r.find(r.PathValue("job"))
	if err != nil {
		return nil, err
	}
	return s.Report(r.Context(), j, false)
}

// comparison are two jobs side by side.
type comparison struct {
	A, B  string
	Names []string
	Rows  []comparedRow
}

type comparedRow struct {
	Name, A, B string
	Differ     bool
}

func (s *server) compare(r *request) (*view, error) {
	c := &comparison{A: r.URL.Query().Get("a"), B: r.URL.Query().Get("b")}
	v := &view{Title: "Two jobs", Data: c}
	if c.A == "" || c.B == "" {
		return v, nil
	}
	var rows [2][]report.Row
	for i, name := range []string{c.A, c.B} {
		j, err := r.find(name)
		if err != nil {
			return nil, err
		}
		d, err := s.Report(r.Context(), j, true)
		if err != nil {
			return nil, err
		}
		rows[i] = d.Rows()
	}
	c.Rows = merge(rows[0], rows[1])
	return v, nil
}

// merge puts rows with the same name next to each other, in the order of a, with the
// rows that only b has at the end.
func merge(a, b []report.Row) (out []comparedRow) {
	other := map[string]string{}
	for _, row := range b {
		other[row.Name] = row.Value
	}
	for _, row := range a {
		out = append(out, comparedRow{row.Name, row.Value, other[row.Name], row.Value != other[row.Name]})
		delete(other, row.Name)
	}
	for _, row := range b {
		if _, left := other[row.Name]; left {
			out = append(out, comparedRow{row.Name, "", row.Value, row.Value != ""})
		}
	}
	return out
}
