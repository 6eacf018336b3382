package postgres

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// maxPackCount and maxPackBytes bound the outputs of a pack; a larger output has
	// its own pack.
	maxPackCount = 16_384
	maxPackBytes = 4 << 20
	markSize     = 8 // of a digest
)

// Pack holds outputs as they are sent and stored, in bytewise order of their keys, in
// three columns: a reader that knows the chunks does not fetch their digests.
type Pack struct {
	Count     int
	Bytes     int64 // of the outputs
	Low, High []byte
	Chunks    []byte // the digests
	Heads     []byte // of each output its order, with the length before it, its fuel and its size
	Data      []byte // the outputs
	Sum       [sha256.Size]byte
}

// NewPack makes a pack of one or more records, which it copies.
func NewPack(records []store.Record) *Pack {
	compare := func(a, b store.Record) int { return a.Key.Compare(b.Key) }
	if !slices.IsSortedFunc(records, compare) {
		records = slices.Clone(records)
		slices.SortStableFunc(records, compare)
	}
	data, heads := 0, 0
	for i := range records {
		data += len(records[i].Output)
		heads += 3*binary.MaxVarintLen32 + len(records[i].Order)
	}
	p := &Pack{
		Count: len(records), Bytes: int64(data),
		Chunks: make([]byte, 0, len(store.Digest{})*len(records)), Heads: make([]byte, 0, heads), Data: make([]byte, 0, data),
	}
	for i := range records {
		r := &records[i]
		p.Chunks = append(p.Chunks, r.Chunk[:]...)
		p.Heads = append(binary.AppendUvarint(p.Heads, uint64(len(r.Order))), r.Order...)
		p.Heads = binary.AppendUvarint(binary.AppendUvarint(p.Heads, r.Fuel), uint64(len(r.Output)))
		p.Data = append(p.Data, r.Output...)
	}
	p.Low, p.High = slices.Clone(records[0].Order), slices.Clone(records[len(records)-1].Order)
	if p.Low == nil {
		p.Low = []byte{}
	}
	if p.High == nil {
		p.High = []byte{}
	}
	p.Sum = sumOf(sha256.Sum256(p.Chunks), sha256.Sum256(p.Heads), sha256.Sum256(p.Data))
	return p
}

// entry returns the entry of the pack in an index.
func (p *Pack) entry(id int64) packEntry {
	return packEntry{id, p.Low, p.High, len(p.Chunks) + len(p.Heads) + len(p.Data)}
}

// sumOf returns the checksum of a pack, as pack_sum in the schema does: over the SHA-256 of
// each column, so that a part of a pack can be checked without the rest.
func sumOf(chunks, heads, data [sha256.Size]byte) [sha256.Size]byte {
	return sha256.Sum256(slices.Concat(chunks[:], heads[:], data[:]))
}

// packs cuts records into packs.
func packs(records []store.Record) (all []*Pack) {
	for len(records) > 0 {
		n, size := 0, 0
		for n < len(records) && n < maxPackCount && (n == 0 || size+len(records[n].Output) <= maxPackBytes) {
			size += len(records[n].Output)
			n++
		}
		all = append(all, NewPack(records[:n]))
		records = records[n:]
	}
	return all
}

var errPack = errors.New("a pack is damaged")

// read reads the records of a pack, as views into it.
func (f *fetched) read() ([]store.Record, error) {
	sum := sumOf(sha256.Sum256(f.chunks), sha256.Sum256(f.heads), sha256.Sum256(f.data))
	if string(sum[:]) != string(f.sum) || len(f.chunks)%len(store.Digest{}) != 0 {
		return nil, errPack
	}
	records := make([]store.Record, len(f.chunks)/len(store.Digest{}))
	outputs := unpacking{f.heads, f.data}
	for i := range records {
		var ok bool
		if records[i].Order, records[i].Value, ok = outputs.next(); !ok {
			return nil, errPack
		}
		records[i].Chunk = store.Digest(f.chunks[i*len(store.Digest{}):])
	}
	if len(outputs.heads) > 0 || len(outputs.data) > 0 {
		return nil, errPack
	}
	return records, nil
}

// unpacking has the columns of the outputs of a pack that were not read yet.
type unpacking struct{ heads, data []byte }

// next reads the next output. It is false if there is none, or the pack is damaged.
func (u *unpacking) next() (order []byte, v store.Value, ok bool) {
	order, fuel, size, ok := u.head()
	if !ok || size > uint64(len(u.data)) {
		return nil, v, false
	}
	v = store.Value{Output: u.data[:size:size], Fuel: fuel}
	u.data = u.data[size:]
	return order, v, true
}

// head reads the order, the fuel and the size of the next output.
func (u *unpacking) head() (order []byte, fuel, size uint64, ok bool) {
	if order, u.heads, ok = cut(u.heads); !ok {
		return nil, 0, 0, false
	}
	if fuel, u.heads, ok = number(u.heads); !ok {
		return nil, 0, 0, false
	}
	size, u.heads, ok = number(u.heads)
	return order, fuel, size, ok && size < 1<<40
}

func number(b []byte) (n uint64, rest []byte, ok bool) {
	n, width := binary.Uvarint(b)
	if width <= 0 {
		return 0, nil, false
	}
	return n, b[width:], true
}

// cut takes a length and that many bytes from the front of b.
func cut(b []byte) (field, rest []byte, ok bool) {
	n, b, ok := number(b)
	if !ok || n > uint64(len(b)) {
		return nil, nil, false
	}
	return b[:n:n], b[n:], true
}
