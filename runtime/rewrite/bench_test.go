package rewrite_test

import (
	"os"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// BenchmarkRewrite measures rewriting itself, on the file named by
// REWRITE_MODULE, or on the kernels.
func BenchmarkRewrite(b *testing.B) {
	wasm := kernelsWasm
	if path := os.Getenv("REWRITE_MODULE"); path != "" {
		var err error
		if wasm, err = os.ReadFile(path); err != nil {
			b.Fatal(err)
		}
	}
	m, problems := binary.Parse(wasm)
	if len(problems) > 0 {
		b.Fatal(problems)
	}
	b.SetBytes(int64(len(wasm)))
	b.ReportAllocs()
	for b.Loop() {
		r, err := rewrite.Rewrite(wasm, m, rewrite.Options{Metering: true})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(float64(len(r.Wasm))/float64(len(wasm)), "size/size")
	}
}
