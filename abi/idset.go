package abi

import (
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// An IDSet is a set of chunk ids: inclusive ranges of integers, which are never
// expanded, and single texts. The zero IDSet is empty.
//
// Adding ids in ascending order costs constant time each, in any other order
// O(log n) on average, where n counts what does not lie together: the ranges and
// the texts. Methods that add nothing may be called at the same time. A copy
// shares memory with its original, so add to one of them at most; an empty set
// and [IDSet.AddSet] make a copy of its own.
type IDSet struct {
	ints  layers[span]
	texts layers[textID]
}

// Add adds one id.
func (s *IDSet) Add(id ID) {
	if id.isText {
		s.texts.add(textID(id.text))
		return
	}
	s.ints.add(span{id.number, id.number})
}

// AddRange adds the integers from lo to hi, both included; none where lo is
// above hi.
func (s *IDSet) AddRange(lo, hi uint64) {
	if lo <= hi {
		s.ints.add(span{lo, hi})
	}
}

// AddSet adds all ids of other, which stays as it is.
func (s *IDSet) AddSet(other IDSet) {
	s.ints.push(slices.Clone(other.ints.flat()))
	s.texts.push(slices.Clone(other.texts.flat()))
}

// Has reports whether id is in the set, in O(log² n) at most, and in O(log n)
// where ids were added in ascending order or the set was parsed.
func (s IDSet) Has(id ID) bool {
	if id.isText {
		return s.texts.covers(textID(id.text))
	}
	return s.ints.covers(span{id.number, id.number})
}

// Empty reports whether no id is in the set.
func (s IDSet) Empty() bool { return len(s.ints) == 0 && len(s.texts) == 0 }

// Count returns the number of ids, or 2^64-1 where there are that many or more.
func (s IDSet) Count() uint64 {
	n := uint64(len(s.texts.flat()))
	for lo, hi := range s.Ranges() {
		if hi-lo >= math.MaxUint64-n {
			return math.MaxUint64
		}
		n += hi - lo + 1
	}
	return n
}

// Ranges returns the integers as inclusive ranges lo, hi, in ascending order.
// Between two of them at least one integer is missing.
func (s IDSet) Ranges() iter.Seq2[uint64, uint64] {
	return func(yield func(lo, hi uint64) bool) {
		for _, r := range s.ints.flat() {
			if !yield(r.lo, r.hi) {
				return
			}
		}
	}
}

// Texts returns the texts in bytewise order.
func (s IDSet) Texts() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, t := range s.texts.flat() {
			if !yield(string(t)) {
				return
			}
		}
	}
}

// String returns the set as [ParseIDs] reads it, in id order, such as
// 0-99,120,"a": equal sets give equal strings, the empty set the empty one.
func (s IDSet) String() string {
	var b []byte
	for lo, hi := range s.Ranges() {
		b = strconv.AppendUint(b, lo, 10)
		if lo != hi {
			b = strconv.AppendUint(append(b, '-'), hi, 10)
		}
		b = append(b, ',')
	}
	for t := range s.Texts() {
		b = append(append(b, TextID(t).String()...), ',')
	}
	return strings.TrimSuffix(string(b), ",")
}

