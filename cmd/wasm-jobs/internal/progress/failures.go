package progress

import (
	"fmt"
	"io"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/terminal"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// Bounds of the failures on the screen. The report has all of them.
const (
	maxShown  = 10  // failures that are printed, each for all that are alike
	maxGroups = 200 // kinds of failures that are told apart
	maxFrames = 5   // of a printed failure
	maxLogs   = 3
	maxIDs    = 100 // bytes of a list of ids
	maxListed = 100000
)

// kind is what failures that are alike have in common.
type kind struct {
	class        abi.Class
	message, top string // top is the first frame
}

func kindOf(f *abi.Failure) kind {
	k := kind{class: f.Class, message: f.Message}
	if len(f.Stack) > 0 {
		k.top = f.Stack[0]
	}
	return k
}

// group has the failed chunks with failures of one kind.
type group struct {
	kind
	first    abi.ID
	attempts int         // at the first chunk
	failure  abi.Failure // of the first chunk
	ids      abi.IDSet   // up to maxListed of them
	n        int
	said     int // n when the group was last printed
}

func (g *group) add(id abi.ID) {
	if g.n++; g.n <= maxListed {
		g.ids.Add(id)
	}
}

// list returns the ids, as ranges.
func (g *group) list() string {
	text := g.ids.String()
	if len(text) > maxIDs {
		text = text[:maxIDs]
		for len(text) > 0 && text[len(text)-1] != ',' {
			text = text[:len(text)-1]
		}
		return text + "..."
	}
	if g.n > maxListed {
		return text + ",..."
	}
	return text
}

// groups are the failures of a job, in the order in which their kinds appeared. The
// zero value has none.
type groups struct {
	all    []*group
	byKind map[kind]*group
	others int // failures of further kinds
}

// add adds a failed chunk, and returns its group if the chunk is the first one.
func (s *groups) add(id abi.ID, attempts int, f *abi.Failure) *group {
	k := kindOf(f)
	if g := s.byKind[k]; g != nil {
		g.add(id)
		return nil
	}
	if len(s.all) == maxGroups {
		s.others++
		return nil
	}
	if s.byKind == nil {
		s.byKind = map[kind]*group{}
	}
	g := &group{kind: k, first: id, attempts: attempts}
	if len(s.all) < maxShown {
		g.failure = *f
	}
	g.add(id)
	s.all, s.byKind[k] = append(s.all, g), g
	return g
}

// failed shows a failed chunk while the job runs: at once if it is the first of its
// kind, otherwise with others now and then. The caller holds mu.
func (d *Display) failed(id abi.ID, attempts int, f *abi.Failure) {
	g := d.failures.add(id, attempts, f)
	switch {
	case d.mode == "none":
	case g != nil && len(d.failures.all) <= maxShown:
		d.first(g)
	case time.Since(d.more) >= Every:
		d.more = time.Now()
		for _, g := range d.failures.all[:min(len(d.failures.all), maxShown)] {
			d.alike(g)
		}
	}
}

// first prints the first failure of a kind.
func (d *Display) first(g *group) {
	d.more, g.said = time.Now(), g.n
	chunk := d.colours.In(terminal.Red, fmt.Sprintf("chunk %v failed", g.first))
	d.line("%s after %s: %s: %s", chunk, plural(g.attempts, "attempt"), g.class, d.message(g.class, g.message))
	printStack(d.err, &g.failure)
}

func printStack(out io.Writer, f *abi.Failure) {
	for _, frame := range f.Stack[:min(len(f.Stack), maxFrames)] {
		fmt.Fprintf(out, "    at %s\n", frame)
	}
	for _, line := range f.Logs[max(0, len(f.Logs)-maxLogs):] {
		fmt.Fprintf(out, "    | %s\n", line)
	}
}

// alike prints how many chunks failed in the same way, unless that was said.
func (d *Display) alike(g *group) {
	if g.n == g.said {
		return
	}
	g.said = g.n
	at := ""
	if g.top != "" {
		at = " at " + g.top
	}
	d.line("%d chunks failed alike, %s: %s: %s%s", g.n, g.list(), g.class, d.message(g.class, g.message), at)
}

// finished prints the failures of a finished job that were not shown while it ran.
// The caller holds mu.
func (d *Display) finished(all []host.ChunkFailure) {
	shown := d.failures
	d.failures = groups{}
	for i := range all {
		f := &all[i]
		d.failures.add(f.ID, f.Attempts, &f.Failure)
	}
	left := d.failures.others
	for i, g := range d.failures.all {
		if i >= maxShown {
			left += g.n
			continue
		}
		before := shown.byKind[g.kind]
		if before == nil || before.said == 0 {
			d.first(g)
			g.said = 1
		} else {
			g.said = before.said
		}
		d.alike(g)
	}
	if left > 0 {
		d.line("... and %d more failed chunks; --report and --dead-letter list all of them", left)
	}
}
