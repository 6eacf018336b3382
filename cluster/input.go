package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Roles of the files of a job in the database. The role of a directory is roleDir and its number.
const (
	roleModule  = "module"
	roleContext = "context"
	roleDir     = "dir"
)

// source reads the parts of a job, with a lease or from the tables.
type source interface {
	IDs(ctx context.Context, n int) ([]byte, error)
	File(ctx context.Context, role string, n int) (*postgres.Part, error)
	Segments(ctx context.Context, first, last int) ([]postgres.Part, error)
}

// leaseSource reads the parts of a job that a lease gives the right to read.
type leaseSource struct {
	*postgres.Worker
	lease postgres.Lease
}

func (s leaseSource) IDs(ctx context.Context, n int) ([]byte, error) {
	return s.Worker.IDs(ctx, s.lease, n)
}

func (s leaseSource) File(ctx context.Context, role string, n int) (*postgres.Part, error) {
	return s.Worker.File(ctx, s.lease, role, n)
}

func (s leaseSource) Segments(ctx context.Context, first, last int) ([]postgres.Part, error) {
	return s.Worker.Segments(ctx, s.lease, first, last)
}

// errDamaged reports that parts of a submitted job are missing or incomplete.
var errDamaged = errors.New("the job's input in the store is damaged: submit the job again")

// bytesOf returns the bytes of a part, from the database or from the shared directory.
func bytesOf(p *postgres.Part, shared Blobs) (b []byte, err error) {
	if b = p.Data; b == nil {
		if shared == nil {
			return nil, fmt.Errorf("missing shared directory: it has blob %x, and this process was given no directory", p.Digest[:8])
		}
		if b, err = shared.Get(p.Digest); err != nil {
			return nil, err
		}
	}
	if store.Digest(sha256.Sum256(b)) != p.Digest {
		return nil, errDamaged
	}
	return b, nil
}

// readFile reads a file of the job; nil if it has none.
func readFile(ctx context.Context, s source, shared Blobs, role string) (file []byte, err error) {
	for n := 0; ; n++ {
		p, err := s.File(ctx, role, n)
		if err != nil || p == nil {
			return file, err
		}
		b, err := bytesOf(p, shared)
		if err != nil {
			return nil, err
		}
		file = append(file, b...)
	}
}

// readIDs reads the ids of a job's chunks.
func readIDs(ctx context.Context, s source, total int) (func(int) abi.ID, error) {
	n := -1
	return journal.DecodeIDs(total, func() ([]byte, error) {
		n++
		return s.IDs(ctx, n)
	})
}

// input is the chunks of a job in the database. It is safe for concurrent use.
type input struct {
	source source
	shared Blobs
	total  int
	digest [sha256.Size]byte
	id     func(int) abi.ID

	mu   sync.Mutex
	last segment // read last: the next read often continues in it
}

// segment holds the chunks of one segment, beginning with chunk first. It has no slice for
// each chunk: a segment may have a million, and a garbage collection looks at each slice.
type segment struct {
	first int
	bytes []byte
	spans [][2]uint32 // in bytes
}

func (s *segment) has(chunk int) bool { return chunk >= s.first && chunk-s.first < len(s.spans) }

func (s *segment) chunk(i int) []byte {
	span := s.spans[i-s.first]
	return s.bytes[span[0]:span[1]:span[1]]
}

// Len implements [host.Input].
func (in *input) Len() int { return in.total }

// ID implements [host.Input].
func (in *input) ID(i int) abi.ID { return in.id(i) }

// Digest implements [host.Input].
func (in *input) Digest() [sha256.Size]byte { return in.digest }

// Unchanged implements [host.Input]: segments are checked as they are read.
func (in *input) Unchanged() error { return nil }

// Read implements [host.Input].
func (in *input) Read(ctx context.Context, from, to int, each func(i int, chunk []byte) error) error {
	for from < to {
		segments, err := in.segments(ctx, from, to)
		if err != nil {
			return err
		}
		before := from
		for _, s := range segments {
			for ; from < to && s.has(from); from++ {
				if err := each(from, s.chunk(from)); err != nil {
					return err
				}
			}
		}
		if from == before {
			return errDamaged
		}
	}
	return nil
}

// segments returns the segment that was read last, or reads several.
func (in *input) segments(ctx context.Context, from, to int) ([]segment, error) {
	in.mu.Lock()
	last := in.last
	in.mu.Unlock()
	if last.has(from) {
		return []segment{last}, nil
	}
	parts, err := in.source.Segments(ctx, from, to)
	if err != nil {
		return nil, err
	}
	var all []segment
	for i := range parts {
		b, err := bytesOf(&parts[i], in.shared)
		if err != nil {
			return nil, err
		}
		spans, ok := decodeSegment(b, parts[i].Count)
		if !ok {
			return nil, errDamaged
		}
		all = append(all, segment{parts[i].First, b, spans})
	}
	if len(all) > 0 {
		in.mu.Lock()
		in.last = all[len(all)-1]
		in.mu.Unlock()
	}
	return all, nil
}

// A segment is a sequence of chunks, each preceded by its length as a uvarint.

func appendChunk(dst, chunk []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(chunk))), chunk...)
}

func decodeSegment(b []byte, count int) (spans [][2]uint32, ok bool) {
	if len(b) > math.MaxUint32 {
		return nil, false
	}
	spans = make([][2]uint32, 0, max(0, min(count, len(b)))) // a chunk has one byte or more
	for at := 0; at < len(b); {
		n, width := binary.Uvarint(b[at:])
		if width <= 0 || n > uint64(len(b)-at-width) {
			return nil, false
		}
		start := at + width
		at = start + int(n)
		spans = append(spans, [2]uint32{uint32(start), uint32(at)})
	}
	return spans, len(spans) == count
}
