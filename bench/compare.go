package main

import (
	"fmt"
	"io"
)

// compare compares the ratios of a run with those of an older run, and returns the
// number of kernels for which they are worse: ours takes longer than it did, relative
// to the same sides. Times are not compared, because they depend on the machine. Ours
// is a part of all ratios of a kernel, so their median counts: if a single ratio
// changed, the other side changed, or the machine was busy for a while.
func compare(to io.Writer, now, old *report, tolerance float64) (worse, compared int) {
	before := map[[2]string]result{}
	for _, r := range old.Results {
		before[[2]string{r.Kernel, r.Side}] = r
	}
	var kernels []string
	factors := map[string][]float64{} // by kernel: how much longer ours takes, relative to each side
	for _, r := range now.Results {
		key := [2]string{r.Kernel, r.Side}
		was, known := before[key]
		delete(before, key)
		if r.Side == base {
			continue // 1 by definition
		}
		if !known {
			fmt.Fprintf(to, "not compared: %s, side %s: not in the file\n", r.Kernel, r.Side)
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
			fmt.Fprintf(to, "not compared: %s, side %s: not measured now\n", r.Kernel, r.Side)
		}
	}
	for _, kernel := range kernels {
		factor, verdict := quartilesOf(factors[kernel]), "as before"
		if factor.median() > tolerance {
			worse++
			verdict = "worse"
		}
		fmt.Fprintf(to, "%s: %s: relative to %d sides, ours takes %s times as long as before\n", verdict, kernel, len(factors[kernel]), factor.spread(digits))
	}
	fmt.Fprintf(to, "%d ratios of %d kernels compared, of medians of %d and %d rounds; %d kernels are worse by more than a factor of %s\n",
		compared, len(kernels), now.Rounds, old.Rounds, worse, digits(tolerance))
	return worse, compared
}
