package main

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/packed"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/store"
)

func flowVerifyCommand(c *console) *cli.Command {
	flags := slices.DeleteFunc(flowRunFlags(), func(flag cli.Flag) bool {
		return !slices.Contains([]string{
			"stack", "context", "seed", "retries", "retry-on", "retry-deterministic", "backoff", "backoff-max", "max-requeues", "log-level",
			"workers", "timeout", "fold-timeout", "fuel", "memory", "max-output", "max-aggregate", "max-chunk", "id-key", "chunk-format", "limit", "range", "ids",
			"store", "no-store", "grace", "progress", "live", "max-items", "max-steps", "max-depth", "format", "max-failures", "fail-fast",
		}, nameOf(flag)) && !slices.Contains(sourceFlagNames(), nameOf(flag))
	})
	return &cli.Command{
		Name: "verify", Usage: "execute a flow again, and compare with its receipt",
		UsageText: `wasm-jobs flow verify [flags] RECEIPT FILE [CHUNKS]

No effect is made: --effects has their results. All steps are executed, or with
--sample a share of the steps in the store, and all steps that are missing there.

Exit codes:
   0    all agrees
   2    the receipt is of another definition, input or setting
   5    the results differ`,
		ArgsUsage: "RECEIPT FILE [CHUNKS]",
		Flags: append(flags,
			&cli.StringFlag{Name: "effects", Usage: "take the results of effects from `FILE`, as flow run --effects writes it"},
			&cli.StringFlag{Name: "engine", Value: "compiler", Usage: "compiler or interpreter (they share no code generator)"},
			&cli.StringFlag{Name: "sample", Usage: "execute `P%` of the steps again"}, jsonFlag()),
		Action: func(ctx *cli.Context) error { return verifyFlow(ctx, c) },
	}
}

// verifiedFlow is the output of verify --json.
type verifiedFlow struct {
	Verdict string   `json:"verdict"` // agrees, differs or other
	Fields  []string `json:"fields"`
	Items   int      `json:"items"`
	Steps   int      `json:"checked"`
}

func verifyFlow(ctx *cli.Context, c *console) error {
	o, r, err := parseFlowVerify(ctx)
	if err != nil {
		return err
	}
	share, err := parseShare(ctx.String("sample"))
	if err != nil {
		return err
	}
	engine, err := parseEngine(ctx, "engine")
	if err != nil {
		return err
	}
	again, err := o.runAgain(ctx.Context, c, share, engine)
	if err != nil {
		return err
	}
	v := verifiedFlow{Verdict: "agrees", Fields: []string{}, Items: again.Report.Items.Total, Steps: executedSteps(&again.Report)}
	if again.Receipt == nil {
		v.Verdict, v.Fields = "differs", []string{fmt.Sprintf("%s failed", plural(again.Report.Items.Failed, "item"))}
	} else if other, rest := r.Differences(again.Receipt); len(other) > 0 {
		v.Verdict, v.Fields = "other", other
	} else if len(rest) > 0 {
		v.Verdict, v.Fields = "differs", rest
	}
	return v.tell(c, ctx.Bool("json"))
}

func executedSteps(r *flow.Report) (n int) {
	for i := range r.States {
		n += r.States[i].Attempts
	}
	return n
}

func (v *verifiedFlow) tell(c *console, asJSON bool) error {
	if asJSON {
		if err := writeJSON(c.out, v); err != nil {
			return outputError(err)
		}
	}
	switch v.Verdict {
	case "other":
		return usageErrorf("the receipt is of another run: it has another %s", strings.Join(v.Fields, ", "))
	case "differs":
		return &exitError{exitDiffers, fmt.Errorf("the repeated run differs from the receipt: %s", strings.Join(v.Fields, ", "))}
	}
	if asJSON {
		return nil
	}
	_, err := fmt.Fprintf(c.out, "the receipt holds: %s, %s executed again\n", plural(v.Items, "item"), plural(v.Steps, "step"))
	return outputError(err)
}

