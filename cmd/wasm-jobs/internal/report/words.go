package report

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
)

// cut returns at most n bytes of a text, and marks that there was more.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "..."
}

// cutAll cuts each text.
func cutAll(all []string, n int) (out []string) {
	for _, s := range all {
		out = append(out, cut(s, n))
	}
	return out
}

// cutList cuts a list after a whole element.
func cutList(s string) string {
	if len(s) > maxIDs {
		s = s[:maxIDs]
		s = s[:max(strings.LastIndexByte(s, ','), 0)]
	}
	return s + ",..."
}

// count returns a number with separators.
func count[N int | int64 | uint64](n N) string {
	if uint64(n) > math.MaxInt64 {
		return strconv.FormatUint(uint64(n), 10)
	}
	return humanize.Comma(int64(n))
}

// size returns a number of bytes.
func size(n uint64) string { return humanize.IBytes(n) }

// nanos returns a duration with three or four digits.
func nanos(n uint64) string {
	d := time.Duration(min(n, math.MaxInt64))
	for unit := time.Nanosecond; unit < time.Hour; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return d.Round(time.Minute).String()
}

// seconds returns a duration.
func seconds(s float64) string { return nanos(uint64(max(s, 0) * 1e9)) }

// percent returns a share of a whole.
func percent(part, whole float64) string {
	if whole <= 0 {
		return "0 %"
	}
	return fmt.Sprintf("%.1f %%", 100*part/whole)
}
