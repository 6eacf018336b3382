package flow

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// Receipt describes a finished run and its results, without times, hosts, paths and
// the run's name. Its fields are in the order of their names in JSON, as the format
// requires; docs/flow-receipt.md describes them.
type Receipt struct {
	Effects       Trail                   `json:"effects"`
	Ends          map[string]Trail        `json:"ends"`
	Engine        receipt.Engine          `json:"engine"`
	Flow          receipt.Digest          `json:"flow"`  // of the definition's canonical JSON
	Input         receipt.Digest          `json:"input"` // Merkle tree hash over [id, chunk] in id order
	Interventions Trail                   `json:"interventions"`
	Items         uint64                  `json:"items"` // roots and children
	Kind          string                  `json:"kind"`  // flow
	Pure          bool                    `json:"pure"`  // no route was taken that depends on the machine
	Result        receipt.Digest          `json:"result"`
	Settings      ReceiptSettings         `json:"settings"`
	States        map[string]StateReceipt `json:"states"` // except ends
	Version       int                     `json:"version"`
}

// ReceiptSettings are the settings of a run that can change a result, in addition to
// the settings in the definition. The optional ones apply to modules; 0 is the default
// or the value in the definition.
type ReceiptSettings struct {
	Context   *receipt.Digest `json:"context,omitempty"` // of the input of setup
	Fuel      uint64          `json:"fuel,omitempty"`
	MaxDepth  int             `json:"max_depth"`
	MaxItems  int             `json:"max_items"`
	MaxOutput uint64          `json:"max_output,omitempty"` // bytes
	MaxSteps  int             `json:"max_steps"`
	Memory    uint64          `json:"memory,omitempty"` // bytes
	Seed      *uint64         `json:"seed,omitempty"`   // nil = the definition's
	Stack     uint64          `json:"stack,omitempty"`  // bytes
}

// Trail is the number of leaves and the root of their Merkle tree (RFC 6962).
type Trail struct {
	Count uint64         `json:"count"`
	Root  receipt.Digest `json:"root"`
}

// StateReceipt describes the steps in one state that gave an output.
type StateReceipt struct {
	Fuel   uint64          `json:"fuel"`
	Module *receipt.Digest `json:"module,omitempty"`
	Root   receipt.Digest  `json:"root"` // over [id, step, H(input), H(output)]
	Steps  uint64          `json:"steps"`
}

// ReceiptVersion is the version of the format.
const ReceiptVersion = 1

func trailOf(t tree) Trail { return Trail{t.Len(), t.Root()} }

// receipt returns the receipt of a run that succeeded.
func (x *execution) receipt() *Receipt {
	w := x.walk
	b := x.Bounds.withDefaults()
	r := &Receipt{
		Effects: trailOf(&w.effects), Ends: map[string]Trail{}, States: map[string]StateReceipt{},
		Engine: receipt.Engine{ABI: abi.Version, Metering: runtime.MeteringVersion, Wazero: runtime.EngineVersion()},
		Flow:   x.Flow.digest(), Input: x.Input.Digest(), Interventions: x.replay.redrives.trail(), Items: uint64(w.total),
		Kind: "flow", Pure: !w.impure, Version: ReceiptVersion,
		Settings: x.Settings,
	}
	r.Settings.MaxDepth, r.Settings.MaxItems, r.Settings.MaxSteps = b.MaxDepth, b.MaxItems, b.MaxSteps
	r.Result = receipt.Digest(w.outputs.Sum(nil))
	if x.output != nil {
		r.Result = sha256.Sum256(x.output)
	}
	for i := range x.plan.states {
		s := &x.plan.states[i]
		if s.isEnd() {
			r.Ends[s.Name] = trailOf(w.digests.ends[i])
			continue
		}
		t := w.digests.states[i]
		state := StateReceipt{Fuel: w.tallies[i].fuel, Root: t.Root(), Steps: t.Len()}
		if of, ok := s.Exec.(interface{ module() *Module }); ok {
			m := of.module()
			state.Module = (*receipt.Digest)(ptr(m.Digest()))
			if c := m.Settings.Context; len(c) > 0 {
				r.Settings.Context = (*receipt.Digest)(ptr(sha256.Sum256(c)))
			}
		}
		r.States[s.Name] = state
	}
	return r
}

func ptr[T any](v T) *T { return &v }

// Marshal returns the canonical bytes of the receipt, in the form of
// [receipt.Receipt.Marshal].
func (r *Receipt) Marshal() ([]byte, error) {
	b, err := json.MarshalIndent(r, "", "  ")
	return append(b, '\n'), err
}

// ErrReceiptForm reports bytes that are not a receipt of a flow, or not in canonical
// form.
var ErrReceiptForm = errors.New("this is not a receipt of a flow")

func isInterrupted(err error) bool { return errors.Is(err, ErrInterrupted) }

// ParseReceipt reads the bytes of a receipt. The error is [ErrReceiptForm] if they
// are not the bytes that [Receipt.Marshal] returns.
func ParseReceipt(b []byte) (*Receipt, error) {
	r := &Receipt{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if len(b) > receipt.MaxSize || d.Decode(r) != nil || r.Kind != "flow" {
		return nil, ErrReceiptForm
	}
	if own, err := r.Marshal(); err != nil || !bytes.Equal(own, b) {
		return nil, fmt.Errorf("%w in canonical form: it was changed, or written by another program", ErrReceiptForm)
	}
	return r, nil
}

// Differences returns the names of the fields in which two receipts differ. If other
// is set, they are of different runs: flow, input or settings differ. Otherwise the
// same run had different results.
func (r *Receipt) Differences(s *Receipt) (other, rest []string) {
	note := func(to *[]string, same bool, field string) {
		if !same {
			*to = append(*to, field)
		}
	}
	note(&other, r.Flow == s.Flow, "flow")
	note(&other, r.Input == s.Input, "input")
	a, _ := json.Marshal(r.Settings)
	b, _ := json.Marshal(s.Settings)
	note(&other, bytes.Equal(a, b), "settings")
	note(&rest, r.Effects == s.Effects, "effects")
	note(&rest, r.Interventions == s.Interventions, "interventions")
	for _, name := range slices.Sorted(maps.Keys(r.States)) {
		a, b := r.States[name], s.States[name]
		note(&rest, a.Root == b.Root && a.Steps == b.Steps && a.Fuel == b.Fuel, "states."+name)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Ends)) {
		note(&rest, r.Ends[name] == s.Ends[name], "ends."+name)
	}
	note(&rest, r.Items == s.Items, "items")
	note(&rest, r.Result == s.Result, "result")
	return other, rest
}
