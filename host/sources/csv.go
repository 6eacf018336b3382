package sources

import (
	"bufio"
	"encoding/csv"
	"errors"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// CSVOptions say how [CSV] reads.
type CSVOptions struct {
	Comma rune // what separates fields; 0 means a comma
}

// CSV yields the records of a CSV input (RFC 4180) as maps. The first record
// names the keys; values are texts, as they stand between separators and
// quotes. All records have as many fields as the first, and blank lines are
// passed over.
func CSV(in Input, o CSVOptions) Source {
	return func(yield func([]byte, error) bool) {
		c := newCSVReader(in, o)
		keys, err := c.header()
		if err != nil {
			yield(nil, err)
			return
		}
		var item []byte
		for {
			record, err := c.record()
			if err == io.EOF {
				return
			}
			if err == nil {
				item, err = c.appendMap(item[:0], keys, record)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// csvReader reads records of a limited size.
type csvReader struct {
	in    Input
	r     *csv.Reader
	limit *budget
	line  int // where the record begins that was read last
	end   int // the line after it
	named int // how many fields the header has
}

func newCSVReader(in Input, o CSVOptions) *csvReader {
	c := &csvReader{in: in, limit: &budget{r: in.Reader}, end: 1}
	b := bufio.NewReaderSize(c.limit, readSize)
	c.limit.left = readSize
	if mark, err := b.Peek(len(byteOrderMark)); err == nil && string(mark) == string(byteOrderMark) {
		_, _ = b.Discard(len(byteOrderMark))
	}
	c.r = csv.NewReader(b)
	c.r.ReuseRecord = true
	if o.Comma != 0 {
		c.r.Comma = o.Comma
	}
	return c
}

// budget ends the reading of a record that does not end: the CSV reader holds
// a record in full.
type budget struct {
	r    io.Reader
	left int
}

func (b *budget) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, ErrTooLarge
	}
	n, err := b.r.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

// record returns the next record, valid until the next call, or [io.EOF] or an
// *[Error].
func (c *csvReader) record() ([]string, error) {
	c.limit.left = c.in.limit() + readSize
	record, err := c.r.Read()
	if err != nil {
		return nil, c.explain(record, err)
	}
	last := len(record) - 1
	c.line, _ = c.r.FieldPos(0)
	c.end, _ = c.r.FieldPos(last)
	c.end += strings.Count(record[last], "\n") + 1
	for _, field := range record {
		if !utf8.ValidString(field) {
			return nil, c.in.fail(c.line, ErrMalformed, "CSV files are to be UTF-8", "not UTF-8")
		}
	}
	return record, nil
}

func (c *csvReader) explain(record []string, err error) error {
	if err == io.EOF {
		return err
	}
	if errors.Is(err, ErrTooLarge) {
		return c.in.tooLarge(c.end, "the record that begins here, perhaps with a quote that nothing ends,")
	}
	parse, ok := errors.AsType[*csv.ParseError](err)
	switch {
	case !ok:
		return c.in.unreadable(c.end, err)
	case errors.Is(err, csv.ErrFieldCount):
		return c.in.fail(parse.Line, ErrMalformed, "", "it has %d fields, and the header has %d", len(record), c.named)
	default:
		return c.in.fail(parse.Line, ErrMalformed, "", "column %d: %v", parse.Column, parse.Err)
	}
}

// header reads the first record as keys, encoded as CBOR.
func (c *csvReader) header() ([][]byte, error) {
	names, err := c.record()
	if err == io.EOF {
		return nil, c.in.fail(0, ErrMalformed, "", "it is empty, and the first line of a CSV file is to name the columns")
	}
	if err != nil {
		return nil, err
	}
	keys := make([][]byte, len(names))
	seen := map[string]bool{}
	for i, name := range names {
		if seen[name] {
			return nil, c.in.fail(c.line, ErrMalformed, "", "two columns have the name %.64q", name)
		}
		seen[strings.Clone(name)] = true
		keys[i] = abi.AppendText(nil, name)
	}
	c.named = len(names)
	return keys, nil
}

func (c *csvReader) appendMap(dst []byte, keys [][]byte, record []string) ([]byte, error) {
	dst = abi.AppendHead(dst, abi.MajorMap, uint64(len(keys)))
	for i, key := range keys {
		dst = abi.AppendText(append(dst, key...), record[i])
	}
	if len(dst) > c.in.limit() {
		return nil, c.in.tooLarge(c.line, "the record that begins here")
	}
	return dst, nil
}
