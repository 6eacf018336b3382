package main

import (
	"fmt"
	"io"
)

// compare holds the ratios of a run to those of an older one and returns of how
// many kernels they are worse: ours takes longer than it did beside the same
// sides. Times are never compared: they are those of a machine. And as ours is a
// part of all ratios of a kernel, it is their median that counts: where a single
// one changed, another side did, or the machine was busy for a while.
func compare(to io.Writer, now, old *report, tolerance float64) (worse, compared int) {
	before := map[[2]string]result{}
	for _, r := range old.Results {
		before[[2]string{r.Kernel, r.Side}] = r
	}
	var kernels []string
	factors := map[string][]float64{} // of kernels: how much longer ours takes beside each side
	for _, r := range now.Results {
		key := [2]string{r.Kernel, r.Side}
		was, known := before[key]
		delete(before, key)
		if r.Side == base {
			continue // 1 by definition
		}
		if !known {
			fmt.Fprintf(to, "not compared: %s, side %s, is not in the file\n", r.Kernel, r.Side)
			continue
		}
		compared++
		if factors[r.Kernel] == nil {
			kernels = append(kernels, r.Kernel)
		}
		factors[r.Kernel] = append(factors[r.Kernel], was.Ratio.median()/r.Ratio.median())
	}
	for _, r := range old.Results {
		if _, left := before[[2]string{r.Kernel, r.Side}]; left && r.Side != base {
			fmt.Fprintf(to, "not compared: %s, side %s, was not measured now\n", r.Kernel, r.Side)
		}
	}
	for _, kernel := range kernels {
		factor, verdict := quartilesOf(factors[kernel]), "as before"
		if factor.median() > tolerance {
			worse++
			verdict = "worse"
		}
		fmt.Fprintf(to, "%s: %s: beside %d sides, ours takes %s times as long as it did\n", verdict, kernel, len(factors[kernel]), factor.spread(digits))
	}
	fmt.Fprintf(to, "%d ratios of %d kernels compared, of medians of %d and %d rounds; %d kernels are worse by more than a factor of %s\n",
		compared, len(kernels), now.Rounds, old.Rounds, worse, digits(tolerance))
	return worse, compared
}
