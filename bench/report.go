package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	goruntime "runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// report has all results of a run of the benchmark. It is written as a JSON file.
type report struct {
	Version  int               `json:"version"`
	Machine  machine           `json:"machine"`
	Versions map[string]string `json:"versions"`
	Rounds   int               `json:"rounds"`
	Base     string            `json:"base"` // the side that the others are compared with
	Results  []result          `json:"results"`
	Absent   []absent          `json:"absent"`
}

const reportVersion = 1

type machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	Go     string `json:"go"`
	Load   string `json:"load"` // average over a minute, before the start
}

func newReport(rounds int) *report {
	return &report{Version: reportVersion, Machine: thisMachine(), Versions: versions(), Rounds: rounds, Base: base}
}

func thisMachine() machine {
	m := machine{CPU: "unknown", Cores: goruntime.NumCPU(), Kernel: goruntime.GOOS, Arch: goruntime.GOARCH, Go: goruntime.Version(), Load: "unknown"}
	if name, err := exec.Command("uname", "-sr").Output(); err == nil {
		m.Kernel = strings.TrimSpace(string(name))
	}
	if load, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(load), " ")
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		if _, after, found := strings.Cut(string(info), "model name"); found {
			line, _, _ := strings.Cut(after, "\n")
			m.CPU = strings.TrimSpace(strings.TrimLeft(line, "\t :"))
		}
	} else if name, err := exec.Command("sysctl", "-n", "machdep.cpu.brand_string").Output(); err == nil {
		m.CPU = strings.TrimSpace(string(name))
	}
	return m
}

// versions returns the versions of everything that is compared; those of Go modules come
// from this program's build information.
func versions() map[string]string {
	v := map[string]string{"wasm-jobs": fmt.Sprintf("this tree, ABI %d, metering %v", abi.Version, runtime.MeteringVersion)}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, peer := range []string{"github.com/tetratelabs/wazero", "github.com/extism/go-sdk", "github.com/bytecodealliance/wasmtime-go/"} {
				if strings.HasPrefix(d.Path, peer) {
					v[d.Path] = d.Version
				}
			}
		}
	}
	for _, l := range []launcher{xargs, parallel} {
		if version, err := l.version(); err == nil {
			v[l.name] = version
		}
	}
	return v
}

func (r *report) writeJSON(path string) error { return writeJSON(path, r) }

func writeJSON(path string, r any) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

func readJSON(path string, r any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, r); err != nil {
		return fmt.Errorf("%s: invalid report: %w; want a file that -json wrote", path, err)
	}
	return nil
}

func readReport(path string) (*report, error) {
	r := &report{}
	if err := readJSON(path, r); err != nil {
		return nil, err
	}
	if r.Version != reportVersion || r.Base != base {
		return nil, fmt.Errorf("%s: unsupported report of version %d with ratios to %q: want version %d and %q; write it again with -json", path, r.Version, r.Base, reportVersion, base)
	}
	return r, nil
}

// duration formats nanoseconds with three digits and a unit.
func duration(ns float64) string {
	for _, unit := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= unit.ns {
			return digits(ns/unit.ns) + " " + unit.name
		}
	}
	return digits(ns) + " ns"
}

// digits formats a number with three digits, or with all digits of its integer part.
func digits(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// spread formats the median, with the first and the third quartile in parentheses.
func (q quartiles) spread(show func(float64) string) string {
	return fmt.Sprintf("%s (%s - %s)", show(q[1]), show(q[0]), show(q[2]))
}

// writeTable prints one kernel for a terminal.
func writeTable(to io.Writer, k kernel, results []result, absents []absent) error {
	fmt.Fprintf(to, "\n%s: %s\n", k.name, k.about)
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "  side\ttime of a chunk\tratio to %s\tchunks a round\n", base)
	for _, r := range results {
		fmt.Fprintf(w, "  %s\t%s\t%s\t%d\n", r.Side, r.NS.spread(duration), r.Ratio.spread(digits), r.Batch)
	}
	for _, a := range absents {
		fmt.Fprintf(w, "  %s\tnot run: %s\n", a.Side, a.Reason)
	}
	return w.Flush()
}

// The lines of a Markdown file that mark the begin and the end of the tables.
const (
	opening = "<!-- peers -->"
	closing = "<!-- /peers -->"
)

