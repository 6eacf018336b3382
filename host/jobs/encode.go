package jobs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// pieceSize is about what a piece of ids has in bytes.
const pieceSize = 512 << 10

// A piece of ids is a row of entries: 0, first, count for neighbouring
// integers, and 1, length, bytes for a text, all numbers as uvarints.
const (
	entryRun  = 0
	entryText = 1
)

// EncodeIDs yields the ids 0..total-1, which must ascend, in pieces.
func EncodeIDs(total int, id func(i int) abi.ID) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		var piece []byte
		for i := 0; i < total; {
			if text, isText := id(i).Text(); isText {
				piece = append(binary.AppendUvarint(append(piece, entryText), uint64(len(text))), text...)
				i++
			} else {
				first, _ := id(i).Int()
				count := 1
				for ; i+count < total && id(i+count) == abi.IntID(first+uint64(count)); count++ {
				}
				piece = binary.AppendUvarint(append(piece, entryRun), first)
				piece = binary.AppendUvarint(piece, uint64(count))
				i += count
			}
			if len(piece) >= pieceSize || i == total {
				if !yield(piece) {
					return
				}
				piece = piece[:0]
			}
		}
	}
}

// ids are those of a job's chunks.
type ids struct {
	runs  []idRun // ascend
	texts []string
	total int
}

// idRun is a row of neighbouring integers, from a chunk on.
type idRun struct {
	chunk int
	first uint64
	count int
}

var errDamaged = errors.New("a record of the job is damaged")

func (x *ids) add(piece []byte) error {
	for len(piece) > 0 {
		kind := piece[0]
		n, width := binary.Uvarint(piece[1:])
		if width <= 0 {
			return errDamaged
		}
		piece = piece[1+width:]
		switch kind {
		case entryRun:
			count, width := binary.Uvarint(piece)
			if width <= 0 || count == 0 || count > 1<<32 {
				return errDamaged
			}
			x.runs = append(x.runs, idRun{x.total, n, int(count)})
			x.total += int(count)
			piece = piece[width:]
		case entryText:
			if n > uint64(len(piece)) {
				return errDamaged
			}
			x.texts = append(x.texts, string(piece[:n]))
			x.total++
			piece = piece[n:]
		default:
			return fmt.Errorf("%w: an id of kind %d", errDamaged, kind)
		}
	}
	return nil
}

// ints returns how many chunks have integers, which come first.
func (x *ids) ints() int { return x.total - len(x.texts) }

// addTo adds the ids of the chunks from..to-1 to a set.
func (x *ids) addTo(set *abi.IDSet, from, to int) {
	for i := x.runAt(from); i < len(x.runs) && x.runs[i].chunk < to; i++ {
		r := x.runs[i]
		low, high := max(from, r.chunk)-r.chunk, min(to, r.chunk+r.count)-r.chunk
		set.AddRange(r.first+uint64(low), r.first+uint64(high)-1)
	}
	for i := max(from, x.ints()); i < to; i++ {
		set.Add(abi.TextID(x.texts[i-x.ints()]))
	}
}

// An Elapsed tells when a chunk ran. It is zero for an output that was there
// before.
type Elapsed struct{ Start, End time.Time }

// AppendDetail begins the detail of a span: who ran it, and since when.
func AppendDetail(dst []byte, worker int, start time.Time) []byte {
	return binary.AppendVarint(binary.AppendUvarint(dst, uint64(worker)), start.UnixMicro())
}

// AppendElapsed appends when the next chunk of a span ran: how long after the
// last one, and for how long. A negative time stands for an output that was
// there before.
func AppendElapsed(dst []byte, gap, took time.Duration) []byte {
	if took < 0 {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(took.Microseconds())+1)
	return binary.AppendUvarint(dst, uint64(max(0, gap.Microseconds())))
}

// detail reads a span's detail up to its n-th chunk.
func detail(b []byte, n int) (worker int, e Elapsed, err error) {
	next := func() uint64 {
		v, width := binary.Uvarint(b)
		if width <= 0 {
			err = errDamaged
			return 0
		}
		b = b[width:]
		return v
	}
	worker = int(next())
	micros, width := binary.Varint(b)
	if width <= 0 {
		return 0, e, errDamaged
	}
	b = b[width:]
	at := time.UnixMicro(micros).UTC()
	for range n + 1 {
		e = Elapsed{}
		took := next()
		if took == 0 {
			continue
		}
		e.Start = at.Add(time.Duration(next()) * time.Microsecond)
		e.End = e.Start.Add(time.Duration(took-1) * time.Microsecond)
		at = e.End
	}
	return worker, e, err
}
