package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// pieceSize is the approximate size of a piece of ids, in bytes.
const pieceSize = 512 << 10

// A piece of ids is a sequence of entries: 0, first, count for consecutive
// integers, and 1, length, bytes for a text. All numbers are uvarints.
const (
	entryRun  = 0
	entryText = 1
)

// EncodeIDs yields the encoding of the ids 0..total-1 in pieces. The ids must
// ascend.
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

// ids are the ids of a job's chunks.
type ids struct {
	runs  []idRun // ascending
	texts []string
	total int
}

// idRun is a run of consecutive integers, from a chunk on.
type idRun struct {
	chunk int
	first uint64
	count int
}

// DecodeIDs reads pieces of ids, which next gives until one is nil. It fails unless they
// are those of total chunks, and returns what gives them by number.
func DecodeIDs(total int, next func() ([]byte, error)) (at func(chunk int) abi.ID, err error) {
	x := &ids{}
	for {
		piece, err := next()
		if err == nil && piece != nil {
			err = x.add(piece)
		}
		if err != nil {
			return nil, err
		}
		if piece == nil {
			break
		}
	}
	if x.total != total {
		return nil, fmt.Errorf("%w: %d ids for %d chunks", errDamaged, x.total, total)
	}
	return x.at, nil
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

// ints returns the number of chunks with integer ids, which come first.
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

// An Elapsed holds the start and the end of a chunk's execution. It is zero for an
// output that was in the store before.
type Elapsed struct{ Start, End time.Time }

// AppendDetail begins the detail of a span, with the worker and its start time.
func AppendDetail(dst []byte, worker int, start time.Time) []byte {
	return binary.AppendVarint(binary.AppendUvarint(dst, uint64(worker)), start.UnixMicro())
}

// AppendElapsed appends the times of the next chunk of a span: the gap since the
// last one, and the duration. A negative duration marks an output that was in the
// store before.
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
