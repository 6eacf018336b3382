package guestexamples_test

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func TestWordcountC(t *testing.T) { testWordcount(t, loadFile(t, "wordcount/c/wordcount.wasm")) }
func TestWordcountRust(t *testing.T) {
	testWordcount(t, loadFile(t, "wordcount/rust/wordcount.wasm"))
}
func TestWordcountAssemblyScript(t *testing.T) {
	testWordcount(t, loadFile(t, "wordcount/assemblyscript/wordcount.wasm"))
}
func TestWordcountZig(t *testing.T) {
	testWordcount(t, loadFile(t, "wordcount/zig/wordcount.wasm"))
}
func TestWordcountGo(t *testing.T) { testWordcount(t, goGuest(t, "wordcount")) }

var word = regexp.MustCompile(`[0-9A-Za-z]+`)

// countWords gives the expected result of the guests.
func countWords(text []byte) map[string]uint64 {
	counts := map[string]uint64{}
	for _, w := range word.FindAll(text, -1) {
		counts[strings.ToLower(string(w))]++
	}
	return counts
}

func testWordcount(t *testing.T, g *guest) {
	texts := [][]byte{
		nil, []byte(" "), []byte("one"), []byte("One fish, TWO fish; red_fish 2 fish!"), []byte("ä\xffb\x00c"),
		[]byte(strings.Repeat("x", 23) + " " + strings.Repeat("x", 24) + " " + strings.Repeat("Y", 300) + " a"),
		[]byte(strings.Repeat("0", 308) + " " + strings.Repeat("2", 255) + " " + strings.Repeat("1", 256) + " " + strings.Repeat("3", 254)),
		bytes.Repeat([]byte("the Same word "), 2_000), manyWords(20_000),
	}
	for _, name := range []string{"guests_test.go", "wordcount/c/wordcount.c", "../sdk/c/wasm_jobs.h"} {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, text)
	}
	total := map[string]uint64{}
	var outputs [][]byte
	for i, text := range texts {
		counts := countWords(text)
		for w, n := range counts {
			total[w] += n
		}
		want := encode(t, counts)
		for form, chunk := range map[string][]byte{
			"bytes": encode(t, text[:len(text):len(text)]),
			"map":   encode(t, map[string]any{"id": i, "text": append([]byte{}, text...)}),
			"text":  append(abi.AppendHead(nil, abi.MajorText, uint64(len(text))), text...),
			"parts": append(append(append([]byte{0x7f}, part(text[:len(text)/2])...), part(text[len(text)/2:])...), 0xff),
		} {
			if form == "bytes" && text == nil {
				continue // null
			}
			if got := g.must(t, abi.ExportExec, chunk); !bytes.Equal(got, want) {
				t.Errorf("text %d as %s: got %d bytes, want %d", i, form, len(got), len(want))
			}
		}
		outputs = append(outputs, want)
	}
	half := len(outputs) / 2
	whole := g.must(t, abi.ExportAggregate, entries(outputs...))
	merged := g.must(t, abi.ExportMerge, array(g.must(t, abi.ExportAggregate, entries(outputs[:half]...)),
		g.must(t, abi.ExportAggregate, entries()), g.must(t, abi.ExportAggregate, entries(outputs[half:]...))))
	if want := encode(t, total); !bytes.Equal(whole, want) || !bytes.Equal(merged, want) {
		t.Errorf("aggregate of %d bytes, merge of %d, want %d", len(whole), len(merged), len(want))
	}
	for _, chunk := range []string{"01", "f6", "a0", "a1 6474657874 01", "81 6161", "a2 6474657874 6161 6474657874 6162"} {
		if _, err := g.run(t.Context(), &call{}, abi.ExportExec, unhex(t, chunk)); err != (failure{abi.FailPermanent, "no text"}) {
			t.Errorf("%s: %v", chunk, err)
		}
	}
	most := abi.AppendHead(unhex(t, "a1 6161"), abi.MajorUint, 1<<64-1)
	if _, err := g.run(t.Context(), &call{}, abi.ExportMerge, array(most, unhex(t, "a1 6161 01"))); err != (failure{abi.FailPermanent, "overflow"}) {
		t.Errorf("2^64 words: %v", err)
	}
}

func part(text []byte) []byte {
	return append(abi.AppendHead(nil, abi.MajorText, uint64(len(text))), text...)
}

// manyWords returns a text of n different words.
func manyWords(n int) []byte {
	var b []byte
	for i := range n {
		b = fmt.Appendf(b, "w%x\n", i*i)
	}
	return b
}
