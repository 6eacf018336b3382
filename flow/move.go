package flow

import (
	"fmt"
	"slices"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Classes of failure of items, in addition to those of chunks (package abi).
const (
	ClassRoute    abi.Class = "route"    // a move names a state that it must not name
	ClassSteps    abi.Class = "steps"    // the item took too many steps, or visits of one state
	ClassLoop     abi.Class = "loop"     // the item came back with the same data through pure states
	ClassDepth    abi.Class = "depth"    // a child would exceed the depth limit
	ClassChildren abi.Class = "children" // more children failed than are tolerated, or there are too many
	ClassEffect   abi.Class = "effect"   // an effect was refused, or failed for good
)

// Classes returns every class that an item can fail with.
func Classes() []abi.Class {
	return append(abi.Classes(), ClassRoute, ClassSteps, ClassLoop, ClassDepth, ClassChildren, ClassEffect)
}

// move is the decision of a step. Its slices are parts of the output from which it
// was read.
type move struct {
	next  string // "" if absent
	data  []byte // nil if absent: unchanged
	emit  []byte // the children, one after another
	count int    // of them
	after time.Duration
}

// child is one element of emit.
type child struct {
	next string
	data []byte
}

// maxAfter bounds the delay of a move.
const maxAfter = 10 * 366 * 24 * time.Hour

// parseMove reads the output of a state that returns moves: one well-formed item.
// An invalid move is a failure of class abi.
func parseMove(output []byte) (m move, err error) {
	err = eachKey(output, "the move", func(key string, value []byte) (err error) {
		switch key {
		case "next":
			m.next, err = textOf(value, "next")
		case "data":
			m.data = value
		case "emit":
			m.emit, m.count, err = parseEmit(value)
		case "after":
			m.after, err = parseAfter(value)
		default:
			err = abi.Failf(abi.ClassABI, "unknown key %.100q in the move: want next, data, emit or after", key)
		}
		return err
	})
	return m, err
}

func parseAfter(value []byte) (time.Duration, error) {
	h, err := abi.ReadHead(value)
	if err != nil || h.Major != abi.MajorUint || h.Arg > uint64(maxAfter/time.Millisecond) {
		return 0, abi.Failf(abi.ClassABI, "invalid after in the move: want milliseconds, an unsigned integer up to %d", maxAfter/time.Millisecond)
	}
	return time.Duration(h.Arg) * time.Millisecond, nil
}

// parseEmit checks the children. It returns their bytes without the array's head,
// and their number.
func parseEmit(value []byte) (elements []byte, count int, err error) {
	h, err := abi.ReadHead(value)
	if err != nil || h.Major != abi.MajorArray {
		return nil, 0, abi.Failf(abi.ClassABI, "invalid emit in the move: want an array of maps with next and data")
	}
	elements = value[h.Size:]
	for rest := elements; len(rest) > 0 && rest[0] != breakByte; count++ {
		var c child
		if c, rest, err = nextChild(rest); err != nil {
			return nil, 0, abi.Failf(abi.ClassABI, "child %d of the move: %s", count, messageOf(err))
		}
		_ = c
	}
	return elements, count, nil
}

const breakByte = 0xff

// nextChild reads the first child of a sequence.
func nextChild(elements []byte) (c child, rest []byte, err error) {
	n, err := abi.ItemSize(elements)
	if err != nil {
		return c, nil, err
	}
	err = eachKey(elements[:n], "the child", func(key string, value []byte) (err error) {
		switch key {
		case "next":
			c.next, err = textOf(value, "next")
		case "data":
			c.data = value
		default:
			err = abi.Failf(abi.ClassABI, "unknown key %.100q: want next or data", key)
		}
		return err
	})
	return c, elements[n:], err
}

func messageOf(err error) string {
	if f, ok := err.(*abi.Failure); ok {
		return f.Message
	}
	return err.Error()
}

// eachKey calls f for each pair of a map with text keys, each key once.
func eachKey(item []byte, what string, f func(key string, value []byte) error) error {
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorMap {
		return abi.Failf(abi.ClassABI, "%s is not a map", what)
	}
	var all [4]string // of the keys that f knows, of which there are at most four
	seen := all[:0]
	rest := item[h.Size:]
	for n := uint64(0); h.Indefinite && rest[0] != breakByte || !h.Indefinite && n < h.Arg; n++ {
		key, after, err := cutItem(rest)
		if err != nil {
			return err
		}
		value, after, err := cutItem(after)
		if err != nil {
			return err
		}
		text, err := textOf(key, "key of "+what)
		if err != nil {
			return err
		}
		if slices.Contains(seen, text) {
			return abi.Failf(abi.ClassABI, "duplicate key %q in %s", text, what)
		}
		seen = append(seen, text)
		if err := f(text, value); err != nil {
			return err
		}
		rest = after
	}
	return nil
}

func cutItem(b []byte) (item, rest []byte, err error) {
	n, err := abi.ItemSize(b)
	if err != nil {
		return nil, nil, abi.Failf(abi.ClassABI, "malformed CBOR: %v", err)
	}
	return b[:n], b[n:], nil
}

// textOf returns the value of an item that is a text of definite length.
func textOf(item []byte, what string) (string, error) {
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorText || h.Indefinite {
		return "", abi.Failf(abi.ClassABI, "invalid %s: want a text", what)
	}
	return string(item[h.Size:]), nil
}

// route returns the state that a move names.
func (s *state) route(p *plan, next string) (int, error) {
	if next == "" {
		if len(s.to) == 1 {
			return s.to[0], nil
		}
		return 0, abi.Failf(ClassRoute, "the move has no next, and the state may go to several")
	}
	for _, to := range s.to {
		if p.states[to].Name == next {
			return to, nil
		}
	}
	return 0, abi.Failf(ClassRoute, "the move goes to %.100q: want one of %s", next, fmt.Sprint(s.To))
}
