package parquet

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/klauspost/compress/zstd"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding/thrift"
	"github.com/parquet-go/parquet-go/format"
)

// Kind is the type of a column that is written.
type Kind int

// The kinds. Integers have 64 bits.
const (
	Text Kind = iota
	Bool
	Int
	Uint
	Float
	Bytes
	JSON
)

// Column is a column that is written. Its values may be null.
type Column struct {
	Name string
	Kind Kind
}

const (
	maxGroup  = 64 << 20 // bytes of values after which a group of rows ends
	dataPage  = 1 << 20  // bytes of values after which a page ends
	createdBy = "wasm-jobs"
)

// Writer writes a table. Rows are made column by column: each column gets one value, and
// then EndRow ends the row. The same rows give the same bytes. A Writer holds one group
// of rows, 64 MiB of values or one larger row.
type Writer struct {
	w       io.Writer
	at      int64
	pack    *zstd.Encoder
	columns []*columnWriter
	schema  []format.SchemaElement
	groups  []format.RowGroup
	rows    int64 // of all groups
	inGroup int64
	err     error
}

// columnWriter has the values of a group of rows.
type columnWriter struct {
	Column
	pages   [][]byte // finished, with headers
	meta    format.ColumnMetaData
	values  []byte // of the page
	bit     int    // of the last byte of values, of Bool
	levels  []byte // runs of the page
	run     uint64 // length of the last run
	there   byte   // its level
	count   int64  // of the page
	nulls   int64  // of the page
	nullsIn int64  // of the group
}

// NewWriter returns a writer to w, which it does not close.
func NewWriter(w io.Writer, columns []Column) (*Writer, error) {
	pack, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, err
	}
	p := &Writer{w: w, pack: pack}
	p.schema = append(p.schema, format.SchemaElement{Name: "schema", NumChildren: thrift.New(int32(len(columns)))})
	for _, c := range columns {
		p.columns = append(p.columns, &columnWriter{Column: c})
		p.schema = append(p.schema, element(c))
	}
	p.write(magic)
	return p, p.err
}

// types are the physical types of the kinds.
var types = map[Kind]format.Type{
	Text: format.ByteArray, Bool: format.Boolean, Int: format.Int64, Uint: format.Int64, Float: format.Double, Bytes: format.ByteArray, JSON: format.ByteArray,
}

func element(c Column) format.SchemaElement {
	e := format.SchemaElement{Name: c.Name, Type: thrift.New(types[c.Kind]), RepetitionType: thrift.New(format.Optional)}
	switch c.Kind {
	case Text:
		e.ConvertedType, e.LogicalType.Value = thrift.New(deprecated.UTF8), new(format.StringType)
	case JSON:
		e.ConvertedType, e.LogicalType.Value = thrift.New(deprecated.Json), new(format.JsonType)
	case Uint:
		e.ConvertedType, e.LogicalType.Value = thrift.New(deprecated.Uint64), &format.IntType{BitWidth: 64}
	}
	return e
}

// Null sets a column of the row to null.
func (p *Writer) Null(i int) { p.columns[i].level(0) }

// Bool sets a column of kind Bool.
func (p *Writer) Bool(i int, b bool) {
	c := p.columns[i]
	c.level(1)
	if c.bit%8 == 0 {
		c.values = append(c.values, 0)
	}
	if b {
		c.values[len(c.values)-1] |= 1 << (c.bit % 8)
	}
	c.bit++
}

// Uint sets a column of kind Int or Uint to an integer of 64 bits.
func (p *Writer) Uint(i int, n uint64) {
	c := p.columns[i]
	c.level(1)
	c.values = binary.LittleEndian.AppendUint64(c.values, n)
}

// Float sets a column of kind Float.
func (p *Writer) Float(i int, f float64) { p.Uint(i, math.Float64bits(f)) }

// Bytes sets a column of kind Text, Bytes or JSON.
func (p *Writer) Bytes(i int, b []byte) {
	c := p.columns[i]
	c.level(1)
	c.values = append(binary.LittleEndian.AppendUint32(c.values, uint32(len(b))), b...)
}

// level adds a definition level.
func (c *columnWriter) level(there byte) {
	if there != c.there || c.run == 0 {
		c.endRun()
		c.there = there
	}
	c.run++
	c.count++
	c.nulls += int64(1 - there)
}

