package verify

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// Sample selects the chunks that are executed.
type Sample struct {
	Count   int     // number of chunks
	Percent float64 // of all chunks, rounded up, instead of Count; 0 = use Count
	// Seed is the seed of the selection. Without it, the sample is derived from
	// the receipt: the same receipt has the same sample, and its maker could
	// know it.
	Seed *uint64
}

// Numbers returns the numbers of the chunks in the sample, out of total, in
// ascending order.
func (s Sample) Numbers(total int, r *receipt.Receipt) ([]uint64, error) {
	count := min(s.Count, total)
	if s.Percent > 0 {
		count = min(total, int(math.Ceil(float64(total)*s.Percent/100)))
	}
	basis := []byte("wasm-jobs sample\n")
	if s.Seed != nil {
		basis = fmt.Appendf(basis, "seed %d\n", *s.Seed)
	} else {
		b, err := r.Marshal()
		if err != nil {
			return nil, err
		}
		basis = append(basis, b...)
	}
	// Floyd's algorithm: no duplicates, with memory for the sample only.
	random := rand.New(rand.NewChaCha8(sha256.Sum256(basis)))
	drawn := make(map[int]bool, count)
	for last := total - count; last < total; last++ {
		if i := random.IntN(last + 1); !drawn[i] {
			drawn[i] = true
		} else {
			drawn[last] = true
		}
	}
	numbers := make([]uint64, 0, count)
	for i := range drawn {
		numbers = append(numbers, uint64(i))
	}
	slices.Sort(numbers)
	return numbers, nil
}

// SampleProver reads all expected outputs to compute the proofs of a sample.
// This takes as long as the scan of the chunks, so it runs during the scan and
// during the execution. It keeps hashes and no outputs; if an output differs,
// the outputs are read again.
type SampleProver struct {
	receipt  *receipt.Receipt
	sample   Sample
	expected *Expected // nil if there are none
	numbers  []uint64
	prover   *merkle.Prover // the fields from here on are set by begin
	root     receipt.Digest
	cancel   context.CancelFunc
	done     chan struct{} // closed at its end, after err is set; nil = not started
	err      error
}

// StartProver opens the outputs. It starts to read them if the number of chunks
// in the receipt is plausible: the sample is drawn before chunks are counted.
// [Some] returns its errors. Close must be called, and stops it.
func StartProver(ctx context.Context, r *receipt.Receipt, s Sample, find Finder) *SampleProver {
	p := &SampleProver{receipt: r, sample: s}
	if p.expected, p.err = open(ctx, find); p.expected != nil && r.Chunks <= uint64(min(p.expected.Most, math.MaxInt)) {
		p.begin(ctx)
	}
	return p
}

// begin starts the hashing; Close stops it and waits for it.
func (p *SampleProver) begin(ctx context.Context) {
	if p.numbers, p.err = p.sample.Numbers(int(p.receipt.Chunks), p.receipt); p.err != nil {
		return
	}
	p.prover = merkle.NewProver(p.numbers)
	ctx, p.cancel = context.WithCancel(ctx)
	p.done = make(chan struct{})
	go func() {
		defer close(p.done)
		p.root, p.err = p.hash(ctx)
	}()
}

func (p *SampleProver) hash(ctx context.Context) (receipt.Digest, error) {
	d := merkle.NewDigester(p.prover)
	defer d.Close()
	for o, err := range p.expected.All(ctx) {
		if err != nil {
			return receipt.Digest{}, err
		}
		d.Add(o.ID, o.Output)
	}
	return d.Root(), nil
}

// ready returns an error if nothing can be proved. The caller has checked that
// the chunks are those of the receipt.
func (p *SampleProver) ready(ctx context.Context) error {
	switch {
	case p.done != nil: // wait returns its error
		return nil
	case p.err != nil:
		return p.err
	case p.expected == nil:
		return ErrNoOutputs
	}
	p.begin(ctx) // too few outputs: the missing ones will be listed
	if p.done == nil {
		return p.err
	}
	return nil
}

// wait waits for the end.
func (p *SampleProver) wait() error {
	<-p.done
	return p.err
}

// Close stops the prover and closes the outputs.
func (p *SampleProver) Close() {
	if p.done != nil {
		p.cancel()
		<-p.done
	}
	if p.expected != nil {
		p.expected.Close()
	}
}

// Some executes the chunks of a prover's sample, and proves that their outputs
// are in the receipt. in has all chunks, as many as the receipt states.
func Some(ctx context.Context, in Input, x Executor, p *SampleProver) (*Result, error) {
	if err := p.ready(ctx); err != nil {
		return nil, err
	}
	result := newResult()
	result.Sample, result.Outputs = true, p.expected.Name
	run, err := result.execute(func() (*Execution, error) { return x.Some(ctx, p.numbers) })
	if err != nil {
		return nil, err
	}
	started := time.Now()
	defer func() { result.Compare = time.Since(started) }()
	result.note(Note{Kind: NotComputed})
	if p.receipt.Engine.Metering != run.Engine.Metering {
		result.note(Note{Kind: FuelNotCompared})
	}
	if p.sample.Seed == nil && len(p.numbers) < in.Len() {
		result.note(Note{Kind: KnownSample})
	}
	if err := p.wait(); err != nil {
		return nil, err
	}
	result.compareRoot(p)
	if err := result.prove(ctx, in, run, p); err != nil || result.Proved == len(p.numbers) {
		return result, err
	}
	expected := outputs.Only(p.expected.All(ctx), inSample(in, p.numbers))
	return result, result.compareChunks(expected, run.Outputs(ctx), run.Failures)
}

// compareRoot compares the digest of the expected outputs with the receipt.
func (r *Result) compareRoot(p *SampleProver) {
	name := p.expected.Name
	if p.root != p.receipt.Outputs {
		r.Differences = append(r.Differences, receipt.Difference{Field: "outputs", A: p.receipt.Outputs.String(), B: p.root.String()})
		r.note(Note{Kind: NothingProved, Name: name})
	} else if n := p.prover.Len(); n != p.receipt.Chunks {
		r.note(Note{Kind: OtherCount, Name: name, N: n, Of: p.receipt.Chunks})
	}
}

// prove counts the chunks of the sample whose outputs are proved to be in the
// receipt's tree, which has a leaf for each chunk.
func (r *Result) prove(ctx context.Context, in Input, run *Execution, p *SampleProver) error {
	if p.prover.Len() != p.receipt.Chunks {
		return nil
	}
	numbers := p.numbers
	for o, err := range run.Outputs(ctx) {
		if err != nil {
			return err
		}
		for len(numbers) > 0 && in.ID(int(numbers[0])).Compare(o.ID) < 0 { // the chunk failed
			numbers = numbers[1:]
		}
		if len(numbers) > 0 && in.ID(int(numbers[0])) == o.ID && p.prover.Proves(numbers[0], merkle.HashEntry(o.ID, o.Output), p.receipt.Outputs) {
			r.Proved++
		}
	}
	return nil
}

// inSample returns a function that reports whether an id is in the sample. It
// must be called with ascending ids.
func inSample(in Input, numbers []uint64) func(abi.ID) bool {
	return func(id abi.ID) bool {
		for len(numbers) > 0 && in.ID(int(numbers[0])).Compare(id) < 0 {
			numbers = numbers[1:]
		}
		return len(numbers) > 0 && in.ID(int(numbers[0])) == id
	}
}
