package report

import (
	"bytes"
	"encoding/json"
	"fmt"
	"html/template"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/profile"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// section is a part of a report, in any form.
type section struct {
	ID, Title string
	Note      string
	Table     *table        // nil = none
	Charts    []chart       // of the page
	Lines     []string      // of the text, instead of charts
	Failures  []failureView // nil = none
	Code      string        // a command
}

// table has a head, unless it is empty, and rows of as many cells.
type table struct {
	Head []string
	Rows [][]cell
}

// cell is a text. A number has the place of its value in the JSON.
type cell struct {
	Text  string
	Value string // as in the JSON; "" if the text is not a number of it
	At    string // keys and indexes, joined by dots
	Code  bool
}

type failureView struct {
	Group
	Class, Number cell
	Alone         string
}

// chart is a drawing with a description for those who do not see it.
type chart struct {
	Title string
	SVG   template.HTML
}

func text(s string) cell { return cell{Text: s} }

func code(s string) cell { return cell{Text: s, Code: true} }

// number returns a cell of a number and its place in the JSON.
func number(shown string, value any, at string) cell {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // only numbers
	}
	return cell{Text: shown, Value: string(b), At: at}
}

func integer[N int | int64 | uint64](n N, at string) cell { return number(count(n), n, at) }

// sections returns the parts of a report, in order.
func (d *Document) sections() []section {
	all := []section{d.summary()}
	if p := d.Profile; p != nil && p.Duration.Count > 0 {
		all = append(all, d.timeSpent(p), overTime(p), distributions(p))
	}
	all = append(all, d.phases())
	if len(d.List) > 0 || d.Other > 0 {
		all = append(all, d.failures())
	}
	if d.Profile != nil && len(d.Profile.Slowest) > 0 {
		all = append(all, d.slowest(d.Profile))
	}
	return append(all, d.settings(), d.repeat())
}

// Row is a line of a comparison.
type Row struct{ Name, Value string }

// Rows returns the lines for a comparison of two reports.
func (d *Document) Rows() (rows []Row) {
	for _, s := range d.sections() {
		if s.Table == nil || s.ID == "slowest" {
			continue
		}
		for _, cells := range s.Table.Rows {
			switch head := s.Table.Head; {
			case len(head) == 0:
				rows = append(rows, Row{cells[0].Text, cells[1].Text})
			case s.ID != "timeline":
				for i := 1; i < len(cells) && head[i] != ""; i++ {
					rows = append(rows, Row{cells[0].Text + ", " + head[i], cells[i].Text})
				}
			}
		}
	}
	return rows
}

func (d *Document) summary() section {
	t := &table{}
	add := func(name string, c cell) { t.Rows = append(t.Rows, []cell{text(name), c}) }
	state := d.State
	if d.Error != "" {
		state += ": " + cut(d.Error, maxMessage)
	}
	add("state", text(state))
	if d.Job != "" {
		add("job", code(d.Job))
	}
	if d.Module.Path != "" {
		add("module", text(cut(d.Module.Path, maxMessage)))
	}
	if !d.Started.IsZero() {
		add("started", text(d.Started.Local().Format(time.DateTime)+on(d.Host)))
	}
	if f := d.Phases; !d.Ended.IsZero() {
		add("took", text(seconds(f.Scan+f.Compile+f.Prepare+f.Execute+f.Fold)))
	}
	c := d.Chunks
	add("chunks", integer(c.Total, "chunks.total"))
	add("succeeded", integer(c.Succeeded, "chunks.succeeded"))
	add("reused from the store", integer(c.Reused, "chunks.reused"))
	add("failed", integer(c.Failed, "chunks.failed"))
	add("attempts", integer(d.Attempts, "attempts"))
	add("retries", integer(d.Retries, "retries"))
	add("fuel", integer(d.Fuel, "fuel"))
	add("workers", integer(d.Workers, "workers"))
	add("instances", integer(d.Instances.Created, "instances.created"))
	add("largest memory", number(size(d.Instances.Memory), d.Instances.Memory, "instances.memory"))
	return section{ID: "summary", Title: "Summary", Table: t, Note: d.Why}
}

func on(host string) string {
	if host == "" {
		return ""
	}
	return " on " + cut(host, maxID)
}

var partWords = map[string]string{
	"guest": "in the module", "reset": "return to fresh state", "host": "reading, hashing, handing over",
	"store": "waiting for the store", "fold": "aggregate and merge", "waiting": "nothing to do",
}

