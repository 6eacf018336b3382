package main

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"
	"slices"
	"time"
)

// quartiles are the first quartile, the median and the third quartile of several rounds.
type quartiles [3]float64

// quartilesOf returns the quartiles of all, interpolated between neighbours.
func quartilesOf(all []float64) (q quartiles) {
	sorted := slices.Sorted(slices.Values(all))
	for i := range q {
		place := float64((i+1)*(len(sorted)-1)) / 4
		at := int(place)
		next := min(at+1, len(sorted)-1)
		q[i] = sorted[at] + (sorted[next]-sorted[at])*(place-float64(at))
	}
	return q
}

func (q quartiles) median() float64 { return q[1] }

// result is the time of one side for one kernel.
type result struct {
	Kernel string    `json:"kernel"`
	Side   string    `json:"side"`
	Batch  int       `json:"batch"` // chunks in a round
	NS     quartiles `json:"ns"`    // nanoseconds per chunk
	Ratio  quartiles `json:"ratio"` // to the time of side ours in the same round
}

// absent is a side that did not run, with the reason.
type absent struct {
	Kernel string `json:"kernel"`
	Side   string `json:"side"`
	Reason string `json:"reason"`
}

// least is the minimum time of a batch: much longer than the resolution of the clock
// and than a short interruption.
const least = 20 * time.Millisecond

// launched is the minimum number of processes in a batch, so that starting the launcher
// adds little to each.
const launched = 10

// measureKernel checks all sides, and then measures those that run.
func measureKernel(ctx context.Context, w *work, all []side, rounds int) (results []result, absents []absent, err error) {
	opened, err := openAll(ctx, all, w)
	defer func() { err = errors.Join(err, closeAll(opened)) }()
	if err != nil {
		return nil, nil, err
	}
	running := opened[:0:0]
	for _, s := range opened {
		if s.reason != nil {
			absents = append(absents, absent{w.name, s.side.name, s.reason.Error()})
		} else {
			running = append(running, s)
		}
	}
	results, err = measure(ctx, w, running, rounds)
	return results, absents, err
}

// measure times batches. In each round every side runs one batch, and each round begins
// with another side. A ratio is between two times of the same round.
func measure(ctx context.Context, w *work, sides []opened, rounds int) ([]result, error) {
	results, times := make([]result, len(sides)), make([][]float64, len(sides))
	ours := slices.IndexFunc(sides, func(s opened) bool { return s.side.name == base })
	if ours < 0 {
		return nil, fmt.Errorf("%s: missing side %s, which the others are compared with", w.name, base)
	}
	for i, s := range sides {
		n, err := calibrate(ctx, w, s)
		if err != nil {
			return nil, fmt.Errorf("%s, side %s: %w", w.name, s.side.name, err)
		}
		results[i] = result{Kernel: w.name, Side: s.side.name, Batch: n}
	}
	for round := range rounds {
		for n := range sides {
			i := (n + round) % len(sides)
			taken, err := batch(ctx, w, sides[i], results[i].Batch)
			if err != nil {
				return nil, fmt.Errorf("%s, side %s: %w", w.name, sides[i].side.name, err)
			}
			times[i] = append(times[i], float64(taken)/float64(results[i].Batch))
		}
	}
	for i := range results {
		ratios := make([]float64, rounds)
		for round := range ratios {
			ratios[round] = times[i][round] / times[ours][round]
		}
		results[i].NS, results[i].Ratio = quartilesOf(times[i]), quartilesOf(ratios)
	}
	return results, nil
}

// calibrate returns the number of chunks that take at least the time least, even if
// nothing interrupts them.
func calibrate(ctx context.Context, w *work, s opened) (int, error) {
	n := 1
	if s.side.launches {
		n = launched
	}
	for {
		taken, err := batch(ctx, w, s, n)
		if err == nil && taken >= least {
			var again time.Duration
			again, err = batch(ctx, w, s, n)
			taken = min(taken, again)
		}
		if err != nil || taken >= least {
			return n, err
		}
		more := float64(least) / float64(max(taken, time.Microsecond)) * 1.1
		n = int(float64(n)*min(more, 100)) + 1
	}
}

// batch times n chunks, and checks the last output. First it collects the garbage of
// other sides, and runs one chunk to warm the caches.
func batch(ctx context.Context, w *work, s opened, n int) (time.Duration, error) {
	goruntime.GC()
	if !s.side.launches {
		if _, err := s.runner.run(ctx, 1); err != nil {
			return 0, err
		}
	}
	start := time.Now()
	output, err := s.runner.run(ctx, n)
	taken := time.Since(start)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	return taken, w.same(output)
}
