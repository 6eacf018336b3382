package check_test

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
)

// Check a guest that counts its calls. A job prevents the effect, but the check
// finds it.
func ExampleRun() {
	wasm, err := os.ReadFile("../../../testdata/wasm/counter.wasm")
	if err != nil {
		log.Fatal(err)
	}
	report, err := check.Run(context.Background(), wasm, check.Options{})
	if err != nil {
		log.Fatal(err)
	}
	for _, p := range report.Probes[:3] {
		fmt.Printf("%s: %d of %d calls differ\n", p.Name, p.Count, p.Calls)
	}
	for _, f := range report.Found {
		fmt.Printf("%s: without fresh state, %d calls differ\n", f.Kind, f.Probe.Count)
	}
	fmt.Println("as it should be:", report.OK())
	// Output:
	// the same again: 0 of 20 calls differ
	// in reverse order: 0 of 20 calls differ
	// in another order: 0 of 20 calls differ
	// it leaves state behind: without fresh state, 19 calls differ
	// as it should be: true
}
