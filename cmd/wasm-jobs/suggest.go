package main

import (
	"slices"

	"github.com/urfave/cli/v2"
	"github.com/xrash/smetrics"
)

// similar is the least similarity, by Jaro and Winkler, of a name that is suggested.
const similar = 0.75

// similarity returns how similar two names are, from 0 to 1. Short names with the same
// letters count as equal: the other measure finds nothing in common in "rnu" and "run".
func similarity(a, b string) float64 {
	if sortedLetters(a) == sortedLetters(b) {
		return 1
	}
	return smetrics.JaroWinkler(a, b, 0.7, 4)
}

func sortedLetters(s string) string {
	letters := []byte(s)
	slices.Sort(letters)
	return string(letters)
}

// nearest returns the name that is most similar to a word, or "" if none is similar.
func nearest(word string, names []string) string {
	best, found := similar, ""
	for _, name := range names {
		if s := similarity(word, name); s > best {
			best, found = s, name
		}
	}
	return found
}

// unknownCommand returns the error for a word that is not a command of words.
func unknownCommand(words, word string, commands []*cli.Command) error {
	names := []string{"help"}
	for _, c := range commands {
		names = append(names, c.Name)
	}
	of := ""
	if words != "wasm-jobs" {
		of = " of " + words[len("wasm-jobs "):]
	}
	if name := nearest(word, names); name != "" {
		return usageErrorf("unknown command %q%s; did you mean %q? %s --help lists all commands", word, of, name, words)
	}
	return usageErrorf("unknown command %q%s; %s --help lists all commands", word, of, words)
}

// unknownFlag returns the error for a flag that a verb does not have. typed has its
// dashes and no value.
func unknownFlag(words, typed, name string, known map[string]cli.Flag) error {
	names := []string{"help"}
	for name := range known {
		if len(name) > 1 || len(typed) == 2 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if len(typed) > 2 && typed[1] != '-' && known[typed[1:2]] != nil {
		return usageErrorf("unknown flag %s; did you mean %s %s?", typed, typed[:2], typed[2:])
	}
	if len(name) > 1 {
		if found := nearest(name, names); found != "" {
			return usageErrorf("unknown flag %s; did you mean %s?", typed, dashes(found))
		}
	}
	return usageErrorf("unknown flag %s; %s --help-all lists all flags", typed, words)
}