// MarshalJSON returns a JSON string that holds what String returns.
func (s IDSet) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON is the inverse of MarshalJSON; it takes whatever [ParseIDs]
// takes.
func (s *IDSet) UnmarshalJSON(b []byte) error {
	var list string
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	parsed, err := ParseIDs(list)
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// ParseRanges reads integers and inclusive ranges of them, separated by commas:
// 0-99,120. Blanks may stand around commas. The empty string is the empty set.
// The error is one line that names the element that is wrong.
func ParseRanges(s string) (IDSet, error) {
	var set IDSet
	for element := range strings.SplitSeq(s, ",") {
		element = strings.Trim(element, blanks)
		if s == "" {
			break
		}
		lo, hi, isRange := strings.Cut(element, "-")
		if !isRange {
			hi = lo
		}
		switch {
		case element == "":
			return IDSet{}, errEmptyElement(s)
		case !isDigits(lo) || !isDigits(hi):
			return IDSet{}, fmt.Errorf("%.64q is neither an integer nor a range such as 0-99", element)
		}
		if err := set.addRange(element, lo, hi); err != nil {
			return IDSet{}, err
		}
	}
	return set.settled(), nil
}

// ParseIDs reads ids separated by commas, with blanks around commas as they
// like. An integer, as String of [ID] prints it, and an inclusive range n-m of
// integers are those; a text in double quotes, as Go and JSON write it, is that
// text, whatever it looks like and with commas where it has them; anything else
// is a text as it stands, such as 007 or a-b. The empty string is the empty set.
// The error is one line that names the element that is wrong.
func ParseIDs(s string) (IDSet, error) {
	named, ranges, err := ParseNamedIDs(s)
	if err != nil {
		return IDSet{}, err
	}
	named.AddSet(ranges)
	return named.settled(), nil
}

// ParseNamedIDs is [ParseIDs] for whom it matters which ids were named one by
// one, and which by a range n-m.
func ParseNamedIDs(s string) (named, ranges IDSet, err error) {
	if s == "" {
		return named, ranges, nil
	}
	for rest, more := s, true; more; {
		var element string
		element, rest, more = cutElement(rest)
		if element == "" {
			return IDSet{}, IDSet{}, errEmptyElement(s)
		}
		if err := parseID(element, &named, &ranges); err != nil {
			return IDSet{}, IDSet{}, err
		}
	}
	return named.settled(), ranges.settled(), nil
}

func parseID(element string, named, ranges *IDSet) error {
	if element[0] == '"' {
		t, ok := unquote(element)
		if !ok {
			return fmt.Errorf("%#.64q is no text in double quotes", element)
		}
		return named.addText(element, t)
	}
	lo, hi, isRange := strings.Cut(element, "-")
	switch {
	case isRange && isInteger(lo) && isInteger(hi):
		return ranges.addRange(element, lo, hi)
	case isInteger(element):
		return named.addRange(element, element, element)
	default:
		return named.addText(element, element)
	}
}

func (s *IDSet) addText(element, t string) error {
	if !utf8.ValidString(t) {
		return fmt.Errorf("%.64q is not UTF-8, which every text id is", element)
	}
	s.texts.add(textID(t))
	return nil
}

// addRange adds the range between two strings of digits.
func (s *IDSet) addRange(element, lo, hi string) error {
	first, err := strconv.ParseUint(lo, 10, 64)
	last, lastErr := strconv.ParseUint(hi, 10, 64)
	switch {
	case err != nil || lastErr != nil: // digits fail by their value alone
		return fmt.Errorf("%.64q is above the largest id, %d", element, uint64(math.MaxUint64))
	case first > last:
		return fmt.Errorf("%.64q is reversed: a range goes from the smaller id to the larger", element)
	}
	s.AddRange(first, last)
	return nil
}

// blanks may stand around the commas of a list.
const blanks = " \t"

func errEmptyElement(list string) error {
	return fmt.Errorf("an element of %.64q is empty", list)
}

// cutElement cuts the first element off a list: up to the next comma that is
// not in quotes, without blanks around it. A quote opens at its start alone.
func cutElement(list string) (element, rest string, more bool) {
	list = strings.TrimLeft(list, blanks)
	head := quotedSize(list)
	tail, rest, more := strings.Cut(list[head:], ",")
	return strings.TrimRight(list[:head+len(tail)], blanks), rest, more
}

// quotedSize returns how long the text in double quotes is that s starts with:
// 0 where there is none, and all of s where it does not end.
func quotedSize(s string) int {
	if s == "" || s[0] != '"' {
		return 0
	}
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(s)
}

// unquote reads a text as Go or, with its own escapes, JSON writes it.
func unquote(s string) (t string, ok bool) {
	if t, err := strconv.Unquote(s); err == nil {
		return t, true
	}
	err := json.Unmarshal([]byte(s), &t)
	return t, err == nil && !strings.ContainsRune(t, utf8.RuneError) // JSON's reader puts that for what is no text
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// isInteger reports whether s is an integer as it is printed: a list of ids
// takes 007 for a text, since a chunk may be named so.
func isInteger(s string) bool { return isDigits(s) && (s == "0" || s[0] != '0') }

// settled returns the set in the form that is searched fastest.
func (s IDSet) settled() IDSet {
	s.ints.settle()
	s.texts.settle()
	return s
}

// span is an inclusive range of integers.
type span struct{ lo, hi uint64 }

func (a span) compare(b span) int { return IntID(a.lo).Compare(IntID(b.lo)) }

func (a span) covers(b span) bool { return a.lo <= b.lo && b.hi <= a.hi }

// join returns the union of a and b, which is not before a, where no integer
// lies between them.
func (a span) join(b span) (span, bool) {
	if a.hi == math.MaxUint64 || b.lo <= a.hi+1 {
		return span{a.lo, max(a.hi, b.hi)}, true
	}
	return a, false
}

// textID is a text id.
type textID string

func (a textID) compare(b textID) int { return strings.Compare(string(a), string(b)) }

func (a textID) covers(b textID) bool { return a == b }

func (a textID) join(b textID) (textID, bool) { return a, a == b }

// element is a part of a set.
type element[E any] interface {
	compare(E) int    // by where it begins
	covers(E) bool    // whether the other is a part of it
	join(E) (E, bool) // with one that is not before it, where they touch
}

// layers holds elements in sorted slices, each at least twice as long as the
// next, so that there are few of them and none is merged often: the logarithmic
// method of Bentley and Saxe (Decomposable searching problems I, 1980). Within
// one slice no two elements touch; no slice is empty.
type layers[E element[E]] [][]E

// add appends to the last slice where e goes there, and else begins a new one.
func (l *layers[E]) add(e E) {
	if n := len(*l); n > 0 {
		last := (*l)[n-1]
		if last[len(last)-1].compare(e) <= 0 {
			(*l)[n-1] = appendElement(last, e)
			l.balance()
			return
		}
	}
	if !l.covers(e) {
		l.push([]E{e})
	}
}

// push adds a sorted slice, which it takes over.
func (l *layers[E]) push(sorted []E) {
	if len(sorted) > 0 {
		*l = append(*l, sorted)
		l.balance()
	}
}

// balance merges from the end while a slice is less than twice as long as the
// next.
func (l *layers[E]) balance() {
	for n := len(*l); n > 1 && len((*l)[n-2]) < 2*len((*l)[n-1]); n-- {
		l.mergeLast()
	}
}

// settle merges all slices.
func (l *layers[E]) settle() {
	for len(*l) > 1 {
		l.mergeLast()
	}
}

// mergeLast puts the merged last two slices into their place.
func (l *layers[E]) mergeLast() {
	n := len(*l)
	(*l)[n-2] = merge((*l)[n-2], (*l)[n-1])
	(*l)[n-1] = nil
	*l = (*l)[:n-1]
}

// flat returns all elements as one sorted slice, which may be l's own.
func (l layers[E]) flat() []E {
	switch len(l) {
	case 0:
		return nil
	case 1:
		return l[0]
	}
	all := slices.Clone(l)
	all.settle()
	return all[0]
}

// covers reports whether e is a part of one element.
func (l layers[E]) covers(e E) bool {
	for _, sorted := range l {
		i, found := slices.BinarySearchFunc(sorted, e, E.compare)
		if !found {
			i--
		}
		if i >= 0 && sorted[i].covers(e) {
			return true
		}
	}
	return false
}

// merge returns the union of two sorted slices as a new one.
func merge[E element[E]](a, b []E) []E {
	all := make([]E, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].compare(b[0]) > 0 {
			a, b = b, a
		}
		all = appendElement(all, a[0])
		a = a[1:]
	}
	for _, e := range slices.Concat(a, b) { // one of them is empty
		all = appendElement(all, e)
	}
	return all
}

// appendElement adds e, which is before none of sorted, to its end.
func appendElement[E element[E]](sorted []E, e E) []E {
	if n := len(sorted); n > 0 {
		if joined, ok := sorted[n-1].join(e); ok {
			sorted[n-1] = joined
			return sorted
		}
	}
	return append(sorted, e)
}
