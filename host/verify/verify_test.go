package verify_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// squares is a job of n chunks with the ids 10, 11 and so on. The outputs are
// the squares of the chunks' numbers from 0, up to 23.
type squares struct {
	n        int
	fails    map[int]bool
	hosts    map[int]bool // fail because of the machine
	other    map[int]bool // give another output
	metering int
}

func (s squares) Len() int        { return s.n }
func (s squares) ID(i int) abi.ID { return abi.IntID(uint64(10 + i)) }

func (s squares) output(i int) []byte {
	if s.other[i] {
		return abi.Null
	}
	return abi.AppendHead(nil, abi.MajorUint, uint64(i*i))
}

// of returns the outputs of some chunks.
func (s squares) of(numbers []uint64) outputs.Seq {
	return func(yield func(outputs.Output, error) bool) {
		for _, i := range numbers {
			if !s.fails[int(i)] && !yield(outputs.Output{ID: s.ID(int(i)), Output: s.output(int(i))}, nil) {
				return
			}
		}
	}
}

func (s squares) numbers() (all []uint64) {
	for i := range s.n {
		all = append(all, uint64(i))
	}
	return all
}

// receipt returns the receipt of all chunks.
func (s squares) receipt() *receipt.Receipt {
	var tree merkle.Tree
	for i := range s.n {
		tree.AddEntry(s.ID(i), s.output(i))
	}
	return &receipt.Receipt{
		Version: receipt.Version, Chunks: uint64(s.n), Outputs: tree.Root(), Fuel: 7,
		Settings: receipt.Settings{Memory: runtime.DefaultMemory, Metering: true, NaNs: receipt.CanonicalNaNs}, Engine: s.engine(),
	}
}

func (s squares) engine() receipt.Engine {
	return receipt.Engine{ABI: 1, Metering: max(1, s.metering), Wazero: "v1"}
}

func (s squares) Some(_ context.Context, numbers []uint64) (*verify.Execution, error) {
	x := &verify.Execution{Executed: len(numbers), Engine: s.engine(), Outputs: func(context.Context) outputs.Seq { return s.of(numbers) }}
	for _, i := range numbers {
		if s.hosts[int(i)] {
			x.Failures = append(x.Failures, verify.Failure{ID: s.ID(int(i)), Failure: abi.Failf(abi.ClassHost, "no memory")})
		}
		if s.fails[int(i)] {
			x.Failures = append(x.Failures, verify.Failure{ID: s.ID(int(i)), Failure: abi.Failf(abi.ClassTrap, "unreachable")})
		}
	}
	return x, nil
}

func (s squares) All(ctx context.Context) (*verify.Execution, error) {
	x, err := s.Some(ctx, s.numbers())
	if len(x.Failures) == 0 {
		x.Receipt = s.receipt()
	}
	return x, err
}

// found returns the outputs as expected ones.
func (s squares) found(context.Context) (*verify.Expected, error) {
	return &verify.Expected{
		Name: "squares", Most: int64(s.n), Close: func() error { return nil },
		All: func(context.Context) outputs.Seq { return s.of(s.numbers()) },
	}, nil
}

func Example() {
	job := squares{n: 3}
	claimed := squares{n: 3, other: map[int]bool{1: true}} // by the maker of the receipt
	r := claimed.receipt()
	if err := (verify.Limits{}).Check(&r.Settings); err != nil {
		fmt.Println(err)
		return
	}
	result, err := verify.All(context.Background(), r, job, claimed.found)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Holds())
	for _, c := range result.Chunks.Listed {
		fmt.Println("chunk", c.ID, "was", c.A, "and is", c.B)
	}
	// Output:
	// false
	// chunk 11 was null and is 1
}

// says returns a result as one line.
func says(r *verify.Result) string {
	text := fmt.Sprintf("holds %t, executed %d, proved %d", r.Holds(), r.Executed, r.Proved)
	for _, d := range r.Differences {
		text += ", " + d.Field
	}
	for _, c := range r.Chunks.Listed {
		text += fmt.Sprintf(", chunk %v %s|%s", c.ID, c.A, c.B)
		if c.Failure != nil {
			text += "!"
		}
	}
	return text
}