// writeMarkdown replaces the text between the marks of a file by the tables. A missing
// file is created.
func (r *report) writeMarkdown(path string, all []kernel, every []side) error {
	old, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		old, err = []byte("# Results\n\n"+opening+"\n"+closing+"\n"), nil
	}
	if err != nil {
		return err
	}
	merged, err := replaceSection(string(old), r.markdown(all, every))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, []byte(merged), 0o644)
}

func replaceSection(file, section string) (string, error) {
	before, rest, found := strings.Cut(file, opening+"\n")
	_, after, closed := strings.Cut(rest, closing)
	if !found || !closed {
		return "", fmt.Errorf("missing lines %s and %s, which mark the place of the tables: add them", opening, closing)
	}
	return before + opening + "\n" + section + closing + after, nil
}

func (r *report) markdown(all []kernel, every []side) string {
	var b strings.Builder
	r.markdownHead(&b)
	r.markdownRatios(&b, all, every)
	r.markdownAbsent(&b)
	b.WriteString("\n### In full\n")
	for _, k := range all {
		results := r.of(k.name)
		if len(results) == 0 {
			continue
		}
		fmt.Fprintf(&b, "\n**%s**: %s. A chunk has %d bytes.\n\n| side | time of a chunk | ratio to `%s` | chunks a round |\n|---|---|---|---|\n", k.name, k.about, len(k.chunk), base)
		for _, r := range results {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %d |\n", r.Side, r.NS.spread(duration), r.Ratio.spread(digits), r.Batch)
		}
	}
	b.WriteString("\n")
	return b.String()
}

func (r *report) of(kernel string) (results []result) {
	for _, one := range r.Results {
		if one.Kernel == kernel {
			results = append(results, one)
		}
	}
	return results
}

func (r *report) markdownHead(b *strings.Builder) {
	m := r.Machine
	fmt.Fprintf(b, `
Written by %[1]smake bench%[1]s. Machine: %[2]s, %[3]d cores, %[4]s, %[5]s, %[6]s. Load
average before the start: %[10]s (it includes all other work on the machine, which
widens the quartiles). %[7]d rounds; in each, every side runs a batch of at least
%[8]v, and each round begins with another side.
Times are medians, with the first and the third quartile in parentheses. A ratio is
between two times of the same round: above 1, a side takes longer than %[1]s%[9]s%[1]s.

| program | version |
|---|---|
`, "`", m.CPU, m.Cores, m.Kernel, m.Arch, m.Go, r.Rounds, least, base, m.Load)
	for _, name := range slices.Sorted(maps.Keys(r.Versions)) {
		fmt.Fprintf(b, "| %s | %s |\n", name, r.Versions[name])
	}
}

func (r *report) markdownRatios(b *strings.Builder, all []kernel, every []side) {
	fmt.Fprintf(b, "\n### Time of a chunk, as a multiple of the time of `%s`\n\n| side |", base)
	rule := "\n|---|"
	var columns []string
	for _, k := range all {
		if len(r.of(k.name)) > 0 {
			columns = append(columns, k.name)
			fmt.Fprintf(b, " %s |", k.name)
			rule += "--:|"
		}
	}
	b.WriteString(rule + "\n")
	cells := map[[2]string]string{}
	for _, one := range r.Results {
		cells[[2]string{one.Kernel, one.Side}] = digits(one.Ratio.median())
	}
	for _, s := range every {
		fmt.Fprintf(b, "| `%s` |", s.name)
		for _, k := range columns {
			cell := cells[[2]string{k, s.name}]
			if cell == "" {
				cell = "-"
			}
			fmt.Fprintf(b, " %s |", cell)
		}
		b.WriteString("\n")
	}
	b.WriteString("\n")
	for _, s := range every {
		fmt.Fprintf(b, "- `%s`: %s.\n", s.name, s.about)
	}
}

// markdownAbsent lists each side once for each reason.
func (r *report) markdownAbsent(b *strings.Builder) {
	if len(r.Absent) == 0 {
		return
	}
	b.WriteString("\nNot run:\n\n")
	seen := map[[2]string]bool{}
	for _, a := range r.Absent {
		if key := [2]string{a.Side, a.Reason}; !seen[key] {
			seen[key] = true
			fmt.Fprintf(b, "- `%s`: %s.\n", a.Side, a.Reason)
		}
	}
}
