// Package report shows the report of a job as a page, as text and as JSON. All three
// forms are made of one [Document] and have the same numbers.
//
// Guests and files of others write much of the text in a report. A page escapes all of
// it and makes no request; the text escapes control characters; both are bounded.
package report

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
)

// Document is the report of a run. Its JSON is the report of package host
// with more fields.
type Document struct {
	*host.Report
	Name    string         `json:"name,omitempty"`
	Host    string         `json:"host,omitempty"` // that ran the job
	Started time.Time      `json:"started,omitzero"`
	Ended   time.Time      `json:"ended,omitzero"`
	Spec    *spec.Settings `json:"settings,omitempty"` // nil if unknown
	// Command repeats the job. Alone returns the command that runs one of its chunks
	// again; nil if that is unknown.
	Command string              `json:"command,omitempty"`
	Alone   func(abi.ID) string `json:"-"`
	Groups
	Why string `json:"bottleneck,omitempty"` // the bottleneck as a sentence
}

// Groups are the failed chunks by their failures.
type Groups struct {
	List  []Group `json:"failure_groups"`                 // the largest first
	Other int     `json:"failure_groups_other,omitempty"` // failed chunks of groups that are left out
}

// Group are failed chunks with the same class, message and innermost frame.
type Group struct {
	Class   abi.Class `json:"class"`
	Message string    `json:"message"`
	Count   int       `json:"count"`
	IDs     string    `json:"ids"` // as ranges; the first ones if there are many
	Stack   []string  `json:"stack,omitempty"`
	Logs    []string  `json:"logs,omitempty"`   // the last lines of one attempt
	Bundle  string    `json:"bundle,omitempty"` // file with everything needed to run one of them again

	Some []abi.ID `json:"-"` // the first chunks, at least one and at most 20
}

// Bounds of the texts of guests. They keep a page below 1 MiB, even if each character
// becomes a reference of five.
const (
	maxGroups  = 25
	maxKinds   = 4096 // groups that are told apart while they are counted
	maxMessage = 1 << 10
	maxIDs     = 1 << 10
	maxFrames  = 16
	maxFrame   = 100
	maxLogs    = 8
	maxLog     = 160
	maxID      = 200
)

// Grouping collects failed chunks, which come in id order. Its memory is bounded.
type Grouping struct {
	groups map[string]*grouped
	other  int
}

type grouped struct {
	Group
	ids abi.IDSet
}

// Add adds a failed chunk.
func (g *Grouping) Add(id abi.ID, f *abi.Failure) {
	if g.groups == nil {
		g.groups = map[string]*grouped{}
	}
	key := string(f.Class) + "\x00" + f.Message
	if len(f.Stack) > 0 {
		key += "\x00" + f.Stack[0]
	}
	x := g.groups[key]
	if x == nil {
		if len(g.groups) == maxKinds {
			g.other++
			return
		}
		x = &grouped{Group: Group{
			Class: f.Class, Message: cut(f.Message, maxMessage),
			Stack: cutAll(f.Stack[:min(len(f.Stack), maxFrames)], maxFrame), Logs: cutAll(f.Logs[max(0, len(f.Logs)-maxLogs):], maxLog),
		}}
		g.groups[key] = x
	}
	if x.Count++; x.Count <= maxKept {
		x.ids.Add(id)
	}
	if len(x.Some) < maxSome {
		x.Some = append(x.Some, id)
	}
}

const (
	// maxKept is the number of ids of a group that are kept for IDs.
	maxKept = 10000
	// maxSome is the number of ids in Group.Some.
	maxSome = 20
)

// Groups returns the groups, the largest first, and those with equal numbers by their
// first chunk. bundle returns the file of a chunk's bundle, or ""; it may be nil.
func (g *Grouping) Groups(bundle func(abi.ID) string) (out Groups) {
	out.List, out.Other = []Group{}, g.other
	for _, x := range g.groups {
		x.IDs = x.ids.String()
		if x.Count > maxKept || len(x.IDs) > maxIDs {
			x.IDs = cutList(x.IDs)
		}
		if bundle != nil {
			x.Bundle = bundle(x.Some[0])
		}
		out.List = append(out.List, x.Group)
	}
	slices.SortFunc(out.List, func(a, b Group) int {
		if a.Count != b.Count {
			return b.Count - a.Count
		}
		return a.Some[0].Compare(b.Some[0])
	})
	for _, left := range out.List[min(len(out.List), maxGroups):] {
		out.Other += left.Count
	}
	out.List = out.List[:min(len(out.List), maxGroups)]
	return out
}

// Explain fills in the sentence about the bottleneck.
func (d *Document) Explain() {
	p := d.Profile
	if p == nil || p.Bottleneck == nil {
		return
	}
	share := fmt.Sprintf("%.0f %% of the workers' time", 100*p.Bottleneck.Share)
	d.Why = map[string]string{
		"guest":   "The module takes " + share + ": a faster function, or more workers on more processors, shorten the job.",
		"reset":   "The return to fresh state takes " + share + ": fewer and larger chunks, or a module that writes less memory, shorten the job.",
		"host":    "Reading, hashing and handing over chunks take " + share + ": fewer and larger chunks shorten the job.",
		"store":   "Waiting for the store takes " + share + ": a faster disk, or fewer and larger chunks, shorten the job.",
		"fold":    "The calls of aggregate and merge take " + share + ": a faster aggregate shortens the job.",
		"waiting": "Workers had nothing to do for " + share + ": more and smaller chunks, fewer workers, or fewer retries, use them better.",
	}[p.Bottleneck.Cause]
}

// JSON returns the document as JSON, with indentation.
func (d *Document) JSON() ([]byte, error) { return json.MarshalIndent(d, "", "  ") }
