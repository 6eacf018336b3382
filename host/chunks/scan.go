package chunks

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/merkle"
)

// maxItem is the largest chunk that is possible, whatever the limit asked for: a
// guest's lengths have 32 bits, and twice the size of a window must fit an int.
const maxItem = min(math.MaxUint32, math.MaxInt/4)

// breakByte ends an array of indefinite length.
const breakByte = 0xff

// scanner goes through the chunks of one file from end to end.
type scanner struct {
	file *File
	o    Options
	w    *window
	tree *merkle.Digester // of the chunks so far; used while their ids ascend

	stream func(Chunk) bool // takes chunks instead of the index; nil means they are indexed
	passed int              // number of chunks that stream took
}

// position returns the position of the next chunk.
func (s *scanner) position() int {
	if s.stream != nil {
		return s.passed
	}
	return s.file.index.len()
}

// scan reads all chunks from r. size is the number of bytes in r, or negative if it
// is not known.
func (f *File) scan(ctx context.Context, r io.Reader, size int64, o Options) error {
	s := &scanner{file: f, o: o, w: newWindow(ctx, r, size, o), tree: merkle.NewDigester(nil)}
	defer s.tree.Close()
	if err := s.top(); err != nil {
		return err
	}
	if o.Progress != nil {
		o.Progress(s.w.offset, size)
	}
	return f.finish(ctx, s.tree)
}

// top reads the file's top level in the format that was asked for, or that the
// first item shows.
func (s *scanner) top() error {
	empty, err := s.w.atEnd()
	switch {
	case err != nil:
		return s.explain(err)
	case empty && s.o.Format == Array:
		return fileError(s.o.Name, "empty: want one array of chunks", HintFormat, io.ErrUnexpectedEOF)
	case empty:
		s.file.warnings = append(s.file.warnings, s.o.Name+": empty: no chunks")
		return nil
	}
	switch isArray := startsArray(s.w.bytes()); {
	case isArray && s.o.Format != Sequence:
		return s.array()
	case s.o.Format == Array:
		return fileError(s.o.Name, "the first item is not an array: want one array of chunks", HintFormat, ErrFormat)
	default:
		return s.sequence()
	}
}

func (s *scanner) sequence() error {
	for {
		end, err := s.w.atEnd()
		if err != nil {
			return s.explain(err)
		}
		if end {
			return nil
		}
		if err := s.chunk(); err != nil || s.full() {
			return err
		}
	}
}

// full reports whether the file has as many chunks as are wanted.
func (s *scanner) full() bool { return s.o.Limit > 0 && s.position() >= s.o.Limit }

func (s *scanner) array() error {
	h, err := s.w.head()
	if err != nil {
		return s.explain(err)
	}
	for n := uint64(0); h.Indefinite || n < h.Arg; n++ {
		end, err := s.w.atEnd()
		switch {
		case err != nil:
			return s.explain(err)
		case end && h.Indefinite:
			return s.fail(io.ErrUnexpectedEOF, fmt.Sprintf("truncated: the array does not end after %d chunks", n), "")
		case end:
			return s.fail(io.ErrUnexpectedEOF, fmt.Sprintf("truncated: the array ends after %d of %d chunks", n, h.Arg), "")
		}
		if h.Indefinite && s.w.bytes()[0] == breakByte {
			s.w.use(1)
			break
		}
		if err := s.chunk(); err != nil || s.full() {
			return err
		}
	}
	return s.nothingAfterArray()
}

func (s *scanner) nothingAfterArray() error {
	end, err := s.w.atEnd()
	switch {
	case err != nil:
		return s.explain(err)
	case end:
		return nil
	}
	return &InputError{
		Name: s.o.Name, Position: -1, Offset: s.w.offset, Err: ErrFormat,
		Reason: fmt.Sprintf("more bytes after the array of %d chunks", s.position()),
		Hint:   HintFormat,
	}
}

// chunk takes the next item as a chunk.
func (s *scanner) chunk() error {
	item, err := s.w.item()
	if err != nil {
		return s.explain(err)
	}
	if err := s.add(item, s.w.offset); err != nil {
		return err
	}
	s.w.use(len(item))
	return nil
}

// add takes item, which is one CBOR item that starts at offset, as a chunk.
func (s *scanner) add(item []byte, offset int64) error {
	x := &s.file.index
	if uint64(s.position()) >= maxChunks && s.stream == nil {
		return s.failAt(offset, ErrTooMany, fmt.Sprintf("too many chunks: more than %d", uint64(maxChunks)), "split the file")
	}
	id, stated, err := s.findID(item, offset)
	if err != nil {
		return err
	}
	if s.stream != nil {
		return s.pass(item, id, stated)
	}
	id = x.add(uint64(offset), uint64(offset)+uint64(len(item)), id, stated)
	if x.sorted {
		s.tree.Add(id, item)
	}
	return nil
}

// pass hands a chunk to the stream.
func (s *scanner) pass(item []byte, id abi.ID, stated bool) error {
	if !stated {
		id = abi.IntID(uint64(s.passed))
	}
	if !s.stream(Chunk{s.passed, id, item}) {
		return errStopped
	}
	s.passed++
	return nil
}

// findID returns the id that a chunk states.
func (s *scanner) findID(item []byte, offset int64) (id abi.ID, stated bool, err error) {
	if s.o.NoIDKey || item[0]>>5 != abi.MajorMap {
		return abi.ID{}, false, nil
	}
	id, stated, err = abi.FindID(item, s.o.IDKey)
	if err != nil {
		return id, false, s.failAt(offset, err, fmt.Sprintf("%v (key %.64q)", err, s.o.IDKey), HintIDKey)
	}
	if text, isText := id.Text(); isText && len(text) > MaxTextID {
		return id, false, s.failAt(offset, ErrTooLarge, fmt.Sprintf("id too large: a text of %d bytes, want at most %d", len(text), MaxTextID), HintIDKey)
	}
	return id, stated, nil
}