func (d *Document) timeSpent(p *profile.Profile) section {
	t := &table{Head: []string{"part", "time", "share", ""}}
	sum := 0.0
	for _, part := range p.Seconds.Parts() {
		sum += part.Seconds
	}
	var bars []bar
	for _, part := range p.Seconds.Parts() {
		t.Rows = append(t.Rows, []cell{
			text(part.Name), number(seconds(part.Seconds), part.Seconds, "profile.seconds."+part.Name),
			text(percent(part.Seconds, sum)), text(partWords[part.Name]),
		})
		bars = append(bars, bar{part.Name, part.Seconds, seconds(part.Seconds)})
	}
	return section{
		ID: "time", Title: "Where the time went", Table: t,
		Note:   fmt.Sprintf("The time of %s while chunks were executed.", plural(p.Workers, "worker")),
		Charts: []chart{stacked("Share of the workers' time", bars)},
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return count(n) + " " + what + "s"
}

func overTime(p *profile.Profile) section {
	line := p.Timeline
	if line == nil {
		return section{ID: "timeline", Title: "Over time", Note: "Not measured."}
	}
	rates, most := make([]float64, len(line.Succeeded)), 0
	failed := make([]float64, len(rates))
	for i := range rates {
		rates[i], failed[i] = float64(line.Succeeded[i])/line.Interval, float64(line.Failed[i]+line.Retried[i])/line.Interval
		if line.Succeeded[i] > line.Succeeded[most] {
			most = i
		}
	}
	t := &table{Head: []string{"interval", "most chunks in one", "most busy workers"}}
	busiest := 0
	for i := range line.Busy {
		if line.Busy[i] > line.Busy[busiest] {
			busiest = i
		}
	}
	t.Rows = [][]cell{{
		number(seconds(line.Interval), line.Interval, "profile.timeline.interval"),
		integer(line.Succeeded[most], fmt.Sprintf("profile.timeline.succeeded.%d", most)),
		number(fmt.Sprintf("%.2f", line.Busy[busiest]), line.Busy[busiest], fmt.Sprintf("profile.timeline.busy.%d", busiest)),
	}}
	end := seconds(line.Interval * float64(len(rates)))
	return section{
		ID: "timeline", Title: "Over time", Table: t,
		Charts: []chart{
			columns("Chunks a second", end, series{"succeeded", rates}, series{"failed attempts", failed}),
			columns(fmt.Sprintf("Busy workers, of %d", p.Workers), end, series{"busy", line.Busy}),
		},
		Lines: []string{"chunks a second  " + sparkline(rates), "busy workers     " + sparkline(line.Busy)},
	}
}

func distributions(p *profile.Profile) section {
	t := &table{Head: []string{"", "count", "min", "p50", "p90", "p95", "p99", "max", "mean"}}
	s := section{ID: "distributions", Title: "Distributions", Table: t, Note: "Quantiles are within 1 %. Durations are of attempts, the others of calls that gave outputs."}
	for _, x := range []struct {
		name, key string
		of        profile.Distribution
		word      func(uint64) string
	}{
		{"duration", "duration_ns", p.Duration, nanos}, {"fuel", "fuel", p.Fuel, count[uint64]},
		{"output size", "output_size", p.Size, size}, {"memory", "memory", p.Memory, size},
	} {
		if x.of.Count == 0 {
			continue
		}
		at := "profile." + x.key + "."
		row := []cell{text(x.name), integer(x.of.Count, at+"count")}
		for _, q := range []struct {
			key   string
			value uint64
		}{{"min", x.of.Min}, {"p50", x.of.P50}, {"p90", x.of.P90}, {"p95", x.of.P95}, {"p99", x.of.P99}, {"max", x.of.Max}} {
			row = append(row, number(x.word(q.value), q.value, at+q.key))
		}
		t.Rows = append(t.Rows, append(row, number(x.word(uint64(x.of.Mean)), x.of.Mean, at+"mean")))
		s.Charts = append(s.Charts, histogram("Histogram of "+x.name, x.of, x.word))
		s.Lines = append(s.Lines, fmt.Sprintf("%-12s %s %s %s", x.name, x.word(x.of.Min), sparkline(heights(x.of.Bins)), x.word(x.of.Max)))
	}
	return s
}

func heights(bins []profile.Bin) (out []float64) {
	for _, b := range bins {
		out = append(out, float64(b.Count))
	}
	return out
}

func (d *Document) phases() section {
	t := &table{Head: []string{"phase", "time"}}
	var bars []bar
	for _, x := range []struct {
		name    string
		seconds float64
	}{
		{"scan", d.Phases.Scan}, {"compile", d.Phases.Compile}, {"prepare", d.Phases.Prepare},
		{"execute", d.Phases.Execute}, {"fold", d.Phases.Fold},
	} {
		t.Rows = append(t.Rows, []cell{text(x.name), number(seconds(x.seconds), x.seconds, "phases."+x.name)})
		bars = append(bars, bar{x.name, x.seconds, seconds(x.seconds)})
	}
	return section{ID: "phases", Title: "Phases", Table: t, Charts: []chart{stacked("Time of the phases", bars)}}
}

func (d *Document) failures() section {
	s := section{ID: "failures", Title: "Failures"}
	for i, g := range d.List {
		at := fmt.Sprintf("failure_groups.%d.", i)
		v := failureView{Group: g, Class: text(string(g.Class)), Number: integer(g.Count, at+"count")}
		v.Alone = d.alone(g.Some[0])
		s.Failures = append(s.Failures, v)
	}
	if d.Other > 0 {
		s.Note = fmt.Sprintf("%s more failed in other ways: the JSON report and wasm-jobs status have them.", plural(d.Other, "chunk"))
	}
	return s
}

// alone returns the command that runs one chunk, or "" if there is none that a person
// would type.
func (d *Document) alone(id abi.ID) string {
	if d.Alone == nil || len(id.String()) > maxID {
		return ""
	}
	if command := d.Alone(id); len(command) <= maxMessage {
		return command
	}
	return ""
}

func (d *Document) slowest(p *profile.Profile) section {
	t := &table{Head: []string{"chunk", "duration", "fuel", "output", "worker", "result"}}
	for i, one := range p.Slowest {
		at := fmt.Sprintf("profile.slowest.%d.", i)
		result := "output"
		if one.Class != "" {
			result = string(one.Class)
		}
		fuel := text("")
		if one.Fuel > 0 {
			fuel = integer(one.Fuel, at+"fuel")
		}
		if one.FuelAtLeast {
			fuel = number("at least "+count(one.Fuel), one.Fuel, at+"fuel")
		}
		output := text("")
		if one.Size > 0 {
			output = number(size(uint64(one.Size)), one.Size, at+"size")
		}
		t.Rows = append(t.Rows, []cell{
			code(cut(one.ID.String(), maxID)), number(nanos(uint64(one.Duration)), one.Duration, at+"duration_ns"),
			fuel, output, integer(one.Worker, at+"worker"), text(result),
		})
	}
	return section{
		ID: "slowest", Title: "Slowest chunks", Table: t, Code: d.alone(p.Slowest[0].ID),
		Note: "To run one of them again, and nothing else, name it with --ids, as for the first one:",
	}
}

func (d *Document) settings() section {
	t := &table{}
	if d.Spec != nil {
		for _, row := range settingRows(d.Spec) {
			t.Rows = append(t.Rows, []cell{text(row[0]), text(cut(row[1], maxMessage))})
		}
	}
	for _, row := range [][2]string{
		{"module", d.Digests.Module}, {"input", d.Digests.Input}, {"outputs", d.Digests.Outputs}, {"aggregate", d.Digests.Aggregate},
	} {
		if row[1] != "" {
			t.Rows = append(t.Rows, []cell{text("digest of " + row[0]), code(row[1])})
		}
	}
	t.Rows = append(t.Rows, []cell{text("isolation"), text(string(d.Isolation.Mode))})
	return section{ID: "settings", Title: "Settings and digests", Table: t}
}

// settingRows returns the settings, in the words of their record.
func settingRows(s *spec.Settings) (rows [][2]string) {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // only texts and numbers
	}
	d := json.NewDecoder(bytes.NewReader(b))
	_, _ = d.Token() // the brace
	for d.More() {
		key, err := d.Token()
		var value json.RawMessage
		if err != nil || d.Decode(&value) != nil {
			break
		}
		rows = append(rows, [2]string{fmt.Sprint(key), string(value)})
	}
	return rows
}

func (d *Document) repeat() section {
	s := section{ID: "repeat", Title: "How to repeat it", Code: cut(d.Command, 4*maxMessage)}
	if d.Command == "" {
		s.Note = "The files of the job are not recorded."
	}
	return s
}
