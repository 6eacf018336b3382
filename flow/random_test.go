package flow

import (
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/queue"
	"github.com/wasm-jobs/wasm-jobs/store"
)

// generated is a random flow. Its states decide by the digest of the state and the
// data, so that decisions are functions of both.
type generated struct {
	flow  *Flow
	seed  uint64
	calls atomic.Int64
	flaky bool // every third attempt fails retryably
}

// datum is the data of items of generated flows. N goes down on each step, so that
// loops end.
type datum struct {
	N int    `cbor:"n"` // steps left
	V uint64 `cbor:"v"`
}

func generate(seed uint64) *generated {
	r := rand.New(rand.NewPCG(seed, 7))
	g := &generated{seed: seed}
	n := 2 + r.IntN(9)
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("s%d", i)
	}
	f := &Flow{Name: fmt.Sprintf("random%d", seed)}
	policy := queue.Policy{Retries: 1000}
	for i, name := range names {
		s := State{Name: name, Retry: policy}
		pick := func() string {
			if i+1 < n && r.IntN(4) > 0 {
				return names[i+1+r.IntN(n-i-1)]
			}
			if r.IntN(3) == 0 {
				return names[r.IntN(n)]
			}
			return []string{"end", "lost"}[r.IntN(2)]
		}
		if s.Moves = r.IntN(2) == 0; s.Moves {
			seen := map[string]bool{}
			for _, to := range []string{"end", pick(), pick()} {
				if !seen[to] {
					seen[to] = true
					s.To = append(s.To, to)
				}
			}
			if r.IntN(3) == 0 {
				s.Children = &Children{Join: pick(), Tolerate: float64(r.IntN(3))}
				if r.IntN(2) == 0 {
					s.Children.Tolerate, s.Children.Percent = float64(r.IntN(101)), true
				}
			}
		} else {
			s.Next = pick()
		}
		if r.IntN(3) == 0 {
			s.On = map[abi.Class]string{[]abi.Class{abi.ClassGuest, AnyClass, ClassLoop, ClassChildren}[r.IntN(4)]: pick()}
		}
		s.Exec = g.executor(name, &s)
		f.States = append(f.States, s)
	}
	f.States = append(f.States, State{Name: "end", End: true}, State{Name: "lost", Failed: true})
	// every state is reached
	for i := 1; i <= len(names)+1; i++ {
		first := &f.States[0]
		first.Moves, first.Next = true, ""
		name := f.States[i].Name
		has := false
		for _, to := range first.To {
			has = has || to == name
		}
		if !has {
			first.To = append(first.To, name)
		}
	}
	f.States[0].Exec = g.executor("s0", &f.States[0])
	g.flow = f
	return g
}

// executor decides by the digest of the state and the data. The first byte decides
// whether it fails; the others choose the next state, the children and the data.
func (g *generated) executor(name string, s *State) *Func {
	state := *s
	return &Func{Name: fmt.Sprintf("%d/%s", g.seed, name), Version: "1", Call: func(_ context.Context, _ [32]byte, data []byte) ([]byte, error) {
		if g.calls.Add(1)%3 == 0 && g.flaky {
			return nil, abi.Failf(abi.ClassGuestRetryable, "not now")
		}
		return decide(g.seed, &state, data)
	}}
}

// steady encodes a map deterministically.
var steady = func() cbor.EncMode {
	mode, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic(err)
	}
	return mode
}()

func decide(seed uint64, s *State, data []byte) ([]byte, error) {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s %x", seed, s.Name, data))
	d := datumOf(data)
	if sum[0] < 20 {
		return nil, abi.Failf(abi.ClassGuest, "no %d", sum[1])
	}
	next := datum{max(d.N-1, 0), uint64(sum[2])}
	if !s.Moves {
		return cbor.Marshal(next)
	}
	m := map[string]any{"next": s.To[int(sum[3])%len(s.To)], "data": next}
	if d.N <= 0 {
		m["next"] = "end"
		for _, to := range s.To {
			if to == "end" {
				return steady.Marshal(m)
			}
		}
		m["next"] = s.To[0]
		return steady.Marshal(m)
	}
	if sum[4] < 100 {
		emit := []any{}
		for i := range int(sum[5]) % 4 {
			emit = append(emit, map[string]any{"next": s.To[int(sum[6+i])%len(s.To)], "data": datum{d.N / 2, uint64(i)}})
		}
		m["emit"] = emit
	}
	return steady.Marshal(m)
}

