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
	markSize     = 8
)

// Pack holds outputs as they are sent and stored: each with the digest of its chunk, its
// order and its fuel, in bytewise order of their keys.
type Pack struct {
	Count     int
	Bytes     int64 // of the outputs
	Low, High []byte
	Marks     []byte // the first 8 bytes of each digest
	Data      []byte
	Sum       [sha256.Size]byte // of Data
}

// NewPack makes a pack of one or more records, which it copies.
func NewPack(records []store.Record) *Pack {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b store.Record) int { return a.Key.Compare(b.Key) })
	size := 0
	for i := range records {
		size += len(records[i].Chunk) + 3*binary.MaxVarintLen64 + len(records[i].Order) + len(records[i].Output)
	}
	p := &Pack{Count: len(records), Data: make([]byte, 0, size), Marks: make([]byte, 0, markSize*len(records))}
	for i := range records {
		r := &records[i]
		p.Marks = append(p.Marks, r.Chunk[:markSize]...)
		p.Data = append(p.Data, r.Chunk[:]...)
		p.Data = append(binary.AppendUvarint(p.Data, uint64(len(r.Order))), r.Order...)
		p.Data = binary.AppendUvarint(p.Data, r.Fuel)
		p.Data = append(binary.AppendUvarint(p.Data, uint64(len(r.Output))), r.Output...)
		p.Bytes += int64(len(r.Output))
	}
	p.Low, p.High = slices.Clone(records[0].Order), slices.Clone(records[len(records)-1].Order)
	if p.Low == nil {
		p.Low = []byte{}
	}
	if p.High == nil {
		p.High = []byte{}
	}
	p.Sum = sha256.Sum256(p.Data)
	return p
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

// readPack reads the records of a pack, as views into its data.
func readPack(data, sum []byte) ([]store.Record, error) {
	if got := sha256.Sum256(data); string(got[:]) != string(sum) {
		return nil, errPack
	}
	count := 0
	for rest := data; len(rest) > 0; count++ {
		var err error
		if _, rest, err = nextRecord(rest); err != nil {
			return nil, err
		}
	}
	records := make([]store.Record, count)
	for i := range records {
		records[i], data, _ = nextRecord(data) // was read before
	}
	return records, nil
}

// nextRecord reads the first record of a pack's data.
func nextRecord(data []byte) (r store.Record, rest []byte, err error) {
	if len(data) < len(r.Chunk) {
		return r, nil, errPack
	}
	r.Chunk, data = store.Digest(data), data[len(r.Chunk):]
	var ok [3]bool
	r.Order, data, ok[0] = cut(data)
	r.Fuel, data, ok[1] = number(data)
	r.Output, data, ok[2] = cut(data)
	if ok != [3]bool{true, true, true} {
		return r, nil, errPack
	}
	return r, data, nil
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
