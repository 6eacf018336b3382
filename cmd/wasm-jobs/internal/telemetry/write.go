package telemetry

import (
	"fmt"
	"io"
	"strings"
)

// Writer writes metrics in the text format of Prometheus. Those of one name must follow
// each other, whatever their labels. Labels are pairs of a name and a value.
type Writer struct {
	w    io.Writer
	last string // name
}

// NewWriter returns a Writer to w, whose errors are lost.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Put writes a counter, if its name ends in _total, or a gauge.
func (w *Writer) Put(name string, value uint64, labels ...string) {
	kind := "gauge"
	if strings.HasSuffix(name, "_total") {
		kind = "counter"
	}
	w.begin(name, kind)
	fmt.Fprintf(w.w, "%s%s %d\n", name, labelled(labels), value)
}

// PutTimes writes a histogram, in seconds.
func (w *Writer) PutTimes(name string, h *Histogram, labels ...string) {
	w.begin(name, "histogram")
	below := append(labels[:len(labels):len(labels)], "le", "")
	put := func(bound string, n uint64) {
		below[len(below)-1] = bound
		fmt.Fprintf(w.w, "%s_bucket%s %d\n", name, labelled(below), n)
	}
	var n uint64
	for i, bound := range bounds {
		n += h.counts[i]
		put(fmt.Sprint(bound.Seconds()), n)
	}
	n += h.counts[len(bounds)]
	put("+Inf", n)
	all := labelled(labels)
	fmt.Fprintf(w.w, "%s_sum%s %v\n%s_count%s %d\n", name, all, h.sum.Seconds(), name, all, n)
}

// begin writes what comes before the lines of a name.
func (w *Writer) begin(name, kind string) {
	if name != w.last {
		w.last = name
		fmt.Fprintf(w.w, "# HELP %s\n# TYPE %s %s\n", name, name, kind)
	}
}

// escape is made once: to make it for each line took most of the time of a scrape.
var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

// labelled returns labels in braces. Values are quoted as the format asks.
func labelled(labels []string) string {
	if len(labels) == 0 {
		return ""
	}
	var pairs []string
	for i := 0; i < len(labels); i += 2 {
		pairs = append(pairs, labels[i]+`="`+escape.Replace(labels[i+1])+`"`)
	}
	return "{" + strings.Join(pairs, ",") + "}"
}
