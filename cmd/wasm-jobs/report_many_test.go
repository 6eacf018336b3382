//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// pageNumber is a number on the page of a report, with its place in the JSON.
type pageNumber struct{ Value, At, Shown string }

// TestReportOfMany opens the report of a job with failures and very many chunks (with
// -scale, as many as -scale-chunks) from a file, in two widths, light and dark. Each number
// on the page is the one of the JSON. It logs the time and memory that the page takes.
func TestReportOfMany(t *testing.T) {
	n := 20_000
	if *scale {
		n = *scaleChunks
	}
	b := openBrowser(t)
	dir := t.TempDir()
	page, data := filepath.Join(dir, "report.html"), filepath.Join(dir, "report.json")
	out, err := command("run", faultyWasm, "--range-of", fmt.Sprintf("0-%d", n-1), "--no-store", "--retries", "0", "--progress", "none", "--report", page, "--report", data).CombinedOutput()
	if err == nil {
		t.Fatalf("no chunk failed: %.1000s", out)
	}
	stat, err := os.Stat(page)
	if err != nil {
		t.Fatalf("%v; run said %.2000s", err, out)
	}
	if stat.Size() >= 1<<20 {
		t.Errorf("the page has %d bytes, want less than 1 MiB", stat.Size())
	}
	numbers := readNumbers(t, data)
	empty := b.memory()
	for _, colours := range []string{"light", "dark"} {
		for _, width := range []int{1280, 400} {
			b.look(width, colours)
			b.open("file://" + page)
			took := b.eval("Math.round(performance.getEntriesByType('navigation')[0].duration)")
			memory := b.memory()
			t.Logf("%d chunks, a page of %d bytes, %s, %d pixels: loaded in %s ms; the renderers have %d MiB, and %d with an empty page", n, stat.Size(), colours, width, took, memory>>20, empty>>20)
			if memory-empty > 100<<20 {
				t.Errorf("the page takes %d MiB, want at most 100", (memory-empty)>>20)
			}
			if b.eval("document.documentElement.scrollWidth > innerWidth") != "false" {
				t.Errorf("%s, %d pixels: the page is wider than the window", colours, width)
			}
			checkNumbers(t, b, numbers)
			b.shot(fmt.Sprintf("many-%s-%d", colours, width))
		}
	}
	b.quiet()
}

// readNumbers reads a document of JSON.
func readNumbers(t *testing.T, path string) (root any) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := json.NewDecoder(f)
	d.UseNumber()
	if err := d.Decode(&root); err != nil {
		t.Fatal(err)
	}
	return root
}

// checkNumbers compares the numbers on a page with those of the JSON.
func checkNumbers(t *testing.T, b *browser, root any) {
	t.Helper()
	var shown []pageNumber
	text := b.eval(`JSON.stringify([...document.querySelectorAll('data')].map(e => ({Value: e.value, At: e.dataset.at, Shown: e.innerText})))`)
	if err := json.Unmarshal([]byte(text), &shown); err != nil || len(shown) < 200 {
		t.Fatalf("%d numbers on the page, %v", len(shown), err)
	}
	for _, n := range shown {
		if want := numberAt(root, n.At); want != n.Value || n.Shown == "" {
			t.Errorf("%s: the page has %s, shown as %q; the JSON has %s", n.At, n.Value, n.Shown, want)
		}
	}
}

// numberAt returns the number in a document at keys and indexes that dots join.
func numberAt(v any, path string) string {
	for key := range strings.SplitSeq(path, ".") {
		switch of := v.(type) {
		case map[string]any:
			v = of[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(of) {
				return "nothing"
			}
			v = of[i]
		}
	}
	return fmt.Sprint(v)
}