func TestAll(t *testing.T) {
	good := squares{n: 3}
	for _, tt := range []struct {
		name     string
		of       squares // the job of the receipt
		run      squares
		expected verify.Finder
		against  bool
		want     string
		notes    []verify.NoteKind
	}{
		{"no chunks", squares{}, squares{}, nil, false, "holds true, executed 0, proved 0", nil},
		{"the same", good, good, nil, false, "holds true, executed 3, proved 0", nil},
		{"the same, each output", good, good, good.found, true, "holds true, executed 3, proved 0", nil},
		{"another, nothing is known", good, squares{n: 3, other: map[int]bool{2: true}}, nil, false, "holds false, executed 3, proved 0, outputs", []verify.NoteKind{verify.ChunksUnknown}},
		{"another", good, squares{n: 3, other: map[int]bool{2: true}}, good.found, false, "holds false, executed 3, proved 0, outputs, chunk 12 4|null", nil},
		{"a failure, nothing is known", good, squares{n: 3, fails: map[int]bool{1: true}}, nil, false, "holds false, executed 3, proved 0, chunk 11 |!", []verify.NoteKind{verify.ChunksUnknown}},
		{"a failure", good, squares{n: 3, fails: map[int]bool{1: true}}, good.found, false, "holds false, executed 3, proved 0, chunk 11 1|!", nil},
		{"a failure, and no output of it either", good, squares{n: 3, fails: map[int]bool{1: true}}, squares{n: 3, fails: map[int]bool{1: true}}.found, true,
			"holds false, executed 3, proved 0, chunk 11 |!", []verify.NoteKind{verify.OtherOutputs}},
		{"failures around a difference", good, squares{n: 3, fails: map[int]bool{0: true, 2: true}, other: map[int]bool{1: true}}, squares{n: 2}.found, true,
			"holds false, executed 3, proved 0, chunk 10 0|!, chunk 11 1|null, chunk 12 |!", []verify.NoteKind{verify.OtherOutputs}},
		{"failures that nothing is expected of, around a difference", good, squares{n: 3, fails: map[int]bool{0: true, 2: true}, other: map[int]bool{1: true}}, squares{n: 3, fails: map[int]bool{0: true, 2: true}}.found, true,
			"holds false, executed 3, proved 0, chunk 10 |!, chunk 11 1|null, chunk 12 |!", []verify.NoteKind{verify.OtherOutputs}},
		{"outputs of something else", good, good, squares{n: 2}.found, true, "holds false, executed 3, proved 0, chunk 12 |4", []verify.NoteKind{verify.OtherOutputs}},
		{"another metering", squares{n: 3, metering: 2}, good, nil, false, "holds true, executed 3, proved 0", []verify.NoteKind{verify.OtherEngine, verify.FuelNotCompared}},
	} {
		call := verify.All
		if tt.against {
			call = verify.Against
		}
		result, err := call(t.Context(), tt.of.receipt(), tt.run, tt.expected)
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := says(result); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		var kinds []verify.NoteKind
		for _, n := range result.Notes {
			kinds = append(kinds, n.Kind)
			if text := n.String(); text == "" || strings.Contains(text, "--") || strings.Contains(text, "\n") {
				t.Errorf("%s: note %q", tt.name, text)
			}
		}
		if fmt.Sprint(kinds) != fmt.Sprint(tt.notes) {
			t.Errorf("%s: notes %v, want %v", tt.name, kinds, tt.notes)
		}
	}
}

// A failure of the machine is neither a difference nor an agreement.
func TestHostFailure(t *testing.T) {
	good, broken := squares{n: 5}, squares{n: 5, hosts: map[int]bool{3: true}, fails: map[int]bool{1: true}}
	all := func(call func(context.Context, *receipt.Receipt, verify.Executor, verify.Finder) (*verify.Result, error)) (*verify.Result, error) {
		return call(t.Context(), good.receipt(), broken, good.found)
	}
	for name, call := range map[string]func() (*verify.Result, error){
		"all":     func() (*verify.Result, error) { return all(verify.All) },
		"against": func() (*verify.Result, error) { return all(verify.Against) },
		"some": func() (*verify.Result, error) {
			prover := verify.StartProver(t.Context(), good.receipt(), verify.Sample{Percent: 100}, good.found)
			defer prover.Close()
			return verify.Some(t.Context(), broken, broken, prover)
		},
	} {
		result, err := call()
		host, ok := errors.AsType[*verify.HostError](err)
		if result != nil || !ok || host.ID != good.ID(3) || !strings.Contains(err.Error(), "chunk 13 was not executed") {
			t.Errorf("%s: %+v, %v", name, result, err)
		}
	}
}

