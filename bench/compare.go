package main

import (
	"fmt"
	"io"
)

// compare holds the ratios of a run to those of an older one and returns how
// many are worse: a ratio has become smaller, which says that ours takes longer
// than it did beside the same side. Times are never compared: they are those of
// a machine. Nor is a ratio worse whose quartiles overlap with the older ones,
// as those of processes may do on a busy machine.
func compare(to io.Writer, now, old *report, tolerance float64) (worse, compared int) {
	before := map[[2]string]result{}
	for _, r := range old.Results {
		before[[2]string{r.Kernel, r.Side}] = r
	}
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
		if was.Ratio.median() > r.Ratio.median()*tolerance && was.Ratio[0] >= r.Ratio[2] {
			worse++
			fmt.Fprintf(to, "worse: %s: %s takes %s times as long as %s, and took %s times before\n",
				r.Kernel, r.Side, r.Ratio.spread(digits), base, was.Ratio.spread(digits))
		}
	}
	for _, r := range old.Results {
		if _, left := before[[2]string{r.Kernel, r.Side}]; left && r.Side != base {
			fmt.Fprintf(to, "not compared: %s, side %s, was not measured now\n", r.Kernel, r.Side)
		}
	}
	fmt.Fprintf(to, "%d ratios compared, of medians of %d and %d rounds; %d are worse by more than a factor of %s\n", compared, now.Rounds, old.Rounds, worse, digits(tolerance))
	return worse, compared
}
