package ui

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// maxShown is the largest output that a page shows, in bytes.
const maxShown = 64 << 10

// chunkView is the page of one chunk.
type chunkView struct {
	*journal.Chunk
	Job, Name string
	shown            // the output
	Alone     string // the command that runs it
}

// shown is a CBOR item on a page.
type shown struct {
	JSON string
	Diag string
	Note string // why it is not shown
}

func (s *server) chunk(r *request) (*view, error) {
	j, c, err := r.chunk()
	if err != nil {
		return nil, err
	}
	v := &chunkView{Chunk: c, Job: journal.Name(j.Record.ID), Name: j.Spec.Name}
	switch {
	case c.Output == nil && c.Digest != "":
		v.Note = "The output is missing: it was damaged or deleted."
	case c.Output != nil && len(c.Output.Output) > maxShown:
		v.Note = "The output is too large to show: download it."
	case c.Output != nil:
		v.show(c.Output.Output)
	}
	v.Alone = cut(s.Alone(j, c.ID), maxShown)
	return &view{Title: "Chunk " + cut(c.ID.String(), 60), Regions: []string{"chunk-state"}, Data: v}, nil
}

// chunk finds the chunk that a request names.
func (r *request) chunk() (*journal.Record, *journal.Chunk, error) {
	j, err := r.find(r.PathValue("job"))
	if err != nil {
		return nil, nil, err
	}
	id, err := abi.ParseID(r.URL.Query().Get("id"))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: invalid id %q: put a text that looks like a number in double quotes", ErrNotFound, r.URL.Query().Get("id"))
	}
	c, err := j.Chunk(r.Context(), id)
	return j, c, err
}

// show formats an item.
func (v *shown) show(item []byte) {
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := notation.WriteJSON(w, item); err != nil {
		v.JSON = "cannot be written as JSON: " + line(err.Error())
	} else {
		_ = w.Flush() // to memory
		v.JSON = b.String()
	}
	if text, err := notation.Diagnose(item); err == nil {
		v.Diag = text
	}
}

// output sends the output of one chunk, or all outputs of a job, as CBOR.
func (s *server) output(w http.ResponseWriter, hr *http.Request) {
	r := &request{Request: hr}
	var err error
	if r.store, err = s.Open(r.Context()); err != nil {
		s.fail(w, err)
		return
	}
	if r.URL.Query().Has("id") {
		s.one(w, r)
		return
	}
	j, err := r.find(r.PathValue("job"))
	if err != nil {
		s.fail(w, err)
		return
	}
	attach(w, journal.Name(j.Record.ID)[:12]+"-outputs.cbor")
	if err := sendAll(r.Context(), w, j); err != nil && r.Context().Err() == nil {
		panic(http.ErrAbortHandler) // the reader must not take a part for the whole
	}
}

func sendAll(ctx context.Context, w http.ResponseWriter, j *journal.Record) error {
	out := bufio.NewWriterSize(w, 64<<10)
	var entry []byte
	gone, err := j.Outputs(ctx, func(o *journal.Output) error {
		entry = abi.AppendOutput(entry[:0], o.ID, o.Output)
		_, err := out.Write(entry)
		return err
	})
	if err == nil && !gone.Empty() {
		err = errors.New("outputs are missing")
	}
	return errors.Join(err, out.Flush())
}

// one sends the output of one chunk.
func (s *server) one(w http.ResponseWriter, r *request) {
	j, c, err := r.chunk()
	if err == nil && c.Output == nil {
		err = fmt.Errorf("%w: the chunk has no output", ErrNotFound)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	attach(w, journal.Name(j.Record.ID)[:12]+"-"+strings.TrimLeft(c.ID.FileName(), ".")+".cbor")
	_, _ = w.Write(c.Output.Output) // the reader may have gone
}

// attach makes the response a file to be saved. The name has only letters, digits and
// the like.
func attach(w http.ResponseWriter, name string) {
	w.Header().Set("Content-Type", "application/cbor")
	w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", safe(name)))
}

func safe(name string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, cut(name, 100))
}