func parseFlowVerify(ctx *cli.Context) (*flowOptions, *flow.Receipt, error) {
	if ctx.NArg() < 2 || ctx.NArg() > 3 {
		return nil, nil, usageErrorf("flow verify takes RECEIPT, FILE and optional CHUNKS, got %s", plural(ctx.NArg(), "argument"))
	}
	r, err := readFlowReceipt(ctx.Args().First())
	if err != nil {
		return nil, nil, err
	}
	o := &flowOptions{file: ctx.Args().Get(1), live: ctx.Int("live"), allow: []string{"http", "command"}, replay: ctx.String("effects"), given: true}
	if o.source, err = parseSource(ctx); err != nil {
		return nil, nil, err
	}
	if o.chunks = ctx.Args().Get(2); o.source != nil && o.chunks != "" {
		return nil, nil, usageErrorf("flow verify takes RECEIPT, FILE and --%s, or RECEIPT, FILE and CHUNKS", o.source.kind)
	}
	return o, r, errors.Join(o.parseBounds(ctx, func(string) bool { return true }), o.parseShared(ctx), o.parseRoots(ctx))
}

func readFlowReceipt(path string) (*flow.Receipt, error) {
	b, err := readBounded(path, receipt.MaxSize, "a receipt")
	if err != nil {
		return nil, err
	}
	return parseFlowReceipt(path, b)
}

func parseFlowReceipt(path string, b []byte) (*flow.Receipt, error) {
	r, err := flow.ParseReceipt(b)
	if err != nil {
		return nil, usageErrorf("%s: %w", path, err)
	}
	return r, nil
}

// parseShare reads P%; "" is all.
func parseShare(s string) (float64, error) {
	if s == "" {
		return 1, nil
	}
	number, isShare := strings.CutSuffix(s, "%")
	percent, err := strconv.ParseFloat(number, 64)
	if !isShare || err != nil || percent <= 0 || percent > 100 {
		return 0, usageErrorf("invalid --sample %q: want a share above 0%% and up to 100%%", s)
	}
	return percent / 100, nil
}

// runAgain executes a share of the steps again, and keeps outputs in a new store.
func (o *flowOptions) runAgain(ctx context.Context, c *console, share float64, engineName string) (*flow.Result, error) {
	d, err := o.definition()
	if err != nil {
		return nil, err
	}
	engine, err := openEngine(ctx, engineName)
	if err != nil {
		return nil, err
	}
	defer engine.Close(context.WithoutCancel(ctx))
	f, _, err := bind(ctx, engine, d, o.settings, o.effectsOf(d))
	if err != nil {
		return nil, err
	}
	input, err := o.openInput(ctx, c)
	if err != nil {
		return nil, err
	}
	defer input.Close()
	screen := newFlowScreen(c, o.progress)
	defer screen.close()
	sampled := &flow.Sampled{Memory: store.NewMemory(), Again: sample(share)}
	if share < 1 {
		s, err := o.openFlowStore(ctx, screen, &droppedRecords{})
		if err != nil {
			return nil, &exitError{exitStore, err}
		}
		if s != nil {
			defer s.Close()
			sampled.Of = s
		}
	}
	defer sampled.Close()
	run := o.run(f, input, screen)
	run.Stop = ctx.Done()
	failed := &hostFailures{}
	run.Sink = failed
	if run.Given, err = o.readGiven(ctx); err != nil {
		return nil, err
	}
	c.signals.Drain()
	res, err := flow.NewRunner(flow.Config{Workers: o.workers, Store: sampled}).Run(c.signals.Hard, run)
	return res, cmp.Or(err, failed.first)
}

// hostFailures keeps the first failure of this machine, which tells nothing about a
// receipt.
type hostFailures struct{ first error }

// Ended implements [flow.Sink].
func (*hostFailures) Ended(*flow.End) error { return nil }

// Dead implements [flow.Sink].
func (h *hostFailures) Dead(d *flow.Dead) error {
	if d.Class == abi.ClassHost && h.first == nil {
		h.first = &exitError{exitStore, fmt.Errorf("item %s was not executed, so the receipt is neither confirmed nor refuted: %s: %s", idString(d.ID), d.Class, d.Message)}
	}
	return nil
}

// sample chooses a share of the steps, by the digests of their data.
func sample(share float64) func(store.Digest) bool {
	return func(chunk store.Digest) bool {
		sum := sha256.Sum256(chunk[:])
		return float64(binary.BigEndian.Uint32(sum[:4])) < share*math.MaxUint32
	}
}

