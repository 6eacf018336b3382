package main

import (
	"fmt"

	"github.com/dustin/go-humanize/english"
)

// plural returns a number with its noun, such as "1 chunk" or "2 chunks".
func plural[T int | int64 | uint64](n T, noun string) string {
	return fmt.Sprintf("%d %s", n, english.PluralWord(int(n), noun, ""))
}

// intact returns how many outputs a check found intact, and how many it dropped.
func intact(outputs, damaged int, word string) string {
	return fmt.Sprintf("%s %s %s, %d %s damaged and dropped", plural(outputs, "output"), english.PluralWord(outputs, "is", "are"), word,
		damaged, english.PluralWord(damaged, "was", "were"))
}