func TestSome(t *testing.T) {
	good := squares{n: 5}
	everything := verify.Sample{Percent: 100}
	seeded := uint64(1)
	for _, tt := range []struct {
		name     string
		of, run  squares
		sample   verify.Sample
		expected verify.Finder
		want     string
		notes    []verify.NoteKind
	}{
		{"all", good, good, everything, good.found, "holds true, executed 5, proved 5", []verify.NoteKind{verify.NotComputed}},
		{"some, known", good, good, verify.Sample{Count: 2}, good.found, "holds true, executed 2, proved 2", []verify.NoteKind{verify.NotComputed, verify.KnownSample}},
		{"some, seeded", good, good, verify.Sample{Count: 2, Seed: &seeded}, good.found, "holds true, executed 2, proved 2", []verify.NoteKind{verify.NotComputed}},
		{"another metering", squares{n: 5, metering: 2}, good, everything, good.found, "holds true, executed 5, proved 5", []verify.NoteKind{verify.NotComputed, verify.FuelNotCompared}},
		{"another output", good, squares{n: 5, other: map[int]bool{3: true}}, everything, good.found, "holds false, executed 5, proved 4, chunk 13 9|null", []verify.NoteKind{verify.NotComputed}},
		{"a failure", good, squares{n: 5, fails: map[int]bool{3: true}}, everything, good.found, "holds false, executed 5, proved 4, chunk 13 9|!", []verify.NoteKind{verify.NotComputed}},
		{"a failure, and no output of it either", good, squares{n: 5, fails: map[int]bool{3: true}}, everything, squares{n: 5, fails: map[int]bool{3: true}}.found,
			"holds false, executed 5, proved 0, outputs, chunk 13 |!", []verify.NoteKind{verify.NotComputed, verify.NothingProved}},
		{"too few outputs", good, good, everything, squares{n: 4}.found, "holds false, executed 5, proved 0, outputs, chunk 14 |16", []verify.NoteKind{verify.NotComputed, verify.NothingProved}},
	} {
		p := verify.StartProver(t.Context(), tt.of.receipt(), tt.sample, tt.expected)
		result, err := verify.Some(t.Context(), tt.run, tt.run, p)
		p.Close()
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		if got := says(result); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		var kinds []verify.NoteKind
		for _, n := range result.Notes {
			kinds = append(kinds, n.Kind)
		}
		if fmt.Sprint(kinds) != fmt.Sprint(tt.notes) {
			t.Errorf("%s: notes %v, want %v", tt.name, kinds, tt.notes)
		}
	}
}

func TestSomeWithoutOutputs(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		find verify.Finder
		want error
	}{
		{nil, verify.ErrNoOutputs},
		{func(context.Context) (*verify.Expected, error) { return nil, nil }, verify.ErrNoOutputs},
		{func(context.Context) (*verify.Expected, error) { return nil, broken }, broken},
	} {
		p := verify.StartProver(t.Context(), squares{n: 3}.receipt(), verify.Sample{Count: 1}, tt.find)
		if _, err := verify.Some(t.Context(), squares{n: 3}, squares{n: 3}, p); !errors.Is(err, tt.want) {
			t.Errorf("%v, want %v", err, tt.want)
		}
		p.Close()
	}
}