// readGiven reads the results of effects that replace making them.
func (o *flowOptions) readGiven(ctx context.Context) (*flow.GivenEffects, error) {
	if !o.given {
		return nil, nil
	}
	if o.replay == "" {
		return flow.ReadEffects(func(func([]byte, error) bool) {})
	}
	file, err := os.Open(o.replay)
	if err != nil {
		return nil, usageErrorf("%w", err)
	}
	defer file.Close()
	in := packed.NewReader(file)
	defer in.Close()
	g, err := flow.ReadEffects(func(yield func([]byte, error) bool) {
		for chunk, err := range chunks.Stream(ctx, in, chunks.Options{Name: o.replay, NoIDKey: true, Format: chunks.Sequence}) {
			if !yield(chunk.Bytes, err) {
				return
			}
		}
	})
	if err != nil {
		return nil, usageErrorf("%s: %w", o.replay, err)
	}
	return g, nil
}

func flowProveCommand(c *console) *cli.Command {
	return &cli.Command{
		Name: "prove", Usage: "prove the path of one item, from its root to its end",
		UsageText: "wasm-jobs flow prove [-o FILE] RECEIPT ITEM\n\nThe run must be in the store. wasm-jobs verify-proof checks the proof with the\nreceipt, and needs nothing else. Exit code 1 if there is no such item.",
		ArgsUsage: "RECEIPT ITEM",
		Flags:     []cli.Flag{storeFlag(), &cli.StringFlag{Name: "output", Aliases: []string{"o"}, Usage: "write the proof to `FILE`"}},
		Action: func(ctx *cli.Context) error {
			if ctx.NArg() != 2 {
				return usageErrorf("flow prove takes RECEIPT and ITEM, got %s", plural(ctx.NArg(), "argument"))
			}
			return proveFlow(ctx, c)
		},
	}
}

func proveFlow(ctx *cli.Context, c *console) (err error) {
	r, err := readFlowReceipt(ctx.Args().First())
	if err != nil {
		return err
	}
	s, err := records(ctx, c)
	if err != nil {
		return err
	}
	var found *flowRecord
	if s != nil {
		defer func() { err = errors.Join(err, storeError(s.Close())) }()
		err = flowRuns(ctx.Context, s, func(f *flowRecord) (bool, error) {
			if report := flow.ReportOf(f.last()); report != nil && report.Digests.Flow == r.Flow.String() && report.Digests.Input == r.Input.String() {
				found = f
			}
			return found == nil, nil
		})
		if err != nil {
			return err
		}
	}
	if found == nil {
		return usageErrorf("the store has no run of this receipt")
	}
	return found.prove(ctx, c, r)
}

func (f *flowRecord) prove(ctx *cli.Context, c *console, r *flow.Receipt) error {
	id := ctx.Args().Get(1)
	look, closeInput, err := f.look(ctx.Context, c)
	if err != nil {
		return err
	}
	defer closeInput()
	p, err := look.Prove(ctx.Context, id, r)
	switch {
	case errors.Is(err, flow.ErrNoItem):
		return &exitError{exitFailed, fmt.Errorf("%w: %s", err, id)}
	case err != nil:
		return &exitError{exitStore, err}
	}
	b, err := p.Marshal()
	if err != nil {
		return err
	}
	to := atomicfile.To(c.out)
	if path := ctx.String("output"); path != "" && path != "-" {
		if to, err = atomicfile.Create(path); err != nil {
			return usageErrorf("%s cannot be written: %s", path, withoutPath(err))
		}
	}
	defer to.Discard()
	return outputError(to.Write(func(w *bufio.Writer) error {
		_, err := w.Write(b)
		return err
	}))
}

// verifyFlowProof checks a proof of an item of a flow.
func verifyFlowProof(c *console, receiptPath string, of []byte, proofPath string, asJSON bool) error {
	r, err := parseFlowReceipt(receiptPath, of)
	if err != nil {
		return err
	}
	p, err := readProof(proofPath, flow.ParseProof)
	if err != nil {
		return err
	}
	return tellProof(c, p.ID, p.Verify(r), asJSON, func() string {
		return fmt.Sprintf("item %s took %s, with those that it descends from, to %s", idString(p.ID), plural(len(p.Steps), "step"), p.End.State)
	})
}
