package sources

import (
	"bytes"
	"io"
	"maps"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

// CSVOptions are the options of [CSV].
type CSVOptions struct {
	Comma    rune // separator of fields; 0 means a comma
	NoQuotes bool // a quote is an ordinary character; fields have no separators or line ends
	// Columns, if not empty, are the columns to keep. A missing one is an error.
	Columns []string
	// Types are the types of columns by name; the others are texts. An empty field of
	// any other type is null.
	Types map[string]Type
	// Found says that [CSVTypes] found Types: their columns may be missing, and empty
	// texts are null, too.
	Found bool
}

// maxColumns limits the columns of a header, which may be hostile: each takes about
// 100 bytes of memory.
const maxColumns = 1 << 20

// CSV yields the records of a CSV input (RFC 4180) as maps. The first record holds
// the keys. Values are texts with exactly the bytes between separators and quotes:
// line ends within quotes stay as they are. Outside quotes LF, CR LF and CR each
// end a record. All records have as many fields as the first. A blank line is a
// record with one empty field if there is one column, and is passed over otherwise.
func CSV(in Input, o CSVOptions) Source {
	return func(yield func([]byte, error) bool) {
		c := newCSVReader(in, o)
		keys, err := c.header(o)
		if err != nil {
			yield(nil, err)
			return
		}
		var item []byte
		for {
			err := c.next()
			if err == io.EOF {
				return
			}
			if err == nil {
				if item, err = c.appendMap(item[:0], keys, o.Found); err != nil {
					if err = in.pass(err, c.raw); err == nil {
						continue
					}
				}
				in.mark(c.begin)
			}
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// column is a column that is kept.
type column struct {
	index int
	name  string
	key   []byte // the name as CBOR
	as    Type
}

// header reads the first record, and returns the columns to keep.
func (c *csvReader) header(o CSVOptions) ([]column, error) {
	if err := c.names(); err != nil {
		return nil, err
	}
	all, seen := make([]column, 0, len(c.ends)), make(map[string]bool, len(c.ends))
	for i := range c.ends {
		name := string(c.field(i))
		if seen[name] {
			return nil, c.in.fail(c.begin, ErrMalformed, "", "duplicate column %.64q", name)
		}
		seen[name] = true
		if len(o.Columns) == 0 || slices.Contains(o.Columns, name) {
			all = append(all, column{i, name, abi.AppendText(nil, name), o.Types[name]})
		}
	}
	c.columns = len(c.ends)
	want := slices.Clone(o.Columns)
	if !o.Found {
		want = slices.AppendSeq(want, maps.Keys(o.Types))
		slices.Sort(want)
	}
	for _, name := range want {
		if !seen[name] {
			return nil, c.in.fail(c.begin, ErrMalformed, "", "missing column %.64q", name)
		}
	}
	return all, nil
}

const noNames = "want the names of the columns in the first line"

// names reads the record with the names of the columns. Blank lines before it may
// be the empty name of a single column, if that record has one field.
func (c *csvReader) names() error {
	c.columns = maxColumns
	blank := 0
	for {
		err := c.record()
		switch {
		case err == io.EOF && blank == 0:
			return c.in.fail(0, ErrMalformed, "", "the file is empty: "+noNames)
		case err == io.EOF || err == nil && blank > 0 && c.fields == 1 && !c.blank:
			return c.in.fail(blank, ErrMalformed, `"" names a column without a name`, "the line is blank: "+noNames)
		case err != nil:
			return err
		case c.fields > maxColumns:
			return c.in.fail(c.begin, ErrTooLarge, "", "too many columns: %d, want at most %d", c.fields, maxColumns)
		case !c.blank:
			return nil
		case blank == 0:
			blank = c.begin
		}
	}
}

// next reads the next record after the header that is not passed over.
func (c *csvReader) next() error {
	for {
		err := c.whole()
		if err == nil && c.blank && c.columns > 1 {
			continue
		}
		if err == nil && c.fields != c.columns {
			err = c.in.fail(c.begin, ErrMalformed, c.hintComma(), "invalid number of fields: %d, want %d as in the header", c.fields, c.columns)
		}
		if err == nil || err == io.EOF {
			return err
		}
		if err = c.in.pass(err, c.raw); err != nil {
			return err
		}
	}
}

// hintComma is the hint if a record has more fields than a header of one column: the
// header may have another separator.
func (c *csvReader) hintComma() chunks.Hint {
	if c.columns == 1 {
		return HintComma
	}
	return ""
}

// whole reads the next record. A malformed record that will be passed over is read up
// to the end of the line with the defect; if a quote is not closed, up to the end of
// the record's first line.
func (c *csvReader) whole() error {
	err := c.record()
	if c.in.Bad == nil || err == nil || err == io.EOF {
		return err
	}
	switch defect := err.(*Error); {
	case c.unclosed:
		defect.Err = ErrMalformed // also if too large
		c.again()
	case defect.Err == ErrMalformed && !c.ended:
		if err := c.passLine(); err != nil {
			return err
		}
	}
	return err
}

// passLine passes the rest of a line, with its end.
func (c *csvReader) passLine() error {
	for {
		b, err := c.peek()
		if err != nil {
			return notEOF(err)
		}
		n := bytes.IndexAny(b, "\r\n")
		if len(c.raw)+len(b) > c.in.limit() {
			return c.in.tooLarge(c.begin, "record")
		}
		if n < 0 {
			c.advance(len(b))
			continue
		}
		c.advance(n)
		_, err = c.separator()
		return err
	}
}

// again goes back to the second line of the record.
func (c *csvReader) again() {
	end := bytes.IndexAny(c.raw, "\r\n")
	if end < 0 {
		return
	}
	if end++; bytes.HasPrefix(c.raw[end-1:], []byte("\r\n")) {
		end++
	}
	c.ahead = append(bytes.Clone(c.raw[end:]), c.ahead...)
	c.raw, c.line, c.column, c.cr = c.raw[:end], c.begin+1, 1, false
}

func (c *csvReader) appendMap(dst []byte, all []column, emptyNull bool) ([]byte, error) {
	dst = abi.AppendHead(dst, abi.MajorMap, uint64(len(all)))
	for i := range all {
		field, ok := c.field(all[i].index), false
		dst = append(dst, all[i].key...)
		if len(field) == 0 && (emptyNull || all[i].as != Text) {
			dst = append(dst, null)
		} else if dst, ok = all[i].as.append(dst, field); !ok {
			return nil, c.in.fail(c.begin, ErrMalformed, "", "column %.64q: invalid %s %.64q", all[i].name, all[i].as, field)
		}
	}
	if len(dst) > c.in.limit() {
		return nil, c.in.tooLarge(c.begin, "record")
	}
	return dst, nil
}
