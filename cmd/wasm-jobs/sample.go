package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
)

// sample says which chunks are executed. The zero sample has all.
type sample struct {
	made    bool
	seeded  bool
	seed    uint64
	count   int
	percent float64 // where share
	share   bool
}

func (s *sample) parse(ctx *cli.Context) (err error) {
	s.made, s.seeded, s.seed = isSet(ctx, "sample"), isSet(ctx, "sample-seed"), ctx.Uint64("sample-seed")
	if !s.made {
		if s.seeded {
			return refuse("--sample-seed is about --sample, which is not given")
		}
		return nil
	}
	text := ctx.String("sample")
	if s.percent, s.share = parsePercent(text); s.share {
		return nil
	}
	if s.count, err = strconv.Atoi(text); err != nil || s.count < 0 {
		return refuse("--sample %q is neither a number of chunks nor a percentage such as 1%%", text)
	}
	return nil
}

func parsePercent(text string) (percent float64, ok bool) {
	number, ok := strings.CutSuffix(text, "%")
	if !ok {
		return 0, false
	}
	percent, err := strconv.ParseFloat(number, 64)
	return percent, err == nil && percent >= 0 && percent <= 100
}

// of returns the numbers of the chunks in the sample, ascending: as many as were
// asked for, chosen by the seed, or by a hash of the receipt.
func (s *sample) of(total int, r *receipt.Receipt) ([]uint64, error) {
	count := min(s.count, total)
	if s.share {
		count = min(total, int(math.Ceil(float64(total)*s.percent/100)))
	}
	basis := []byte("wasm-jobs sample\n")
	if s.seeded {
		basis = fmt.Appendf(basis, "seed %d\n", s.seed)
	} else {
		b, err := r.Marshal()
		if err != nil {
			return nil, err
		}
		basis = append(basis, b...)
	}
	// Floyd's way to draw without drawing twice, in as much memory as the sample.
	random := rand.New(rand.NewChaCha8(sha256.Sum256(basis)))
	drawn := make(map[int]bool, count)
	for last := total - count; last < total; last++ {
		if i := random.IntN(last + 1); !drawn[i] {
			drawn[i] = true
		} else {
			drawn[last] = true
		}
	}
	indices := make([]uint64, 0, count)
	for i := range drawn {
		indices = append(indices, uint64(i))
	}
	slices.Sort(indices)
	return indices, nil
}

// proving goes through all claimed outputs for the proofs of a sample. It is
// what a sample costs beside the scan of the chunks, which takes as long: so it
// goes on beside that, and beside the execution. It keeps hashes alone, and of
// an output nothing; where one differs, the outputs are read once more.
type proving struct {
	v       *verifier
	claimed *claims // nil = there are none
	indices []uint64
	prover  *merkle.Prover // from here on set by begin
	root    receipt.Digest
	cancel  context.CancelFunc
	done    chan struct{} // closed at its end, when err is set; nil = not begun
	err     error
}

// beginProving opens the outputs, and begins where the number of chunks that the
// receipt states can be true: a sample of it is drawn before chunks were counted.
func (v *verifier) beginProving(ctx context.Context) *proving {
	p := &proving{v: v}
	if p.claimed, p.err = v.claims(ctx); p.claimed != nil && v.receipt.Chunks <= uint64(min(p.claimed.most, math.MaxInt)) {
		p.begin()
	}
	return p
}

// begin starts to hash, which close stops and waits for.
func (p *proving) begin() {
	if p.indices, p.err = p.v.sample.of(int(p.v.receipt.Chunks), p.v.receipt); p.err != nil {
		return
	}
	lowerGCPercent(gcPercent) // little is held: waiting for garbage would be most of the memory
	p.prover = merkle.NewProver(p.indices)
	ctx, cancel := context.WithCancel(p.v.stops.soft)
	p.cancel, p.done = cancel, make(chan struct{})
	go func() {
		defer close(p.done)
		p.root, p.err = p.hash(ctx)
	}()
}

func (p *proving) hash(ctx context.Context) (receipt.Digest, error) {
	d := merkle.NewDigester(p.prover)
	defer d.Close()
	err := p.claimed.each(ctx, func(id abi.ID, output []byte) error {
		d.Add(id, output)
		return nil
	})
	return d.Root(), err
}

