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
// Adding an id takes constant time in ascending order, and O(log n) on average
// in any other order, where n is the number of ranges and texts that cannot be
// joined. Methods that add nothing may be called concurrently. A copy shares
// memory with its original, so add to only one of them; to make an independent
// copy, use [IDSet.AddSet] on an empty set.
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

// AddRange adds the integers from lo to hi, both included. If lo is above hi, it
// adds nothing.
func (s *IDSet) AddRange(lo, hi uint64) {
	if lo <= hi {
		s.ints.add(span{lo, hi})
	}
}

// AddSet adds all ids of other, which does not change.
func (s *IDSet) AddSet(other IDSet) {
	s.ints.push(slices.Clone(other.ints.flat()))
	s.texts.push(slices.Clone(other.texts.flat()))
}

// Has reports whether id is in the set. It takes O(log² n) at most, and O(log n)
// if ids were added in ascending order or the set was parsed.
func (s IDSet) Has(id ID) bool {
	if id.isText {
		return s.texts.covers(textID(id.text))
	}
	return s.ints.covers(span{id.number, id.number})
}

// Empty reports whether no id is in the set.
func (s IDSet) Empty() bool { return len(s.ints) == 0 && len(s.texts) == 0 }

// Count returns the number of ids, or 2^64-1 if there are that many or more.
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

// String returns the set in the form that [ParseIDs] reads, in id order, such as
// 0-99,120,"a". Equal sets give equal strings; the empty set gives "".
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

// MarshalJSON returns the result of String as a JSON string.
func (s IDSet) MarshalJSON() ([]byte, error) { return json.Marshal(s.String()) }

// UnmarshalJSON is the inverse of MarshalJSON. It accepts every list that
// [ParseIDs] accepts.
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

// ParseRanges reads integers and inclusive ranges of integers, separated by
// commas: 0-99,120. Blanks may stand around commas. The empty string is the
// empty set. The error is one line that names the invalid element.
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
			return IDSet{}, fmt.Errorf("invalid range %.64q: want an integer or a range such as 0-99", element)
		}
		if err := set.addRange(element, lo, hi); err != nil {
			return IDSet{}, err
		}
	}
	return set.compact(), nil
}

// ParseIDs reads ids separated by commas; blanks may stand around commas. An
// integer, as String of [ID] prints it, is that integer, and n-m is an inclusive
// range of integers. A text in double quotes, as Go and JSON write it, is that
// text, even if it looks like a number or contains commas. Anything else is a
// text without quotes, such as 007 or a-b. The empty string is the empty set.
// The error is one line that names the invalid element.
func ParseIDs(s string) (IDSet, error) {
	named, ranges, err := ParseNamedIDs(s)
	if err != nil {
		return IDSet{}, err
	}
	named.AddSet(ranges)
	return named.compact(), nil
}

// ParseNamedIDs is [ParseIDs] for callers that treat ids named one by one
// differently from ids named by a range n-m.
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
	return named.compact(), ranges.compact(), nil
}

func parseID(element string, named, ranges *IDSet) error {
	if element[0] == '"' {
		t, ok := unquote(element)
		if !ok {
			return fmt.Errorf("invalid id %#.64q: want a text in double quotes, as in Go or JSON", element)
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
		return fmt.Errorf("invalid id %.64q: want UTF-8", element)
	}
	s.texts.add(textID(t))
	return nil
}

// addRange adds the range between two strings of digits. element is their text
// in the list, for errors.
func (s *IDSet) addRange(element, lo, hi string) error {
	first, err := strconv.ParseUint(lo, 10, 64)
	last, lastErr := strconv.ParseUint(hi, 10, 64)
	switch {
	case err != nil || lastErr != nil: // too large is the only error for digits
		return fmt.Errorf("%.64q is too large: the largest id is %d", element, uint64(math.MaxUint64))
	case first > last:
		return fmt.Errorf("invalid range %.64q: want the smaller id first", element)
	}
	s.AddRange(first, last)
	return nil
}

// blanks may stand around the commas of a list.
const blanks = " \t"

func errEmptyElement(list string) error {
	return fmt.Errorf("invalid list %.64q: empty element", list)
}

// cutElement cuts the first element off a list: up to the next comma that is
// not in quotes, without blanks around it. A quote opens only at the start of an
// element.
func cutElement(list string) (element, rest string, more bool) {
	list = strings.TrimLeft(list, blanks)
	head := quotedSize(list)
	tail, rest, more := strings.Cut(list[head:], ",")
	return strings.TrimRight(list[:head+len(tail)], blanks), rest, more
}

// quotedSize returns the length of the text in double quotes at the start of s:
// 0 if there is none, and len(s) if it does not end.
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

// unquote reads a quoted text of Go or, with its own escapes, of JSON.
func unquote(s string) (t string, ok bool) {
	if t, err := strconv.Unquote(s); err == nil {
		return t, true
	}
	err := json.Unmarshal([]byte(s), &t)
	return t, err == nil && !strings.ContainsRune(t, utf8.RuneError) // encoding/json replaces invalid text by RuneError
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// isInteger reports whether s is an integer in the form that String prints. In a
// list of ids 007 is a text, since a chunk may have that id.
func isInteger(s string) bool { return isDigits(s) && (s == "0" || s[0] != '0') }

// compact returns the set in the form that is fastest to search.
func (s IDSet) compact() IDSet {
	s.ints.mergeAll()
	s.texts.mergeAll()
	return s
}

// span is an inclusive range of integers.
type span struct{ lo, hi uint64 }

func (a span) compare(b span) int { return IntID(a.lo).Compare(IntID(b.lo)) }

func (a span) covers(b span) bool { return a.lo <= b.lo && b.hi <= a.hi }

// join returns the union of a and b if no integer lies between them. b must not
// be before a.
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
	compare(E) int    // by the first id
	covers(E) bool    // whether the other is a part of it
	join(E) (E, bool) // the union with an element that is not before it, if they touch
}

// layers holds elements in sorted slices. Each slice is at least twice as long
// as the next, so there are few slices, and each element is rarely merged: the
// logarithmic method of Bentley and Saxe (Decomposable searching problems I,
// 1980). Within one slice no two elements touch; no slice is empty.
type layers[E element[E]] [][]E

// add appends to the last slice if e comes after it, and otherwise begins a new
// slice.
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

// push adds a sorted slice and takes ownership of it.
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

// mergeAll merges all slices.
func (l *layers[E]) mergeAll() {
	for len(*l) > 1 {
		l.mergeLast()
	}
}

// mergeLast replaces the last two slices by their union.
func (l *layers[E]) mergeLast() {
	n := len(*l)
	(*l)[n-2] = merge((*l)[n-2], (*l)[n-1])
	(*l)[n-1] = nil
	*l = (*l)[:n-1]
}

// flat returns all elements as one sorted slice, which may share memory with l.
func (l layers[E]) flat() []E {
	switch len(l) {
	case 0:
		return nil
	case 1:
		return l[0]
	}
	all := slices.Clone(l)
	all.mergeAll()
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

// appendElement adds e, which must not be before any element of sorted.
func appendElement[E element[E]](sorted []E, e E) []E {
	if n := len(sorted); n > 0 {
		if joined, ok := sorted[n-1].join(e); ok {
			sorted[n-1] = joined
			return sorted
		}
	}
	return append(sorted, e)
}
