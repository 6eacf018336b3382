package main

import (
	"fmt"
	"io"
)

// compare holds the ratios of a run to those of an older one and returns how
// many are worse: a ratio has become smaller, which says that ours takes longer
// than it did beside the same side. Times are never compared: they are those of
// a machine.
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
		if was.Ratio.median() > r.Ratio.median()*tolerance {
			worse++
			fmt.Fprintf(to, "worse: %s: %s takes %s times as long as %s, and took %s times\n",
				r.Kernel, r.Side, digits(r.Ratio.median()), base, digits(was.Ratio.median()))
		}
	}
	for _, r := range old.Results {
		if _, left := before[[2]string{r.Kernel, r.Side}]; left && r.Side != base {
			fmt.Fprintf(to, "not compared: %s, side %s, was not measured now\n", r.Kernel, r.Side)
		}
	}
	fmt.Fprintf(to, "%d ratios compared, %d of them more than %s times worse\n", compared, worse, digits(tolerance))
	return worse, compared
}