// datumOf reads data. For the data of a join, it counts the children.
func datumOf(data []byte) (d datum) {
	if cbor.Unmarshal(data, &d) == nil && d != (datum{}) {
		return d
	}
	var j struct {
		Item     cbor.RawMessage `cbor:"item"`
		Children [][]cbor.RawMessage
	}
	if cbor.Unmarshal(data, &j) == nil && j.Item != nil {
		d = datumOf(j.Item)
	}
	return d
}

// plain evaluates a flow recursively, without a queue or a store.
type plain struct {
	seed   uint64
	states map[string]*State
	ends   []string
}

// outcome is the end or the failure of an item.
type outcome struct {
	ended          bool
	data           []byte
	class, message string
}

func (p *plain) item(id, state string, data []byte, depth int) outcome {
	steps, kids, via, routed := 0, 0, "", false
	seen := map[string]bool{}
	failed := func(s *State, class abi.Class, message string) (string, bool) {
		to, ok := s.On[class]
		if !ok {
			to, ok = s.On[AnyClass]
		}
		return to, ok
	}
	for {
		s := p.states[state]
		if s.isEnd() {
			if s.Failed {
				p.ends = append(p.ends, fmt.Sprintf("%s|%s|%x|%s", id, state, data, via))
				return outcome{class: via}
			}
			p.ends = append(p.ends, fmt.Sprintf("%s|%s|%x", id, state, data))
			return outcome{ended: true, data: data}
		}
		fail := func(class abi.Class, message string) (o outcome, over bool) {
			if to, ok := failed(s, class, message); ok && !(class == ClassSteps && routed) {
				state, via = to, string(class)
				routed = routed || class == ClassSteps
				return o, false
			}
			p.ends = append(p.ends, fmt.Sprintf("%s|%s|%x|%s", id, state, data, class))
			return outcome{class: string(class), message: message}, true
		}
		if steps >= 60 {
			if o, over := fail(ClassSteps, "more than 60 steps"); over {
				return o
			}
			continue
		}
		key := fmt.Sprintf("%s %x", state, data)
		if seen[key] {
			if o, over := fail(ClassLoop, "it came back to state "+state+" with the same data"); over {
				return o
			}
			continue
		}
		seen[key] = true
		steps++
		out, err := decide(p.seed, s, data)
		if err != nil {
			f := err.(*abi.Failure)
			if o, over := fail(f.Class, f.Message); over {
				return o
			}
			continue
		}
		if !s.Moves {
			state, data = s.Next, out
			continue
		}
		var m struct {
			Next string          `cbor:"next"`
			Data cbor.RawMessage `cbor:"data"`
			Emit []struct {
				Next string          `cbor:"next"`
				Data cbor.RawMessage `cbor:"data"`
			} `cbor:"emit"`
		}
		if err := cbor.Unmarshal(out, &m); err != nil {
			panic(err)
		}
		if len(m.Emit) > 0 && depth >= 4 {
			if o, over := fail(ClassDepth, fmt.Sprintf("its children would be at depth %d, and 4 is the deepest", depth+1)); over {
				return o
			}
			continue
		}
		type kid struct {
			id string
			o  outcome
		}
		var all []kid
		for _, e := range m.Emit {
			child := fmt.Sprintf("%s->%d", id, kids)
			kids++
			all = append(all, kid{child, p.item(child, e.Next, e.Data, depth+1)})
		}
		if s.Children == nil || len(all) == 0 {
			state, data = m.Next, m.Data
			continue
		}
		var ok, missing []any
		for _, k := range all {
			if k.o.ended {
				ok = append(ok, []any{k.id, cbor.RawMessage(k.o.data)})
			} else {
				missing = append(missing, []any{k.id, k.o.class, k.o.message})
			}
		}
		if !s.Children.tolerates(len(missing), len(all)) {
			if o, over := fail(ClassChildren, fmt.Sprintf("%d of %d children failed", len(missing), len(all))); over {
				return o
			}
			continue
		}
		b := abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 3), "item")
		b = abi.AppendText(append(b, m.Data...), "children")
		c, _ := cbor.Marshal(ok)
		if ok == nil {
			c = []byte{0x80}
		}
		b = abi.AppendText(append(b, c...), "failed")
		c, _ = cbor.Marshal(missing)
		if missing == nil {
			c = []byte{0x80}
		}
		state, data = s.Children.Join, append(b, c...)
	}
}

