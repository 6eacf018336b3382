package ui

import (
	"fmt"
	"html/template"
	"net/url"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// functions are for the templates.
var functions = template.FuncMap{
	"clock":   clock,
	"took":    took,
	"count":   func(n int) string { return humanize.Comma(int64(n)) },
	"share":   share,
	"percent": percent,
	"short":   func(id string) string { return id[:min(len(id), 12)] },
	"cut":     cut,
	"id":      func(id abi.ID) string { return cut(id.String(), 200) },
	"idQuery": func(id abi.ID) template.URL { return template.URL(url.Values{"id": {id.String()}}.Encode()) }, // it is encoded
	"linked":  func(id abi.ID) bool { return len(id.String()) <= maxLinked },
	"rate":    rate,
	"add":     func(a, b int) int { return a + b },
}

// maxLinked is the length of the longest id that fits into a link, in bytes.
const maxLinked = 4 << 10

// rate returns a number of chunks a second.
func rate(r float64) string {
	if r >= 100 {
		return humanize.Comma(int64(r + 0.5))
	}
	return fmt.Sprintf("%.3g", r)
}

func took(d time.Duration) string {
	switch {
	case d < 0:
		return ""
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func share(part, whole int) string {
	if whole == 0 {
		return "100 %"
	}
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(whole))
}

func percent(v float64) string { return fmt.Sprintf("%.1f %%", 100*v) }
