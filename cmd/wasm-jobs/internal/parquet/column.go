package parquet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/bits"

	"github.com/parquet-go/parquet-go/format"
)

// column reads the values of a column in a group of rows.
type column struct {
	file    *File
	leaf    *leaf
	codec   format.CompressionCodec
	at, end int64 // bytes of the file that are left
	left    int64 // values left after the page
	inPage  int64 // values left in the page
	held    int64 // bytes of file.live

	reps, defs hybrid
	values     values
	dictionary *dictionary

	has      bool // rep and def are of the next value
	rep, def int
}

func newColumn(f *File, l *leaf, chunk *format.ColumnChunk) (*column, error) {
	m := &chunk.MetaData
	at := m.DataPageOffset
	if d := m.DictionaryPageOffset; d > 0 && d < at {
		at = d
	}
	c := &column{file: f, leaf: l, codec: m.Codec, at: at, end: at + m.TotalCompressedSize, left: m.NumValues}
	switch {
	case chunk.FilePath != "":
		return nil, fmt.Errorf("column %.64q is in another file: %w", l.path, ErrUnsupported)
	case chunk.CryptoMetadata.Value != nil:
		return nil, fmt.Errorf("column %.64q is encrypted: %w", l.path, ErrUnsupported)
	case m.Type != l.kind || at < 0 || c.end < at || c.left < 0:
		return nil, damaged(l, "invalid metadata")
	}
	return c, nil
}

func (c *column) close() {
	c.file.live -= c.held
	c.held = 0
}

// fail adds the column to an error.
func (c *column) fail(err error) error {
	return fmt.Errorf("column %.64q: %w", c.leaf.path, err)
}

// peek reads the levels of the next value, unless they are read. It is false at the end.
func (c *column) peek() (more bool, err error) {
	if c.has {
		return true, nil
	}
	for c.inPage == 0 {
		if c.left == 0 {
			return false, nil
		}
		if err := c.page(); err != nil {
			return false, c.fail(err)
		}
	}
	if c.rep, err = level(&c.reps, c.leaf.maxRep); err == nil {
		c.def, err = level(&c.defs, c.leaf.maxDef)
	}
	if err != nil {
		return false, c.fail(err)
	}
	c.inPage--
	c.has = true
	return true, nil
}

// level reads a level, which is 0 if all are.
func level(h *hybrid, most int) (int, error) {
	if most == 0 {
		return 0, nil
	}
	n, err := h.next()
	if err == nil && n > uint32(most) {
		err = errors.New("damaged: invalid level")
	}
	return int(n), err
}

func (c *column) value() ([]byte, error) {
	if c.values == nil {
		return nil, errPage
	}
	v, err := c.values.next()
	if err == nil && c.leaf.width > 0 && len(v) != c.leaf.width {
		err = errors.New("damaged: a value of another size")
	}
	return v, err
}

// page reads the next page.
func (c *column) page() error {
	h, err := c.header()
	if err != nil {
		return err
	}
	size, unpacked := int64(h.CompressedPageSize), int64(h.UncompressedPageSize)
	if size < 0 || unpacked < 0 || size > c.end-c.at {
		return errors.New("damaged: a page is larger than the column")
	}
	if size > maxPage || unpacked > maxPage {
		return fmt.Errorf("page too large: %d bytes, want at most %d", max(size, unpacked), maxPage)
	}
	if err := c.hold(size + unpacked); err != nil {
		return err
	}
	b := make([]byte, size)
	if err := readFull(c.file.r, b, c.at); err != nil {
		return err
	}
	if c.at += size; h.CRC != 0 && crc32.ChecksumIEEE(b) != uint32(h.CRC) {
		return errors.New("damaged: a page does not match its checksum")
	}
	switch {
	case h.DictionaryPageHeader.Valid:
		return c.readDictionary(&h.DictionaryPageHeader.V, b, unpacked)
	case h.DataPageHeader.Valid:
		return c.readPage(&h.DataPageHeader.V, b, unpacked)
	case h.DataPageHeaderV2.Valid:
		return c.readPage2(&h.DataPageHeaderV2.V, b, unpacked)
	}
	return nil // an index
}

// hold counts the bytes of pages, of which the dictionary stays.
func (c *column) hold(n int64) error {
	if c.dictionary != nil {
		n += int64(len(c.dictionary.b) + 4*len(c.dictionary.starts))
	}
	c.file.live += n - c.held
	c.held = n
	if c.file.live > maxLive {
		return fmt.Errorf("pages too large: those of all columns take more than %d bytes; select fewer columns, or write the file with smaller pages", maxLive)
	}
	return nil
}

// header reads the header of the next page.
func (c *column) header() (*format.PageHeader, error) {
	for size := int64(1 << 10); ; size *= 16 {
		size = min(size, c.end-c.at, maxPage)
		b := make([]byte, size)
		n, err := c.file.r.ReadAt(b, c.at)
		if err != nil && err != io.EOF {
			return nil, err
		}
		used, err := structSize(b[:n])
		if err == errShort && size < min(c.end-c.at, maxPage) && int64(n) == size {
			continue
		}
		h := new(format.PageHeader)
		if err == nil {
			err = unmarshal(b[:used], h)
		}
		if err != nil {
			return nil, fmt.Errorf("damaged header of a page: %w", err)
		}
		c.at += int64(used)
		return h, nil
	}
}