// lines gathers the items that ended or failed, in the form of the plain evaluation.
type lines struct{ all []string }

func (l *lines) Ended(e *End) error {
	l.all = append(l.all, fmt.Sprintf("%s|%s|%x", idText(e.ID), e.State, e.Data))
	return nil
}

func (l *lines) Dead(d *Dead) error {
	l.all = append(l.all, fmt.Sprintf("%s|%s|%x|%s", idText(d.ID), d.State, d.Data, d.Class))
	return nil
}

// TestRandomFlows compares 100 generated flows with a plain recursive evaluation,
// under ten schedules each.
func TestRandomFlows(t *testing.T) {
	flows := 100
	if testing.Short() {
		flows = 20
	}
	children, loops, failures := 0, 0, 0
	for seed := uint64(0); flows > 0; seed++ {
		g := generate(seed)
		if len(wrongOf(g.flow.Problems())) > 0 {
			continue // items could not leave it
		}
		flows--
		var values []any
		for i := range 12 {
			values = append(values, datum{N: 1 + i%9, V: uint64(i)})
		}
		p := &plain{seed: seed, states: map[string]*State{}}
		for i := range g.flow.States {
			p.states[g.flow.States[i].Name] = &g.flow.States[i]
		}
		for i, v := range values {
			p.item(fmt.Sprint(i), g.flow.States[0].Name, item_(t, v), 0)
		}
		want := map[string]bool{}
		for _, line := range p.ends {
			want[line] = true
		}
		var receipt string
		for schedule := range 10 {
			g.flaky = schedule%2 == 1
			got := &lines{}
			s := store.NewMemory()
			run := &Run{
				Flow: g.flow, Input: inputOf(t, values...), Sink: got, Live: []int{1, 3, 10_000}[schedule%3],
				Bounds: Bounds{MaxSteps: 60, MaxDepth: 4}, Observe: conserved(t),
			}
			res, err := NewRunner(Config{Workers: []int{1, 2, 16}[schedule%3], Store: s}).Run(context.Background(), run)
			if err != nil {
				t.Fatalf("flow %d, schedule %d: %v", seed, schedule, err)
			}
			s.Close()
			if len(got.all) != len(p.ends) {
				t.Fatalf("flow %d, schedule %d: %d items, want %d", seed, schedule, len(got.all), len(p.ends))
			}
			for _, line := range got.all {
				if !want[line] {
					t.Fatalf("flow %d, schedule %d: %s, which the plain evaluation has not: %s", seed, schedule, line, p.ends)
				}
			}
			now := fmt.Sprint(got.all, res.Report.Items)
			if receipt == "" {
				receipt = now
			}
			if now != receipt {
				t.Fatalf("flow %d, schedule %d: other items or another order", seed, schedule)
			}
			children += res.Report.Items.Total - len(values)
			failures += res.Report.Items.Failed
		}
		for _, line := range p.ends {
			if len(line) > 5 && line[len(line)-5:] == "|loop" {
				loops++
			}
		}
	}
	t.Logf("%d children, %d failures, %d loops", children, failures, loops)
	if !testing.Short() && (children < 1000 || failures < 1000 || loops == 0) {
		t.Errorf("the flows are too tame: %d children, %d failures, %d loops", children, failures, loops)
	}
}

func wrongOf(problems []Problem) (wrong []string) {
	for i := range problems {
		if !problems[i].Doubt {
			wrong = append(wrong, problems[i].Error())
		}
	}
	return wrong
}

// conserved returns an observer that checks the sums in every report.
func conserved(t testing.TB) func(r *Report) {
	return func(r *Report) {
		for i := range r.States {
			s := &r.States[i]
			if s.Entered != s.Left+s.Failed+s.Waiting+s.Executing+s.Limited+s.Retrying || s.Waiting < 0 || s.Executing < 0 {
				t.Errorf("state %s: not conserved: %+v", s.Name, *s)
			}
		}
		if n := &r.Items; n.Total != n.Ended+n.Failed+n.Held+n.Live || n.Live < 0 {
			t.Errorf("items are not conserved: %+v", *n)
		}
	}
}
