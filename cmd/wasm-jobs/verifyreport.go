package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
)

// verification is the result of verify, as JSON.
type verification struct {
	Holds    bool   `json:"holds"`
	Verdict  string `json:"verdict"` // holds or differs
	Engine   string `json:"engine"`
	Chunks   uint64 `json:"chunks"`
	Checked  int    `json:"checked"` // chunks executed and compared
	Sample   bool   `json:"sample"`
	Executed int    `json:"executed"`
	Proved   int    `json:"proved"`            // outputs of the sample that the receipt's tree has
	Outputs  string `json:"outputs,omitempty"` // name of the outputs that were compared
	// Differences are fields whose value A of the receipt differs from B, the value found.
	Differences []receipt.Difference `json:"differences"`
	verify.ChunkDifferences
	Notes []string `json:"notes"`
	// Outputs for a sample are hashed in parallel, from the start.
	Seconds struct {
		Scan    float64 `json:"scan"`
		Execute float64 `json:"execute"` // chunks, and their fold if all are executed
		Compare float64 `json:"compare"` // the part of comparing that is left after execution
	} `json:"seconds"`
}

// printChunks prints the chunks whose outputs in a and b differ.
func printChunks(w io.Writer, d *verify.ChunkDifferences, a, b string) {
	or := func(s, none string) string {
		if s == "" {
			return none
		}
		return s
	}
	for _, x := range d.Listed {
		where := ""
		if x.Offset != nil && *x.Offset > 0 {
			where = fmt.Sprintf(" (from byte %d)", *x.Offset)
		}
		found := or(x.B, "no output")
		if x.Failure != nil {
			found = "failed: " + errorLine(x.Failure)
		}
		fmt.Fprintf(w, "chunk %v differs%s\n  %s: %s\n  %s: %s\n", x.ID, where, a, or(x.A, "no output"), b, found)
	}
	if more := d.Count - len(d.Listed); more > 0 {
		fmt.Fprintf(w, "and %d more chunks differ\n", more)
	}
}

// conclude prints the result, and returns an error if the receipt does not hold.
func (v *verifier) conclude(result *verify.Result, scanned time.Duration) error {
	var err error
	if v.json {
		err = writeJSON(v.c.out, v.asJSON(result, scanned))
	} else {
		err = v.print(result)
	}
	if err != nil {
		return outputError(err)
	}
	if result.Holds() {
		return nil
	}
	var what []string
	for _, d := range result.Differences {
		what = append(what, d.Field)
	}
	if result.Chunks.Count > 0 {
		what = append(what, plural(result.Chunks.Count, "chunk"))
	}
	if n := result.Executed - result.Proved; len(what) == 0 {
		verb := "are"
		if n == 1 {
			verb = "is"
		}
		return &exitError{exitDiffers, fmt.Errorf("the receipt does not hold: %s %s not proved", plural(n, "output"), verb)}
	}
	return &exitError{exitDiffers, fmt.Errorf("the receipt does not hold: different %s", strings.Join(what, ", "))}
}

func (v *verifier) asJSON(result *verify.Result, scanned time.Duration) *verification {
	f := &verification{
		Holds: result.Holds(), Verdict: "differs", Engine: v.engine, Chunks: v.receipt.Chunks, Checked: result.Executed, Sample: v.sampled,
		Executed: result.Executed, Proved: result.Proved, Outputs: result.Outputs, Differences: result.Differences, ChunkDifferences: result.Chunks, Notes: []string{},
	}
	if f.Holds {
		f.Verdict = "holds"
	}
	for _, n := range result.Notes {
		f.Notes = append(f.Notes, noteText(n))
	}
	f.Seconds.Scan, f.Seconds.Execute, f.Seconds.Compare = scanned.Seconds(), result.Execute.Seconds(), result.Compare.Seconds()
	return f
}

// noteText returns the text of a note, with the flags that help.
func noteText(n verify.Note) string {
	switch n.Kind {
	case verify.ChunksUnknown:
		return "--outputs FILE, or the --store DIR of the run, shows which chunks differ"
	case verify.KnownSample:
		return n.String() + "; --sample-seed N, with your own number, selects others"
	}
	return n.String()
}

func (v *verifier) print(result *verify.Result) error {
	w := new(strings.Builder)
	if result.Holds() {
		fmt.Fprintf(w, "the receipt holds: %s\n", v.verdict(result))
	}
	for _, d := range result.Differences {
		or := func(s string) string {
			if s == "" {
				return "none"
			}
			return s
		}
		fmt.Fprintf(w, "%s differs\n  receipt: %s\n  found: %s\n", d.Field, or(d.A), or(d.B))
	}
	printChunks(w, &result.Chunks, "claimed", "executed")
	for _, n := range result.Notes {
		fmt.Fprintf(w, "note: %s\n", noteText(n))
	}
	_, err := io.WriteString(v.c.out, w.String())
	return err
}

// verdict says why the receipt holds, and which parts were not checked.
func (v *verifier) verdict(result *verify.Result) string {
	text := fmt.Sprintf("%s executed again (%s), with the same outputs and result", plural(result.Executed, "chunk"), v.engine)
	if result.Sample {
		text = fmt.Sprintf("%d of %s executed again (%s), each output proved to be in it", result.Executed, plural(v.receipt.Chunks, "chunk"), v.engine)
	}
	if result.Noted(verify.KnownSample) {
		text += "; its maker could know which"
	}
	if result.Noted(verify.FuelNotCompared) {
		text += "; its fuel was not compared"
	}
	return text
}
