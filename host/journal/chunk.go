package journal

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// ErrNoChunk reports that a job has no chunk with the given id.
var ErrNoChunk = errors.New("no such chunk")

// Chunk is the record of one chunk.
type Chunk struct {
	ID       abi.ID    `json:"id"`
	Number   int       `json:"-"`                // in id order
	State    string    `json:"state"`            // pending, active, succeeded or failed
	Digest   string    `json:"digest,omitempty"` // of the output's bytes, if the chunk succeeded
	Output   *Output   `json:"output,omitempty"` // nil if there is none, or it was deleted
	Attempts []Attempt `json:"attempts"`         // in order
}

// Output is the stored output of a chunk.
type Output struct {
	ID     abi.ID `json:"-"`
	Output []byte `json:"-"` // one CBOR item
	Digest string `json:"digest"`
	Size   int    `json:"size"` // in bytes
	Fuel   uint64 `json:"fuel"`
}

// Attempt is one attempt at a chunk. An attempt that succeeded has no class; one
// that found the output in the store has no times.
type Attempt struct {
	Run     int       `json:"run"`
	Attempt int       `json:"attempt"` // from 1 in each run; 0 means the output was in the store
	State   string    `json:"state"`   // succeeded, reused, retried or failed
	Class   abi.Class `json:"class,omitempty"`
	Message string    `json:"message,omitempty"`
	Stack   []string  `json:"stack,omitempty"`
	Logs    []string  `json:"logs,omitempty"` // the last lines of a failed attempt
	// Fuel is that of a failed call: 0 if it is not known, and a lower bound if
	// FuelAtLeast; see [abi.Failure].
	Fuel        uint64    `json:"fuel,omitempty"`
	FuelAtLeast bool      `json:"fuel_at_least,omitempty"`
	Worker      int       `json:"worker"`
	Host        string    `json:"host,omitempty"`
	Start       time.Time `json:"start,omitzero"`
	End         time.Time `json:"end,omitzero"`
}

// Chunk reads the record of the chunk with an id. The error is [ErrNoChunk] if the
// job has no such chunk.
func (j *Record) Chunk(ctx context.Context, id abi.ID) (*Chunk, error) {
	x, err := j.loadIDs(ctx)
	if err != nil {
		return nil, err
	}
	i, ok := x.index(id)
	if !ok {
		return nil, fmt.Errorf("%w: job %s has no chunk %v", ErrNoChunk, Name(j.Record.ID)[:12], id)
	}
	c := &Chunk{ID: id, Number: i, Attempts: []Attempt{}}
	for a, err := range j.store.Attempts(ctx, j.Record.ID, i, i+1) {
		if err != nil {
			return nil, err
		}
		c.Attempts = append(c.Attempts, j.failedAttempt(&a))
	}
	if err := j.succeeded(ctx, c, i); err != nil {
		return nil, err
	}
	states, err := j.states(ctx)
	c.State = states.of(i)
	return c, err
}

func (s *chunkStates) of(i int) string {
	switch {
	case s.succeeded.has(i):
		return "succeeded"
	case s.active.has(i):
		return "active"
	case s.failed.has(i):
		return "failed"
	}
	return "pending"
}

func (j *Record) failedAttempt(a *store.Attempt) Attempt {
	var f FailedAttempt
	_ = json.Unmarshal(a.Detail, &f) // unreadable details are left out
	state := "retried"
	if a.Final {
		state = "failed"
	}
	f.Failure.Class, f.Failure.Fuel = abi.Class(a.Class), f.Fuel
	return Attempt{
		Fuel: f.Fuel, FuelAtLeast: f.FuelAtLeast(), Run: a.Run, Attempt: f.Attempt, State: state, Class: abi.Class(a.Class), Message: f.Message, Stack: f.Stack, Logs: f.Logs,
		Worker: f.Worker, Host: j.hostOf(&f, a.Run), Start: f.Start, End: f.End,
	}
}

// hostOf returns the machine of a failed attempt.
func (j *Record) hostOf(f *FailedAttempt, run int) string {
	if f.Host != "" {
		return f.Host
	}
	return j.host(run)
}

// host returns the machine of a run; "" if workers on several machines share it.
func (j *Record) host(number int) string {
	for i := range j.Runs {
		if j.Runs[i].Number != number {
			continue
		}
		if p := ProcessOf(&j.Runs[i]); j.Record.Shared == nil || p.Workers > 0 {
			return p.Host
		}
	}
	return ""
}

