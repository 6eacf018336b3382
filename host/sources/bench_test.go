package sources_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func drain(b *testing.B, content []byte, of func(sources.Input) sources.Source) {
	b.SetBytes(int64(len(content)))
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range of(sources.Input{Name: "in", Reader: bytes.NewReader(content)}) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func rows(format string) (content []byte) {
	for i := range 10_000 {
		content = fmt.Appendf(content, format, i, i, float64(i)/7)
	}
	return content
}

func BenchmarkJSONLines(b *testing.B) {
	drain(b, rows(`{"id":%d,"name":"name of %d","tags":["a","b"],"value":%v}`+"\n"), sources.JSONLines)
}

func BenchmarkCSV(b *testing.B) {
	drain(b, append([]byte("id,name,value\n"), rows("%d,name of %d,%v\n")...), func(in sources.Input) sources.Source { return sources.CSV(in, sources.CSVOptions{}) })
}

func BenchmarkLines(b *testing.B) {
	drain(b, rows("line %d of some words: %d, %v\n"), func(in sources.Input) sources.Source { return sources.Lines(in, sources.LinesOptions{}) })
}
