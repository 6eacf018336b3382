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

// maxItem is the largest chunk whatever the limit asked for: a guest's lengths
// have 32 bits, and a window of twice that must still be countable.
const maxItem = min(math.MaxUint32, math.MaxInt/4)

// breakByte ends an array of indefinite length.
const breakByte = 0xff

const (
	hintFormat = "--chunk-format sequence takes each item of the file as a chunk, --chunk-format array takes each element of one array"
	hintSize   = "--max-chunk SIZE sets the limit"
	hintID     = `--id-key NAME takes ids from another key, --id-key "" numbers the chunks by position`
	hintJSON   = "it looks like JSON: chunk files are CBOR"
)

// scanner goes through the chunks of one file from end to end.
type scanner struct {
	file *File
	o    Options
	w    *window
	tree *merkle.Digester // of the chunks so far; of use while their ids ascend

	stream func(Chunk) bool // takes chunks that are not indexed; nil = they are
	passed int              // how many it took
}

// position returns that of the next chunk.
func (s *scanner) position() int {
	if s.stream != nil {
		return s.passed
	}
	return s.file.index.len()
}

// scan reads all chunks from r, of size bytes where that is not negative.
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

// top reads the file's top level in the format that was asked for or is seen.
func (s *scanner) top() error {
	empty, err := s.w.atEnd()
	switch {
	case err != nil:
		return s.explain(err)
	case empty && s.o.Format == Array:
		return fileError(s.o.Name, "empty: an array of chunks was asked for", hintFormat, io.ErrUnexpectedEOF)
	case empty:
		s.file.warnings = append(s.file.warnings, s.o.Name+": empty: no chunks")
		return nil
	}
	isArray := s.w.bytes()[0]>>5 == abi.MajorArray
	switch {
	case isArray && s.o.Format != Sequence:
		return s.array()
	case s.o.Format == Array:
		return fileError(s.o.Name, "the first item is no array, and an array of chunks was asked for", hintFormat, ErrFormat)
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
		if err := s.chunk(); err != nil {
			return err
		}
	}
}

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
		if err := s.chunk(); err != nil {
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
		Hint:   hintFormat,
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
		return s.failAt(offset, ErrTooMany, fmt.Sprintf("more than %d chunks", uint64(maxChunks)), "split the file")
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

// pass hands a chunk on.
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
		return id, false, s.failAt(offset, err, fmt.Sprintf("%v (key %.64q)", err, s.o.IDKey), hintID)
	}
	if text, isText := id.Text(); isText && len(text) > MaxTextID {
		return id, false, s.failAt(offset, ErrTooLarge, fmt.Sprintf("its id is a text of %d bytes, the limit is %d", len(text), MaxTextID), hintID)
	}
	return id, stated, nil
}

// explain makes err, met at the next chunk, an error with its place.
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
		return s.fail(err, fmt.Sprintf("larger than %d bytes", s.w.limit), s.jsonHint(hintSize))
	case errors.Is(err, io.ErrUnexpectedEOF) && s.w.ended:
		end := s.w.offset + int64(len(s.w.bytes()))
		return s.fail(err, fmt.Sprintf("truncated: the input ends at byte %d within it", end), s.jsonHint(""))
	default:
		return s.fail(err, "cannot be read: "+err.Error(), "")
	}
}

// jsonHint returns hint, or what helps more where the file is JSON: its braces
// and brackets, taken as CBOR, begin a string of more than 2^56 bytes.
func (s *scanner) jsonHint(hint string) string {
	b := s.w.bytes()
	if s.w.offset == 0 && len(b) > 1 && (b[0] == '{' || b[0] == '[') && isText(b[1]) {
		return hintJSON
	}
	return hint
}

func isText(c byte) bool { return c >= ' ' && c <= '~' || c == '\n' || c == '\r' || c == '\t' }

func (s *scanner) fail(cause error, reason, hint string) error {
	return s.failAt(s.w.offset, cause, reason, hint)
}

// failAt is about the next chunk, with the offset of what is wrong in it.
func (s *scanner) failAt(offset int64, cause error, reason, hint string) error {
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
			return s.fail(err, "cannot be had: "+err.Error(), "")
		}
		if err := s.collectOne(item, buffered); err != nil {
			return err
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

// finish puts the chunks into id order, once all are known, and makes the
// digest where file order was another.
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

// seal notes the state of a temporary file, after which it changes no more.
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
		Name: f.name, Position: second, Offset: offset, Place: f.place(second), Err: ErrDuplicateID, Hint: hintID,
	}
	other := f.place(first)
	if other == "" {
		other = fmt.Sprintf("the chunk at position %d, byte %d", first, at)
	}
	e.Reason = fmt.Sprintf("its id %s is that of %s", shortID(f.index.id(second)), other)
	return e
}