// succeeded adds the attempts that gave the i-th chunk's output, and the output.
func (j *Record) succeeded(ctx context.Context, c *Chunk, i int) error {
	var digest store.Digest
	for span, err := range j.store.Spans(ctx, j.Record.ID, i, i+1) {
		if err != nil {
			return err
		}
		if i < span.First || i-span.First >= len(span.Chunks) {
			continue // damaged: the store counts more chunks than the span has
		}
		digest = span.Chunks[i-span.First]
		worker, elapsed, err := detail(span.Detail, i-span.First)
		if err != nil {
			return err
		}
		a := Attempt{Run: span.Run, State: "reused", Worker: worker, Host: j.host(span.Run), Start: elapsed.Start, End: elapsed.End}
		if !elapsed.Start.IsZero() {
			a.State, a.Attempt = "succeeded", 1+failedIn(c.Attempts, span.Run)
		}
		c.Attempts = inOrder(c.Attempts, a)
	}
	if digest == (store.Digest{}) {
		return nil
	}
	c.Digest = "sha256:" + hex.EncodeToString(digest[:])
	key := store.Key{Chunk: digest, Order: c.ID.AppendOrderKey(nil)}
	return j.store.Get(ctx, j.Record.Action, []store.Key{key}, func(_ int, v store.Value) error {
		c.Output = outputOf(c.ID, v)
		return nil
	})
}

// inOrder inserts an attempt after the others of its run.
func inOrder(attempts []Attempt, a Attempt) []Attempt {
	at := len(attempts)
	for at > 0 && attempts[at-1].Run > a.Run {
		at--
	}
	return append(attempts[:at:at], append([]Attempt{a}, attempts[at:]...)...)
}

func failedIn(attempts []Attempt, run int) (n int) {
	for _, a := range attempts {
		if a.Run == run {
			n = max(n, a.Attempt)
		}
	}
	return n
}

func outputOf(id abi.ID, v store.Value) *Output {
	sum := sha256.Sum256(v.Output)
	return &Output{ID: id, Output: append([]byte{}, v.Output...), Digest: "sha256:" + hex.EncodeToString(sum[:]), Size: len(v.Output), Fuel: v.Fuel}
}

// outputBatch is the number of outputs in one request.
const outputBatch = 1024

// Outputs calls each with the outputs that are stored for the job, in id order; an
// output is valid until each returns. It returns the chunks that succeeded but
// whose output is no longer stored.
func (j *Record) Outputs(ctx context.Context, each func(*Output) error) (gone abi.IDSet, err error) {
	x, err := j.loadIDs(ctx)
	if err != nil {
		return gone, err
	}
	b := &outputs{job: j, ids: x, each: each, gone: &gone}
	next := 0
	for span, err := range j.store.Spans(ctx, j.Record.ID, 0, j.Record.Total) {
		if err != nil {
			return gone, err
		}
		in := j.within(span.First, len(span.Chunks))
		for k := max(next, in.from); k < in.to; k++ {
			if err := b.add(ctx, k, span.Chunks[k-span.First]); err != nil {
				return gone, err
			}
			next = k + 1
		}
	}
	return gone, b.flush(ctx)
}

// outputs requests outputs in batches.
type outputs struct {
	job    *Record
	ids    *ids
	each   func(*Output) error
	gone   *abi.IDSet
	chunks []int
	keys   []store.Key
	orders []byte // of keys
	output Output
}

func (b *outputs) add(ctx context.Context, chunk int, digest store.Digest) error {
	b.chunks = append(b.chunks, chunk)
	start := len(b.orders)
	b.orders = b.ids.at(chunk).AppendOrderKey(b.orders)
	b.keys = append(b.keys, store.Key{Chunk: digest, Order: b.orders[start:len(b.orders):len(b.orders)]})
	if len(b.keys) < outputBatch {
		return nil
	}
	return b.flush(ctx)
}

func (b *outputs) flush(ctx context.Context) error {
	next := 0
	missing := func(until int) {
		for ; next < until; next++ {
			b.gone.Add(b.ids.at(b.chunks[next]))
		}
	}
	err := b.job.store.Get(ctx, b.job.Record.Action, b.keys, func(i int, v store.Value) error {
		missing(i)
		next = i + 1
		b.output = Output{ID: b.ids.at(b.chunks[i]), Output: v.Output, Size: len(v.Output), Fuel: v.Fuel}
		return b.each(&b.output)
	})
	if err == nil {
		missing(len(b.keys))
	}
	b.chunks, b.keys, b.orders = b.chunks[:0], b.keys[:0], b.orders[:0]
	return err
}
