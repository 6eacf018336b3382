package verify

import (
	"context"
	"errors"
	"fmt"

	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Operand is one of two jobs to compare.
type Operand struct {
	Fields   map[string]string // known fields of a receipt, by their names
	Expected *Expected         // nil if only digests are known
}

// Comparison is the result of [Diff].
type Comparison struct {
	Compared    []string // fields, and EachOutput
	Differences []receipt.Difference
	Chunks      ChunkDifferences
}

// EachOutput is in Comparison.Compared if the outputs were compared one by one.
const EachOutput = "each output"

// Same reports whether nothing differs.
func (c *Comparison) Same() bool { return len(c.Differences) == 0 && c.Chunks.Count == 0 }

// ErrNothingInCommon is returned if the operands share no known field and not
// both have outputs.
var ErrNothingInCommon = errors.New("nothing in common that could be compared")

// Diff compares everything that is known of both operands. If only one of them
// has outputs, their digest and number are used as its fields.
func Diff(ctx context.Context, a, b *Operand) (*Comparison, error) {
	c := &Comparison{Compared: []string{}, Differences: []receipt.Difference{}, Chunks: ChunkDifferences{Listed: []ChunkDifference{}}}
	var err error
	if a.Expected != nil && b.Expected != nil {
		err = c.compareOutputs(ctx, a, b)
	} else {
		err = errors.Join(a.digest(ctx), b.digest(ctx))
	}
	if err != nil {
		return nil, err
	}
	c.compareFields(a, b)
	if len(c.Compared) == 0 {
		return nil, ErrNothingInCommon
	}
	return c, nil
}

// digest computes the digest of the outputs, if there are any.
func (o *Operand) digest(ctx context.Context) error {
	if o.Expected == nil {
		return nil
	}
	root, n, err := Digest(o.Expected.All(ctx))
	if err != nil {
		return err
	}
	o.Fields["outputs"], o.Fields["chunks"] = root.String(), fmt.Sprint(n)
	return nil
}

// compareOutputs reads both sequences side by side.
func (c *Comparison) compareOutputs(ctx context.Context, a, b *Operand) error {
	c.Compared = append(c.Compared, EachOutput)
	for d, err := range outputs.Compare(a.Expected.All(ctx), b.Expected.All(ctx)) {
		if err != nil {
			return err
		}
		c.Chunks.Add(d.ID, d.A, d.B, nil)
	}
	return nil
}

// compareFields compares the fields that are known of both.
func (c *Comparison) compareFields(a, b *Operand) {
	for _, f := range new(receipt.Receipt).Fields() { // in their order in the receipt
		x, knownA := a.Fields[f.Name]
		y, knownB := b.Fields[f.Name]
		if !knownA || !knownB {
			continue
		}
		c.Compared = append(c.Compared, f.Name)
		if x != y {
			c.Differences = append(c.Differences, receipt.Difference{Field: f.Name, A: x, B: y})
		}
	}
}
