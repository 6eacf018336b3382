package telemetry

import (
	"fmt"
	"io"
	"strings"

	"github.com/VictoriaMetrics/metrics"
)

// writer writes metrics. Lines of one name must follow each other.
type writer struct {
	w    io.Writer
	last string // name
}

// put writes a line. labels are pairs of a name and a value.
func (w *writer) put(name string, value uint64, labels ...string) {
	if name != w.last {
		w.last = name
		kind := "gauge"
		if strings.HasSuffix(name, "_total") {
			kind = "counter"
		}
		metrics.WriteMetadataIfNeeded(w.w, name, kind)
	}
	fmt.Fprintf(w.w, "%s%s %d\n", name, labelled(labels), value)
}

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

var escape = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)