func TestLimits(t *testing.T) {
	for _, tt := range []struct {
		limits             verify.Limits
		metering           bool
		memory             uint64
		unmetered, tooMuch bool
	}{
		{verify.Limits{}, true, 1, false, false},
		{verify.Limits{}, true, runtime.DefaultMemory, false, false},
		{verify.Limits{}, true, runtime.DefaultMemory + 1, false, true},
		{verify.Limits{}, false, 1, true, false},
		{verify.Limits{Unmetered: true}, false, 1, false, false},
		{verify.Limits{Unmetered: true}, false, 1 << 62, false, true},
		{verify.Limits{Memory: 1 << 40}, true, 1 << 40, false, false},
		{verify.Limits{Memory: 10}, true, 11, false, true},
	} {
		err := tt.limits.Check(&receipt.Settings{Metering: tt.metering, Memory: tt.memory})
		_, tooMuch := errors.AsType[*verify.MemoryError](err)
		if errors.Is(err, verify.ErrUnmetered) != tt.unmetered || tooMuch != tt.tooMuch || (err != nil) != (tt.unmetered || tt.tooMuch) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestLimitOfStack(t *testing.T) {
	for _, tt := range []struct {
		limit, stack uint64
		metering, ok bool
	}{
		{0, 0, true, true},
		{0, runtime.DefaultStack - 8, true, true},
		{0, runtime.DefaultStack + 8, true, false},
		{1 << 20, 0, true, false},
		{1 << 20, 1 << 20, true, true},
		{runtime.MaxStack, runtime.DefaultStack + 8, true, true},
		{1 << 20, 0, false, true},
	} {
		limits := verify.Limits{Unmetered: true, Stack: tt.limit}
		err := limits.Check(&receipt.Settings{Metering: tt.metering, Memory: 1, Stack: tt.stack})
		if _, tooMuch := errors.AsType[*verify.StackError](err); tooMuch == tt.ok || (err == nil) != tt.ok {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestProve(t *testing.T) {
	job := squares{n: 5}
	expected, _ := job.found(t.Context())
	p, err := verify.Prove(t.Context(), expected, job.receipt(), abi.IntID(13))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Verify(job.receipt()); err != nil {
		t.Error(err)
	}
	if _, err := verify.Prove(t.Context(), expected, job.receipt(), abi.IntID(3)); !errors.Is(err, verify.ErrNoChunk) {
		t.Errorf("no such chunk: %v", err)
	}
	_, err = verify.Prove(t.Context(), expected, squares{n: 4}.receipt(), abi.IntID(13))
	if _, ok := errors.AsType[*verify.OutputsError](err); !ok {
		t.Errorf("other outputs: %v", err)
	}
}

func TestDiff(t *testing.T) {
	operand := func(s *squares, fields ...string) *verify.Operand {
		o := &verify.Operand{Fields: map[string]string{}}
		for i := 0; i < len(fields); i += 2 {
			o.Fields[fields[i]] = fields[i+1]
		}
		if s != nil {
			o.Expected, _ = s.found(t.Context())
		}
		return o
	}
	a, b := &squares{n: 3}, &squares{n: 2}
	for _, tt := range []struct {
		name string
		a, b *verify.Operand
		want string
	}{
		{"nothing in common", operand(nil, "fuel", "1"), operand(nil, "chunks", "1"), "nothing in common that could be compared"},
		{"fields", operand(nil, "fuel", "1", "chunks", "2"), operand(nil, "fuel", "1", "chunks", "3"), "false [chunks fuel] 1 0"},
		{"outputs", operand(a), operand(b), "false [each output] 0 1"},
		{"the same outputs", operand(a), operand(a), "true [each output] 0 0"},
		{"outputs and a receipt", operand(a), operand(nil, "outputs", receipt.Digest(a.receipt().Outputs).String(), "chunks", "3"), "true [chunks outputs] 0 0"},
	} {
		got := ""
		c, err := verify.Diff(t.Context(), tt.a, tt.b)
		if err != nil {
			got = err.Error()
		} else {
			got = fmt.Sprintln(c.Same(), c.Compared, len(c.Differences), c.Chunks.Count)
		}
		if strings.TrimSpace(got) != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

func seed(n uint64) *uint64 { return &n }

func TestSample(t *testing.T) {
	b, err := os.ReadFile("../../testdata/receipts/square.receipt.json")
	if err != nil {
		t.Fatal(err)
	}
	r, err := receipt.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	draw := func(s verify.Sample, total int) []uint64 {
		t.Helper()
		indices, err := s.Numbers(total, r)
		if err != nil {
			t.Fatal(err)
		}
		for i, index := range indices {
			if index >= uint64(total) || i > 0 && indices[i-1] >= index {
				t.Fatalf("%+v of %d: %v", s, total, indices)
			}
		}
		return indices
	}
	for _, test := range []struct {
		sample      verify.Sample
		total, want int
	}{
		{verify.Sample{}, 0, 0}, {verify.Sample{Count: 5}, 0, 0}, {verify.Sample{Count: 5}, 3, 3}, {verify.Sample{Count: 0}, 3, 0}, {verify.Sample{Count: 100}, 1000, 100},
		{verify.Sample{Percent: 1}, 1_000_000, 10_000}, {verify.Sample{Percent: 1}, 7, 1}, {verify.Sample{Percent: 0}, 7, 0},
		{verify.Sample{Percent: 100}, 7, 7}, {verify.Sample{Percent: 1}, 0, 0},
	} {
		if got := draw(test.sample, test.total); len(got) != test.want {
			t.Errorf("%+v of %d: %d chunks, want %d", test.sample, test.total, len(got), test.want)
		}
	}
	first := fmt.Sprint(draw(verify.Sample{Count: 20}, 1000))
	if fmt.Sprint(draw(verify.Sample{Count: 20}, 1000)) != first {
		t.Error("the same receipt gives two samples")
	}
	seeded := fmt.Sprint(draw(verify.Sample{Count: 20, Seed: seed(1)}, 1000))
	if seeded == first || fmt.Sprint(draw(verify.Sample{Count: 20, Seed: seed(2)}, 1000)) == seeded {
		t.Error("another seed gives the same sample")
	}
	r.Outputs[0] ^= 1
	if fmt.Sprint(draw(verify.Sample{Count: 20}, 1000)) == first {
		t.Error("another receipt gives the same sample")
	}
	hits := make([]int, 10)
	for n := range uint64(1000) {
		for _, i := range draw(verify.Sample{Count: 3, Seed: seed(n)}, 10) {
			hits[i]++
		}
	}
	for i, n := range hits { // 300 on average; these seeds are always the same
		if n < 230 || n > 370 {
			t.Errorf("chunk %d is in %d of 1000 samples of 3 of 10", i, n)
		}
	}
}
