package ui

import (
	"html/template"
	"net/http"
	"net/url"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
)

// itemList is a page of the items of a run.
type itemList struct {
	Run          string
	State, Class string // that are searched
	Items        []itemRow
	From         int  // number of items before them that match
	More         bool // there are further ones
	Next         int  // From of the page with them
}

// itemRow is an item on a page.
type itemRow struct {
	Name, State, Class, Message string
	Query                       template.URL // of its page; "" if the id is too long
	Failed                      bool
}

func (s *server) rowOf(i *flow.ItemState) itemRow {
	id := itemText(i.ID)
	row := itemRow{Name: s.Printable(cut(id, maxQuery)), State: i.State, Class: string(i.Class), Message: s.Printable(cut(i.Message, maxMessage)), Failed: i.Failed}
	if len(id) <= maxLinked {
		row.Query = template.URL(url.Values{"id": {id}}.Encode()) // it is encoded
	}
	return row
}

// failedItems is the state in a search for all items that failed.
const failedItems = "failed"

func (s *server) items(r *request) (*view, error) {
	if r.store == nil {
		return nil, ErrNotFound
	}
	q := r.URL.Query()
	from, _ := strconv.Atoi(q.Get("from")) // otherwise the first
	l := &itemList{Run: r.PathValue("name"), State: cut(q.Get("state"), maxQuery), Class: cut(q.Get("class"), maxQuery), From: max(from, 0)}
	at := -1
	err := s.Items(r.Context(), r.store, l.Run, func(i *flow.ItemState) bool {
		if !l.wants(i) {
			return true
		}
		if at++; at < l.From {
			return true
		}
		if l.More = len(l.Items) == pageSize; l.More {
			return false
		}
		l.Next = at + 1
		l.Items = append(l.Items, s.rowOf(i))
		return true
	})
	if err != nil {
		return nil, err
	}
	return &view{Title: "Items of " + cut(l.Run, 64), Data: l}, nil
}

// maxMessage bounds a message, in bytes.
const maxMessage = 1 << 10

// wants reports whether the search selects an item.
func (l *itemList) wants(i *flow.ItemState) bool {
	return (l.State == "" || l.State == i.State || l.State == failedItems && i.Failed) && (l.Class == "" || l.Class == string(i.Class))
}

// itemView is the page of one item.
type itemView struct {
	itemRow
	Run   string
	Steps []flow.StepState
	shown
}

func (s *server) item(r *request) (*view, error) {
	if r.store == nil {
		return nil, ErrNotFound
	}
	i, steps, err := s.Item(r.Context(), r.store, r.PathValue("name"), r.URL.Query().Get("id"))
	if err != nil {
		return nil, err
	}
	v := &itemView{itemRow: s.rowOf(i), Run: r.PathValue("name"), Steps: steps}
	switch {
	case len(i.Data) > maxShown:
		v.Note = "The data is too large to show."
	case len(i.Data) > 0:
		v.show(i.Data)
	}
	return &view{Title: "Item " + cut(v.Name, 60), Data: v}, nil
}

// itemText returns the id of an item as it is written in arguments.
func itemText(id abi.ID) string {
	if text, isText := id.Text(); isText {
		return text
	}
	return id.String()
}

// flowPages are the handlers of the pages about flows.
func (s *server) flowPages(mux *http.ServeMux) {
	mux.HandleFunc("GET /flows", s.page(s.flows, "flows"))
	mux.HandleFunc("GET /flow/{name}", s.page(s.flow, "flow"))
	mux.HandleFunc("GET /flow/{name}/items", s.page(s.items, "items"))
	mux.HandleFunc("GET /flow/{name}/item", s.page(s.item, "item"))
}
