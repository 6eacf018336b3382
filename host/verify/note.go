package verify

import (
	"cmp"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// NoteKind is the subject of a note.
type NoteKind int

// Kinds of notes.
const (
	// OtherEngine: a field of the receipt's engine differs from this program.
	// Only engine.fixes can explain a different result. Field, Have and Here
	// are set.
	OtherEngine NoteKind = iota + 1
	// FuelNotCompared: another version of metering counted the receipt's fuel,
	// so it cannot be compared.
	FuelNotCompared
	// NotComputed: the aggregate and the fuel were not computed, because only a
	// sample was executed.
	NotComputed
	// KnownSample: the sample is derived from the receipt, so its maker could
	// know it.
	KnownSample
	// ChunksUnknown: without outputs it is unknown which chunks differ.
	ChunksUnknown
	// OtherOutputs: the outputs called Name have the digest Root, and the
	// receipt has another one.
	OtherOutputs
	// NothingProved: like OtherOutputs for a sample; the outputs cannot prove
	// it.
	NothingProved
	// OtherCount: there are N outputs called Name for Of chunks.
	OtherCount
)

// Note is additional information about a result: a check that was not made, or
// why more is not known.
type Note struct {
	Kind              NoteKind
	Field, Have, Here string
	Name              string
	Root              receipt.Digest
	N, Of             uint64
}

// fixesField is the field of the engine that can explain a different result.
const fixesField = "engine.fixes"

// String returns the note in words.
func (n Note) String() string {
	switch n.Kind {
	case OtherEngine:
		if n.Field == fixesField {
			return fmt.Sprintf("%s is %s here and was %s: the engine may have compiled this module wrongly then, and the outputs may differ",
				n.Field, cmp.Or(n.Here, "none"), cmp.Or(n.Have, "none"))
		}
		return fmt.Sprintf("%s is %s here and was %s: this does not explain a different result", n.Field, n.Here, n.Have)
	case FuelNotCompared:
		return "fuel was not compared: another version of metering counted it"
	case NotComputed:
		return "aggregate and fuel were not computed again"
	case KnownSample:
		return "the sample follows from the receipt: its maker could know which chunks are in it"
	case ChunksUnknown:
		return "without outputs it is unknown which chunks differ"
	case OtherOutputs:
		return fmt.Sprintf("the outputs in %s are not those of the receipt: their digest is %v", n.Name, n.Root)
	case NothingProved:
		return fmt.Sprintf("the outputs in %s are not those of the receipt, and prove nothing", n.Name)
	}
	return fmt.Sprintf("%s has %d outputs for %d chunks", n.Name, n.N, n.Of)
}

func (r *Result) note(n Note) { r.Notes = append(r.Notes, n) }