func (c *column) readDictionary(h *format.DictionaryPageHeader, b []byte, unpacked int64) error {
	//lint:ignore SA1019 older writers use it
	if c.dictionary != nil || c.leaf.kind == format.Boolean || h.Encoding != format.Plain && h.Encoding != format.PlainDictionary {
		return errors.New("damaged: invalid dictionary")
	}
	b, err := decompress(c.codec, b, int(unpacked))
	if err == nil {
		c.dictionary, err = newDictionary(b, c.leaf.width, int(h.NumValues))
	}
	return err
}

// begin sets the number of values of a page.
func (c *column) begin(count int32) error {
	if count < 0 || int64(count) > c.left {
		return errors.New("damaged: a page has more values than the column")
	}
	c.inPage = int64(count)
	c.left -= c.inPage
	return nil
}

// levels begins a sequence of levels, and returns the bytes after it.
func levels(h *hybrid, most int, encoding format.Encoding, b []byte) ([]byte, error) {
	if most == 0 {
		return b, nil
	}
	if encoding != format.RLE {
		return nil, fmt.Errorf("levels with encoding %v: %w", encoding, ErrUnsupported)
	}
	if len(b) < 4 || uint64(binary.LittleEndian.Uint32(b)) > uint64(len(b)-4) {
		return nil, errPage
	}
	n := 4 + binary.LittleEndian.Uint32(b)
	*h = hybrid{b: b[4:n], width: uint(bits.Len(uint(most)))}
	return b[n:], nil
}

func (c *column) readPage(h *format.DataPageHeader, b []byte, unpacked int64) error {
	b, err := decompress(c.codec, b, int(unpacked))
	if err != nil {
		return err
	}
	if b, err = levels(&c.reps, c.leaf.maxRep, h.RepetitionLevelEncoding, b); err != nil {
		return err
	}
	if b, err = levels(&c.defs, c.leaf.maxDef, h.DefinitionLevelEncoding, b); err != nil {
		return err
	}
	if err := c.begin(h.NumValues); err != nil {
		return err
	}
	return c.decode(h.Encoding, b)
}

func (c *column) readPage2(h *format.DataPageHeaderV2, b []byte, unpacked int64) error {
	rep, def := int64(h.RepetitionLevelsByteLength), int64(h.DefinitionLevelsByteLength)
	if rep < 0 || def < 0 || rep+def > int64(len(b)) || rep+def > unpacked {
		return errPage
	}
	c.reps = hybrid{b: b[:rep], width: uint(bits.Len(uint(c.leaf.maxRep)))}
	c.defs = hybrid{b: b[rep : rep+def], width: uint(bits.Len(uint(c.leaf.maxDef)))}
	b = b[rep+def:]
	if !h.IsCompressed.Valid || h.IsCompressed.V {
		var err error
		if b, err = decompress(c.codec, b, int(unpacked-rep-def)); err != nil {
			return err
		}
	}
	if err := c.begin(h.NumValues); err != nil {
		return err
	}
	return c.decode(h.Encoding, b)
}

// decode begins the values of a page. Those of a page that has only nulls may be no
// bytes at all, whatever the encoding.
func (c *column) decode(encoding format.Encoding, b []byte) (err error) {
	c.values = nil
	if len(b) == 0 {
		return nil
	}
	kind, width := c.leaf.kind, c.leaf.width
	isInt, isArray := kind == format.Int32 || kind == format.Int64, width == 0 && kind != format.Boolean
	switch {
	case encoding == format.Plain:
		c.values = c.plain(b)
	//lint:ignore SA1019 older writers use it
	case (encoding == format.PlainDictionary || encoding == format.RLEDictionary) && c.dictionary != nil:
		if b[0] > 32 {
			return errRun
		}
		c.values = &indices{c.dictionary, hybrid{b: b[1:], width: uint(b[0])}}
	case encoding == format.RLE && kind == format.Boolean:
		c.values, err = newHybridBools(b)
	case encoding == format.DeltaBinaryPacked && isInt:
		d, err := newDelta(b)
		c.values = &deltaInts{d: d, width: width}
		return err
	case encoding == format.DeltaLengthByteArray && isArray:
		c.values, err = newDeltaLengths(b)
	case encoding == format.DeltaByteArray && (isArray || kind == format.FixedLenByteArray):
		c.values, err = newDeltaBytes(b)
	case encoding == format.ByteStreamSplit && width > 0:
		c.values = newSplit(b, width)
	default:
		return fmt.Errorf("encoding %v of %v: %w", encoding, kind, ErrUnsupported)
	}
	return err
}

func (c *column) plain(b []byte) values {
	switch {
	case c.leaf.kind == format.Boolean:
		return &plainBools{b: b}
	case c.leaf.width > 0:
		return &plain{b, c.leaf.width}
	}
	return &plainBytes{b}
}
