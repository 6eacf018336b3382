// Package outputs represents the outputs of jobs as sequences. It reads them
// from files, writes them in forms for people and programs, and compares them.
//
// Every sequence is in id order and has each id once. Two sequences can
// therefore be compared in one pass that holds one output of each:
//
//	a, err := outputs.Open("monday.cbor")
//	...
//	b, err := outputs.Open("tuesday.cbor")
//	...
//	for d, err := range outputs.Compare(a.All(ctx), b.All(ctx)) {
//		if err != nil {
//			return err
//		}
//		fmt.Println("chunk", d.ID, "differs")
//	}
//
// [Write] writes a CBOR sequence, which is a chunk file with the same ids, JSON
// lines, or CSV; [Dir] writes a file for each output.
package outputs

import (
	"bytes"
	"errors"
	"iter"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Output is the output of one chunk.
type Output struct {
	ID     abi.ID
	Output []byte // one CBOR item; valid until the next output
}

// Seq yields outputs in id order, each id once. It ends after an error, which
// comes without output. It may be used more than once unless its documentation
// says otherwise, but by one goroutine at a time.
type Seq = iter.Seq2[Output, error]

// errStopped ends a function that pushes outputs when no more are wanted.
var errStopped = errors.New("no more is wanted")

// Pushed returns the sequence of a function that calls each for every output
// and returns its first error.
func Pushed(all func(each func(Output) error) error) Seq {
	return func(yield func(Output, error) bool) {
		stopped := false
		err := all(func(o Output) error {
			if stopped || !yield(o, nil) {
				stopped = true
				return errStopped
			}
			return nil
		})
		if err != nil && !stopped {
			yield(Output{}, err)
		}
	}
}

// Only yields the outputs of a sequence for whose ids has returns true. It
// reads the whole sequence.
func Only(all Seq, has func(abi.ID) bool) Seq {
	return func(yield func(Output, error) bool) {
		for o, err := range all {
			if (err != nil || has(o.ID)) && !yield(o, err) {
				return
			}
		}
	}
}

// Difference is a chunk whose outputs differ in two sequences.
type Difference struct {
	ID   abi.ID
	A, B []byte // nil if there is no output; valid until the next difference
}

// Compare yields the differences of two sequences in id order. It ends after an
// error of either sequence. It reads both side by side to their ends, and holds
// one output of each.
func Compare(a, b Seq) iter.Seq2[Difference, error] {
	return func(yield func(Difference, error) bool) {
		m := merge{yield: yield}
		next, stop := iter.Pull2(b)
		defer stop()
		m.next = next
		m.advance()
		for x, err := range a {
			if err != nil {
				m.fail(err)
			}
			if m.done || !m.meet(x) {
				return
			}
		}
		for m.there && !m.done {
			m.yieldOnly(Difference{ID: m.y.ID, B: m.y.Output})
			m.advance()
		}
	}
}

// merge is a comparison in progress.
type merge struct {
	yield func(Difference, error) bool
	next  func() (Output, error, bool)
	y     Output // of b
	there bool   // y is the next one
	done  bool   // yield must not be called again
}

// advance moves to the next output of b.
func (m *merge) advance() {
	if m.done {
		return
	}
	y, err, there := m.next()
	m.y, m.there = y, there && err == nil
	if there && err != nil {
		m.fail(err)
	}
}

func (m *merge) fail(err error) {
	if !m.done {
		m.done = true
		m.yield(Difference{}, err)
	}
}

func (m *merge) yieldOnly(d Difference) {
	if !m.done && !m.yield(d, nil) {
		m.done = true
	}
}

// meet compares an output of a with the outputs of b up to it. It returns false
// if the comparison is over.
func (m *merge) meet(x Output) bool {
	for m.there && !m.done && m.y.ID.Compare(x.ID) < 0 {
		m.yieldOnly(Difference{ID: m.y.ID, B: m.y.Output})
		m.advance()
	}
	switch {
	case m.done:
	case !m.there || m.y.ID != x.ID:
		m.yieldOnly(Difference{ID: x.ID, A: x.Output})
	default:
		if !bytes.Equal(x.Output, m.y.Output) {
			m.yieldOnly(Difference{x.ID, x.Output, m.y.Output})
		}
		m.advance()
	}
	return !m.done
}