// ready returns an error where nothing can be proved. The chunks are known to be
// those of the receipt.
func (p *proving) ready() error {
	switch {
	case p.done != nil: // its error comes with its end
		return nil
	case p.err != nil:
		return p.err
	case p.claimed == nil:
		return refuse("the outputs of the other chunks are needed to prove those of a sample, and the store has no such job: --outputs FILE, or --store DIR of the run")
	}
	p.begin() // there are too few outputs, and it will be said which are missing
	if p.done == nil {
		return p.err
	}
	return nil
}

// wait waits for the end.
func (p *proving) wait() error {
	<-p.done
	return p.err
}

func (p *proving) close() {
	if p.done != nil {
		p.cancel()
		<-p.done
	}
	if p.claimed != nil {
		p.claimed.close()
	}
}

// verifySample executes some chunks, and proves that their outputs are those of
// the receipt.
func (v *verifier) verifySample(ctx context.Context, p *proving) error {
	if err := p.ready(); err != nil {
		return err
	}
	all := v.job.Chunks
	v.found.Outputs = p.claimed.name
	var ids abi.IDSet
	for _, i := range p.indices {
		ids.Add(all.ID(int(i)))
	}
	some := *v.job
	some.NoFold = true
	var err error
	if some.Chunks, err = all.Select(v.stops.soft, ids); err != nil {
		return err
	}
	result, err := v.execute(ctx, &some)
	if err != nil {
		return err
	}
	v.found.Notes = append(v.found.Notes, "aggregate and fuel were not computed again")
	started := time.Now()
	defer func() { v.found.Seconds.Compare = time.Since(started).Seconds() }()
	if err := p.wait(); err != nil {
		return err
	}
	if p.root != v.receipt.Outputs {
		v.found.Differences = append(v.found.Differences, receipt.Difference{Field: "outputs", A: v.receipt.Outputs.String(), B: p.root.String()})
		v.found.Notes = append(v.found.Notes, fmt.Sprintf("the outputs in %s are not those of the receipt, and prove nothing", p.claimed.name))
	}
	if n := p.prover.Len(); p.root == v.receipt.Outputs && n != v.receipt.Chunks {
		v.found.Notes = append(v.found.Notes, fmt.Sprintf("there are %d outputs in %s, of %d chunks", n, p.claimed.name, v.receipt.Chunks))
	}
	if err := v.prove(v.stops.soft, result, p, all); err != nil || v.found.Proved == len(p.indices) {
		return err
	}
	return v.compareSample(v.stops.soft, result, p, all)
}

// prove counts the chunks of the sample whose outputs are proved to be in the
// receipt's tree, which has a leaf for each chunk.
func (v *verifier) prove(ctx context.Context, result *host.Result, p *proving, all *chunks.File) error {
	whole := p.prover.Len() == v.receipt.Chunks
	again := newOutputsOf(ctx, result)
	defer again.stop()
	for _, i := range p.indices {
		id := all.ID(int(i))
		if !again.there || again.output.ID != id { // it failed
			continue
		}
		if whole && p.prover.Proves(i, merkle.HashEntry(id, again.output.Output), v.receipt.Outputs) {
			v.found.Proved++
		}
		again.advance()
	}
	return again.err
}

// compareSample names the chunks of the sample whose outputs are not those that
// were claimed.
func (v *verifier) compareSample(ctx context.Context, result *host.Result, p *proving, all *chunks.File) error {
	again := newOutputsOf(ctx, result)
	defer again.stop()
	indices := p.indices
	check := func(id abi.ID, output []byte) error { // of the next chunk in the sample
		indices = indices[1:]
		if !again.there || again.output.ID != id {
			v.found.add(id, output, nil, again.failure(id))
			return again.err
		}
		if output == nil || string(output) != string(again.output.Output) {
			v.found.add(id, output, again.output.Output, nil)
		}
		again.advance()
		return again.err
	}
	err := p.claimed.each(ctx, func(id abi.ID, output []byte) error {
		for len(indices) > 0 {
			next := all.ID(int(indices[0]))
			switch order := next.Compare(id); {
			case order > 0:
				return nil
			case order == 0:
				return check(id, output)
			}
			if err := check(next, nil); err != nil {
				return err
			}
		}
		return nil
	})
	for err == nil && len(indices) > 0 {
		err = check(all.ID(int(indices[0])), nil)
	}
	return err
}
