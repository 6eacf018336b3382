// Top prints the most frequent words in a result of wordcount, which is a CBOR map
// from word to count.
//
//	go run ./guest-examples/wordcount/top [-n 20] FILE|-
package main

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/fxamacker/cbor/v2"
)

func main() { os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) }

func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("top", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() { fmt.Fprintln(stderr, "usage: top [-n 20] FILE|-") }
	n := flags.Int("n", 20, "")
	if flags.Parse(args) != nil {
		return 2
	}
	if flags.NArg() != 1 || *n < 0 {
		flags.Usage()
		return 2
	}
	words, err := read(flags.Arg(0), stdin)
	if err != nil {
		fmt.Fprintln(stderr, "top:", err)
		return 1
	}
	printTable(stdout, words[:min(*n, len(words))])
	return 0
}

type wordCount struct {
	word  string
	count uint64
}

// read returns the words of a result, the most frequent first.
func read(name string, stdin io.Reader) ([]wordCount, error) {
	b, err := readAll(name, stdin)
	if err != nil {
		return nil, err
	}
	decoding, err := cbor.DecOptions{MaxMapPairs: 1<<31 - 1}.DecMode()
	if err != nil {
		return nil, err
	}
	counts := map[string]uint64{}
	if err := decoding.Unmarshal(b, &counts); err != nil {
		return nil, fmt.Errorf("%s: invalid word count: %w", name, err)
	}
	words := make([]wordCount, 0, len(counts))
	for word, count := range counts {
		words = append(words, wordCount{word, count})
	}
	slices.SortFunc(words, func(a, b wordCount) int {
		return cmp.Or(cmp.Compare(b.count, a.count), cmp.Compare(a.word, b.word))
	})
	return words, nil
}

func readAll(name string, stdin io.Reader) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(name)
}

// printTable aligns the counts to the right. The first is the widest.
func printTable(out io.Writer, words []wordCount) {
	if len(words) == 0 {
		return
	}
	width := len(fmt.Sprint(words[0].count))
	for _, w := range words {
		fmt.Fprintf(out, "%*d  %s\n", width, w.count, w.word)
	}
}
