package report

import (
	_ "embed"
	"html/template"
	"io"
	"sync"
)

//go:embed page.html
var pageText string

var pageTemplate = sync.OnceValue(func() *template.Template { return template.Must(template.New("page").Parse(pageText)) })

// WritePage writes a page of HTML that needs nothing else.
func (d *Document) WritePage(w io.Writer) error {
	return pageTemplate().Execute(w, struct {
		Title    string
		State    string
		Sections []section
	}{cut(d.title(), maxID), d.State, d.sections()})
}

func (d *Document) title() string {
	switch {
	case d.Name != "":
		return d.Name
	case d.Job != "":
		return d.Job[:min(len(d.Job), 12)]
	}
	return "job"
}