func (c *columnWriter) endRun() {
	if c.run > 0 {
		c.levels = append(binary.AppendUvarint(c.levels, c.run<<1), c.there)
	}
	c.run = 0
}

// EndRow ends a row.
func (p *Writer) EndRow() error {
	p.inGroup++
	held := int64(0)
	for _, c := range p.columns {
		if len(c.values)+len(c.levels) >= dataPage {
			p.endPage(c)
		}
		held += int64(len(c.values)) + c.meta.TotalUncompressedSize
	}
	if held >= maxGroup {
		p.endGroup()
	}
	return p.err
}

// endPage ends the page of a column.
func (p *Writer) endPage(c *columnWriter) {
	if c.count == 0 || p.err != nil {
		return
	}
	c.endRun()
	body := append(binary.LittleEndian.AppendUint32(nil, uint32(len(c.levels))), c.levels...)
	body = append(body, c.values...)
	packed := p.pack.EncodeAll(body, nil)
	if len(body) > math.MaxInt32 || len(packed) > math.MaxInt32 {
		p.err = fmt.Errorf("column %.64q: a page of %d bytes is larger than the format allows", c.Name, len(body))
		return
	}
	h := format.PageHeader{Type: format.DataPage, UncompressedPageSize: int32(len(body)), CompressedPageSize: int32(len(packed)), CRC: int32(crc32.ChecksumIEEE(packed))}
	h.DataPageHeader = thrift.New(format.DataPageHeader{
		NumValues: int32(c.count), Encoding: format.Plain, DefinitionLevelEncoding: format.RLE, RepetitionLevelEncoding: format.RLE,
		Statistics: format.Statistics{NullCount: c.nulls},
	})
	head, err := thrift.Marshal(new(thrift.CompactProtocol), &h)
	if err != nil {
		p.err = err
		return
	}
	c.pages = append(c.pages, head, packed)
	c.meta.NumValues += c.count
	c.meta.TotalUncompressedSize += int64(len(head) + len(body))
	c.meta.TotalCompressedSize += int64(len(head) + len(packed))
	c.nullsIn += c.nulls
	c.values, c.levels, c.bit, c.count, c.nulls = c.values[:0], c.levels[:0], 0, 0, 0
}

// endGroup writes a group of rows.
func (p *Writer) endGroup() {
	if p.inGroup == 0 {
		return
	}
	g := format.RowGroup{NumRows: p.inGroup, FileOffset: p.at, Ordinal: int16(min(len(p.groups), math.MaxInt16))}
	for _, c := range p.columns {
		p.endPage(c)
		m := c.meta
		m.Type, m.Codec, m.DataPageOffset = types[c.Kind], format.Zstd, p.at
		m.Encoding, m.PathInSchema = []format.Encoding{format.Plain, format.RLE}, []string{c.Name}
		m.Statistics.NullCount = c.nullsIn
		for _, page := range c.pages {
			p.write(page)
		}
		g.Columns = append(g.Columns, format.ColumnChunk{MetaData: m})
		g.TotalByteSize += m.TotalUncompressedSize
		g.TotalCompressedSize += m.TotalCompressedSize
		c.pages, c.meta, c.nullsIn = nil, format.ColumnMetaData{}, 0
	}
	p.groups = append(p.groups, g)
	p.rows += p.inGroup
	p.inGroup = 0
}

// Close writes the end of the file.
func (p *Writer) Close() error {
	p.endGroup()
	meta := format.FileMetaData{Version: 1, Schema: p.schema, NumRows: p.rows, RowGroups: p.groups, CreatedBy: createdBy}
	if p.groups == nil {
		meta.RowGroups = []format.RowGroup{}
	}
	b, err := thrift.Marshal(new(thrift.CompactProtocol), &meta)
	if err != nil {
		return err
	}
	p.write(b)
	p.write(binary.LittleEndian.AppendUint32(nil, uint32(len(b))))
	p.write(magic)
	return p.err
}

func (p *Writer) write(b []byte) {
	if p.err != nil {
		return
	}
	var n int
	n, p.err = p.w.Write(b)
	p.at += int64(n)
}
