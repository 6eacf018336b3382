package report

import (
	"fmt"
	"html/template"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/host/profile"
)

// The size of a chart in its own units; a page scales it.
const (
	chartWidth  = 440
	chartHeight = 130
	margin      = 22 // below, for labels
	top         = 16 // above, for the largest value
)

// bar is a named part of a whole.
type bar struct {
	name  string
	value float64
	text  string
}

// series are values over time.
type series struct {
	name   string
	values []float64
}

// drawing is a chart in the making.
type drawing struct{ strings.Builder }

func newDrawing(title string, height int) *drawing {
	d := &drawing{}
	fmt.Fprintf(d, `<svg viewBox="0 0 %d %d" role="img" aria-label="%s"><title>%[3]s</title>`, chartWidth, height, template.HTMLEscapeString(title))
	return d
}

func (d *drawing) rect(class string, x, y, width, height float64, title string) {
	if height <= 0 || width <= 0 {
		return
	}
	fmt.Fprintf(d, `<rect class="%s" x="%.1f" y="%.1f" width="%.1f" height="%.1f">`, class, x, y, width, height)
	if title != "" {
		fmt.Fprintf(d, `<title>%s</title>`, template.HTMLEscapeString(title))
	}
	d.WriteString(`</rect>`)
}

func (d *drawing) label(x, y float64, anchor, s string) {
	fmt.Fprintf(d, `<text x="%.1f" y="%.1f" text-anchor="%s">%s</text>`, x, y, anchor, template.HTMLEscapeString(s))
}

func (d *drawing) end(title string) chart {
	d.WriteString(`</svg>`)
	return chart{title, template.HTML(d.String())}
}

// columns draws values over time, the series on top of each other.
func columns(title, end string, all ...series) chart {
	d := newDrawing(title, chartHeight)
	n := len(all[0].values)
	sums := make([]float64, n)
	for _, s := range all {
		for i, v := range s.values {
			sums[i] += v
		}
	}
	most := slices.Max(append(sums, 0))
	d.axis(axisText(most), "0 s", end, chartWidth)
	if most > 0 {
		width := float64(chartWidth) / float64(n)
		base := make([]float64, n)
		for k, s := range all {
			for i, v := range s.values {
				height := v / most * (chartHeight - margin - top)
				d.rect(fmt.Sprintf("s%d", k), float64(i)*width, chartHeight-margin-base[i]-height, max(width-0.5, 0.5), height, "")
				base[i] += height
			}
		}
	}
	return d.end(title + legend(all))
}

func legend(all []series) string {
	if len(all) < 2 {
		return ""
	}
	var names []string
	for _, s := range all {
		names = append(names, s.name)
	}
	return ": " + strings.Join(names, ", ")
}

// axis draws the lines and the labels of a chart.
func (d *drawing) axis(most, left, right string, width float64) {
	fmt.Fprintf(d, `<path class="axis" d="M0 %d H%d M0 %d H%[2]d"/>`, chartHeight-margin, chartWidth, top)
	d.label(0, top-4, "start", most)
	d.label(0, chartHeight-6, "start", left)
	if right != left {
		d.label(width, chartHeight-6, "end", right)
	}
}

func axisText(v float64) string {
	if v >= 100 {
		return count(uint64(v + 0.5))
	}
	return fmt.Sprintf("%.3g", v)
}

// histogram draws the bins of a distribution.
func histogram(title string, of profile.Distribution, word func(uint64) string) chart {
	d := newDrawing(title, chartHeight)
	most := uint64(0)
	for _, b := range of.Bins {
		most = max(most, b.Count)
	}
	width := float64(chartWidth) / float64(max(len(of.Bins), 5))
	d.axis(count(most), word(of.Min), word(of.Max), width*float64(len(of.Bins)))
	for i, b := range of.Bins {
		height := float64(b.Count) / float64(most) * (chartHeight - margin - top)
		d.rect("s0", float64(i)*width, chartHeight-margin-max(height, 1), max(width-1, 1), max(height, 1), fmt.Sprintf("from %s: %s", word(b.From), count(b.Count)))
	}
	return d.end(title)
}

// stacked draws parts of a whole as one bar.
func stacked(title string, parts []bar) chart {
	const height = 54
	d := newDrawing(title, height)
	sum := 0.0
	for _, p := range parts {
		sum += p.value
	}
	x, labelled := 0.0, 0.0
	for i, p := range parts {
		if sum == 0 {
			break
		}
		width := p.value / sum * chartWidth
		d.rect(fmt.Sprintf("p%d", i), x, 0, width, 28, p.name+" "+p.text)
		if width > 50 && x >= labelled {
			d.label(x+2, 44, "start", p.name+" "+percent(p.value, sum))
			labelled = x + 105
		}
		x += width
	}
	return d.end(title)
}

// sparkline draws values as one line of text, at most 60 characters.
func sparkline(values []float64) string {
	const marks, most = "▁▂▃▄▅▆▇█", 60
	step := (len(values) + most - 1) / most
	var joined []float64
	for i := 0; i < len(values); i += step {
		part := values[i:min(i+step, len(values))]
		joined = append(joined, slices.Max(part))
	}
	high := slices.Max(append(joined, 0))
	levels := []rune(marks)
	var b strings.Builder
	for _, v := range joined {
		if high == 0 || v == 0 {
			b.WriteByte(' ')
			continue
		}
		b.WriteRune(levels[min(int(v/high*float64(len(levels))), len(levels)-1)])
	}
	return b.String()
}
