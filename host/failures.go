package host

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
)

// Bounds of the text of a job's failures. Guests write this text: up to a few
// KiB for each failure, and a job may have very many.
const (
	// maxKeptText bounds the text that a job keeps in memory. Equal texts count
	// once.
	maxKeptText = 8 << 20
	// maxKeptLogs is the size of the text up to which log lines are kept.
	maxKeptLogs = maxKeptText / 2
	// maxReport and minReport bound the failures in a report, as indented JSON:
	// minReport is reserved for whole texts even if the rest fills maxReport.
	maxReport = 31 << 19
	minReport = 1 << 20
	// shortFailure is the maximum size in a report of a failure with a short
	// message and a number of five digits as its id.
	shortFailure = 152
	// shortText is the maximum size of a short message, as JSON. It is enough
	// for "unreachable (the same twice: deterministic)".
	shortText = 44
)

// failures are the failed chunks of a job. Their text is bounded: once the
// bound is reached, a new failure has no stack and a short message.
type failures struct {
	all      []ChunkFailure
	kept     int // bytes of text
	messages map[string]string
	stacks   map[[sha256.Size]byte][]string
}

// add adds a failed chunk. It does not keep memory of f.
func (s *failures) add(id abi.ID, f *worker.Failed) {
	c := ChunkFailure{ID: id, Index: f.Chunk, Attempts: f.Decision.Attempt, Last: &abi.Failure{}}
	c.Shortened = !s.keep(&c.Failure, f.Decision.Failure)
	*c.Last, c.LastShortened = c.Failure, c.Shortened
	if f.Last != f.Decision.Failure {
		c.LastShortened = !s.keep(c.Last, f.Last)
		c.Shortened = c.Shortened || c.LastShortened
	}
	s.all = append(s.all, c)
}

// keep copies a failure to dst, and reports whether the copy is complete, except for
// logs: they are left out first.
func (s *failures) keep(dst, f *abi.Failure) bool {
	message, whole := s.message(f.Message)
	stack, known := s.texts(f.Stack)
	var logs []string
	if s.kept < maxKeptLogs {
		logs, _ = s.texts(f.Logs)
	}
	*dst = abi.Failure{Class: f.Class, Message: message, Stack: stack, Logs: logs, Fuel: f.Fuel}
	return whole && known
}

// message returns a copy of a message that shares its memory with equal ones.
func (s *failures) message(m string) (kept string, whole bool) {
	if kept, ok := s.messages[m]; ok {
		return kept, true
	}
	short := shortened(m)
	if !s.spend(len(m)) {
		return strings.Clone(short), short == m
	}
	if s.messages == nil {
		s.messages = map[string]string{}
	}
	m = strings.Clone(m)
	s.messages[m] = m
	return m, true
}

// texts returns a copy of a stack or of logs that shares its memory with equal ones.
func (s *failures) texts(frames []string) (kept []string, whole bool) {
	if len(frames) == 0 {
		return nil, true
	}
	key, size := sha256.Sum256([]byte(strings.Join(frames, "\n"))), 0
	if kept, ok := s.stacks[key]; ok {
		return kept, true
	}
	for _, f := range frames {
		size += len(f) + stringSize
	}
	if !s.spend(size) {
		return nil, false
	}
	if s.stacks == nil {
		s.stacks = map[[sha256.Size]byte][]string{}
	}
	kept = make([]string, len(frames))
	for i, f := range frames {
		kept[i] = strings.Clone(f)
	}
	s.stacks[key] = kept
	return kept, true
}

// stringSize is the memory that a string takes in addition to its bytes.
const stringSize = 16

// spend reserves room for a new text, if there is enough.
func (s *failures) spend(size int) bool {
	const entry = 128 // size of a map entry with its key
	if s.kept+size+entry > maxKeptText {
		return false
	}
	s.kept += size + entry
	return true
}

// report returns the failures in id order, with no more text than a report may
// have, and the number of shortened ones. The caller owns them; s is empty
// afterwards.
func (s *failures) report() (all []ChunkFailure, short int) {
	all = append([]ChunkFailure{}, s.all...)
	*s = failures{}
	slices.SortFunc(all, func(a, b ChunkFailure) int { return cmp.Compare(a.Index, b.Index) })
	left := max(minReport, maxReport-shortFailure*len(all))
	for i := range all {
		f := &all[i]
		if n := writtenSize(&f.Failure); n > shortText {
			if left = max(left-n, -1); left < 0 {
				f.Message, f.Stack, f.Shortened = shortened(f.Message), nil, true
			}
		}
		if n := logsSize(f.Logs); n > left-maxReport/2 { // the other half is for messages and stacks
			f.Logs = nil
		} else {
			left -= n
		}
		if f.Shortened {
			short++
		}
	}
	return all, short
}

// shortened returns a message of at most shortText bytes as JSON.
func shortened(m string) string {
	const suffix = "..."
	size, end := 0, 0 // end of the text that leaves room for the suffix
	for i, r := range m {
		if size+len(suffix) <= shortText {
			end = i
		}
		if size += runeSize(r); size > shortText {
			return m[:end] + suffix
		}
	}
	return m
}

// writtenSize returns the size in bytes of a failure's text in a report, without its
// logs.
func writtenSize(f *abi.Failure) int {
	size := textSize(f.Message)
	if len(f.Stack) > 0 {
		size += len("\n      \"stack\": [\n      ],")
	}
	return size + linesSize(f.Stack)
}

// logsSize returns the size in bytes of log lines in a report.
func logsSize(logs []string) int {
	if len(logs) == 0 {
		return 0
	}
	return len("\n      \"logs\": [\n      ],") + linesSize(logs)
}

func linesSize(lines []string) (size int) {
	for _, line := range lines {
		size += len("\n        \"\",") + textSize(line)
	}
	return size
}

// textSize returns the maximum size in bytes of a text as JSON, without quotes.
func textSize(s string) (size int) {
	for _, r := range s {
		size += runeSize(r)
	}
	return size
}

func runeSize(r rune) int {
	switch {
	case r == '"', r == '\\':
		return len(`\"`)
	case r < ' ', r == '<', r == '>', r == '&', r == '\u2028', r == '\u2029', r == utf8.RuneError:
		return len(`\u0000`)
	}
	return utf8.RuneLen(r)
}