// explain adds the location of the next chunk to err.
func (s *scanner) explain(err error) error {
	if ctxErr := s.w.ctx.Err(); ctxErr != nil {
		return ctxErr
	}
	if syntax, ok := errors.AsType[*abi.SyntaxError](err); ok {
		return s.failAt(s.w.offset+int64(syntax.Offset), err, syntax.Reason, s.jsonHint(""))
	}
	if spool, ok := errors.AsType[*spoolError](err); ok {
		return spool
	}
	switch {
	case errors.Is(err, ErrTooLarge):
		return s.fail(err, fmt.Sprintf("too large: more than %d bytes", s.w.limit), s.jsonHint(HintMaxChunk))
	case errors.Is(err, io.ErrUnexpectedEOF) && s.w.ended:
		end := s.w.offset + int64(len(s.w.bytes()))
		return s.fail(err, fmt.Sprintf("truncated: the input ends at byte %d within the chunk", end), s.jsonHint(""))
	default:
		return s.fail(err, "cannot be read: "+err.Error(), "")
	}
}

// jsonHint returns hint, or a better one if the file looks like JSON: braces and
// brackets of JSON, taken as CBOR, begin a string of more than 2^56 bytes.
func (s *scanner) jsonHint(hint Hint) Hint {
	b := s.w.bytes()
	if s.w.offset == 0 && len(b) > 1 && (b[0] == '{' || b[0] == '[') && isText(b[1]) {
		return HintJSON
	}
	return hint
}

func isText(c byte) bool { return c >= ' ' && c <= '~' || c == '\n' || c == '\r' || c == '\t' }

func (s *scanner) fail(cause error, reason string, hint Hint) error {
	return s.failAt(s.w.offset, cause, reason, hint)
}

// failAt returns an error about the next chunk, with the offset of the defect.
func (s *scanner) failAt(offset int64, cause error, reason string, hint Hint) error {
	return &InputError{
		Name: s.o.Name, Position: s.position(), Offset: offset, Place: s.o.place(s.position()),
		Reason: reason, Hint: hint, Err: cause,
	}
}

// collect takes each item of seq as a chunk and writes it to w.
func (f *File) collect(ctx context.Context, seq iter.Seq2[[]byte, error], w io.Writer, o Options) error {
	s := &scanner{file: f, o: o, w: newWindow(ctx, nil, -1, o), tree: merkle.NewDigester(nil)}
	defer s.tree.Close()
	buffered := bufio.NewWriterSize(w, windowSize)
	for item, err := range seq {
		if ctxErr := ctx.Err(); ctxErr != nil {
			return ctxErr
		}
		if err != nil {
			return s.fail(err, "cannot be made: "+err.Error(), "")
		}
		if err := s.collectOne(item, buffered); err != nil {
			return err
		}
		if s.full() {
			break
		}
	}
	if err := buffered.Flush(); err != nil {
		return err
	}
	if f.index.len() == 0 {
		f.warnings = append(f.warnings, o.Name+": empty: no chunks")
	}
	if o.Progress != nil {
		o.Progress(s.w.offset, -1)
	}
	return f.finish(ctx, s.tree)
}

func (s *scanner) collectOne(item []byte, w io.Writer) error {
	if len(item) > s.w.limit {
		return s.explain(ErrTooLarge)
	}
	if err := abi.CheckItem(item); err != nil {
		return s.fail(err, err.Error(), "")
	}
	if err := s.add(item, s.w.offset); err != nil {
		return err
	}
	s.w.offset += int64(len(item))
	s.w.report()
	_, err := w.Write(item)
	return err
}

// finish puts the chunks into id order after the last one, and computes the digest
// if file order was different.
func (f *File) finish(ctx context.Context, tree *merkle.Digester) error {
	first, second, unique, err := f.index.sort(ctx)
	if err != nil {
		return err
	}
	if !unique {
		return f.duplicate(first, second)
	}
	if err := f.seal(); err != nil {
		return err
	}
	if f.index.order != nil {
		f.digest, err = f.hash(ctx)
	} else {
		f.digest = tree.Root()
	}
	if err != nil {
		return err
	}
	return f.Unchanged()
}

// seal records the state of a temporary file, which does not change afterwards.
func (f *File) seal() error {
	if f.file == nil || f.stat != nil {
		return nil
	}
	stat, err := f.file.Stat()
	if err != nil {
		return &spoolError{err}
	}
	f.stat = stat
	return nil
}

// hash reads all chunks again, in id order.
func (f *File) hash(ctx context.Context) ([sha256.Size]byte, error) {
	tree := merkle.NewDigester(nil)
	defer tree.Close()
	err := f.Read(ctx, 0, f.Len(), func(i int, chunk []byte) error {
		tree.Add(f.ID(i), chunk)
		return nil
	})
	return tree.Root(), err
}

func (f *File) duplicate(first, second int) error {
	at, _ := f.index.span(first)
	offset, _ := f.index.span(second)
	e := &InputError{
		Name: f.name, Position: second, Offset: offset, Place: f.place(second), Err: ErrDuplicateID, Hint: HintIDKey,
	}
	other := f.place(first)
	if other == "" {
		other = fmt.Sprintf("chunk %d (byte %d)", first, at)
	}
	e.Reason = fmt.Sprintf("duplicate id %s, first used by %s", shortID(f.index.id(second)), other)
	return e
}
