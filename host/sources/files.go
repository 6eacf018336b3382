package sources

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bmatcuk/doublestar/v4"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// FilesOptions are the options of [Files].
type FilesOptions struct {
	// Split, if not 0, cuts each file into parts of at most this many bytes.
	Split int64
	// AtLines moves cuts back to the end of a line; a line that is longer than
	// Split is a part of its own.
	AtLines bool
	// MaxChunk is the limit of one chunk in bytes; 0 means [DefaultMaxChunk].
	MaxChunk int64
	// Unpack, if not nil, returns a reader of the content of a compressed file, or nil
	// if the file is not compressed. It may read from file, and is then called again
	// for a file that it has not read. The chunks are those of the content.
	Unpack func(file io.ReadSeeker) (io.ReadCloser, error)
	// Except are files and directories that are skipped inside others, such as the
	// file that chunks are written to.
	Except []fs.FileInfo
}

// Files yields files as maps {"name": text, "size": integer, "bytes": byte string},
// path after path, and the files of one path by name in bytewise order. With Split, it
// yields each part of a file as {"name", "part", "offset", "size", "bytes"}: part
// counts from 0, offset is the start of the part, and size is the size of the file.
//
// A path is a file, a directory with all files below it, or a pattern of package
// doublestar: *, ?, [a-z], {a,b}, and ** for any directories. If a path is a file, the
// path is its name; the name of any other file is its path within the directory, or
// within the part of the pattern before the first special character. Names use slashes.
//
// With Unpack, size and bytes are those of the decompressed content of a file.
//
// Nothing outside a directory is read. A link in it to one of its files is read as
// that file, a link to one of its directories is skipped, and any other link is
// refused. Anything that is neither a file nor a directory is skipped.
func Files(paths []string, o FilesOptions) Source {
	return func(yield func([]byte, error) bool) {
		found := finder{except: o.Except}
		defer found.close()
		for _, p := range paths {
			if err := found.sorted(p); err != nil {
				yield(nil, err)
				return
			}
		}
		if err := found.unique(); err != nil {
			yield(nil, err)
			return
		}
		for _, f := range found.files {
			for item, err := range f.chunks(o) {
				if !yield(item, err) || err != nil {
					return
				}
			}
		}
	}
}

// foundFile is a file and its name, found in a directory or given as a path.
type foundFile struct {
	name, where string
	root        *os.Root // nil if name is a path that was given
	path        string   // relative to root, if that is not nil
}

// finder collects the files of paths.
type finder struct {
	files  []foundFile
	roots  []*os.Root
	except []fs.FileInfo
}

func (f *finder) close() {
	for _, root := range f.roots {
		root.Close()
	}
}

// path adds the files of one path.
func (f *finder) path(p string) error {
	stat, err := os.Stat(p)
	switch {
	case err != nil && errors.Is(err, fs.ErrNotExist) && strings.ContainsAny(p, special):
		return f.pattern(p)
	case err != nil:
		return Input{Name: p}.unreadable(0, err)
	case stat.IsDir():
		return f.within(p, ".")
	case !stat.Mode().IsRegular():
		return Input{Name: p}.fail(0, ErrMalformed, "", "not a file or a directory")
	}
	return f.add(foundFile{name: filepath.ToSlash(p), where: p, path: p})
}

// special are the characters of a pattern.
const special = "*?["

func (f *finder) pattern(p string) error {
	slashed := filepath.ToSlash(p)
	dir := slashed[:strings.LastIndexByte(slashed[:strings.IndexAny(slashed, special)], '/')+1]
	rest := slashed[len(dir):]
	if dir == "" {
		dir = "."
	}
	root, err := f.open(filepath.FromSlash(dir))
	if err != nil {
		return err
	}
	var only []doublestar.GlobOption
	if strings.Contains(rest, "**") { // ** matches directories in addition to the files in them
		only = append(only, doublestar.WithFilesOnly())
	}
	matches, err := doublestar.Glob(root.FS(), rest, only...)
	if err != nil {
		return Input{Name: p}.fail(0, err, "", "invalid pattern: %v", err)
	}
	if len(matches) == 0 {
		return Input{Name: p}.fail(0, fs.ErrNotExist, "", "no file matches the pattern")
	}
	for _, match := range matches {
		if err := f.walk(root, match); err != nil {
			return err
		}
	}
	return nil
}

// open opens a directory; nothing outside of it is read.
func (f *finder) open(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, Input{Name: dir}.unreadable(0, err)
	}
	f.roots = append(f.roots, root)
	return root, nil
}

// within adds the files of a directory that lie at or below a place in it.
func (f *finder) within(dir, from string) error {
	root, err := f.open(dir)
	if err != nil {
		return err
	}
	return f.walk(root, from)
}

func (f *finder) walk(root *os.Root, from string) error {
	return fs.WalkDir(root.FS(), from, func(p string, entry fs.DirEntry, err error) error {
		where := filepath.Join(root.Name(), filepath.FromSlash(p))
		if err != nil {
			return Input{Name: where}.unreadable(0, err)
		}
		mode := entry.Type()
		if mode&fs.ModeSymlink != 0 || len(f.except) > 0 {
			stat, err := root.Stat(p)
			switch {
			case errors.Is(err, fs.ErrNotExist) && mode.IsRegular(): // removed since
				return nil
			case err != nil:
				return Input{Name: where}.fail(0, err, "give the target as a PATH of its own, or remove the link", "the target of the link is not a file in the directory: %s", systemReason(err))
			case !slices.ContainsFunc(f.except, func(e fs.FileInfo) bool { return os.SameFile(e, stat) }):
				mode = stat.Mode().Type()
			case entry.IsDir():
				return fs.SkipDir
			default:
				return nil
			}
		}
		if !mode.IsRegular() {
			return nil
		}
		return f.add(foundFile{name: p, where: where, root: root, path: p})
	})
}

func (f *finder) add(file foundFile) error {
	if !utf8.ValidString(file.name) {
		return Input{Name: fmt.Sprintf("%q", file.where)}.fail(0, ErrMalformed, "", "the name is not UTF-8")
	}
	f.files = append(f.files, file)
	return nil
}

func byName(a, b foundFile) int { return strings.Compare(a.name, b.name) }

// sorted adds the files of one path in the order of their names.
func (f *finder) sorted(p string) error {
	before := len(f.files)
	err := f.path(p)
	slices.SortStableFunc(f.files[before:], byName)
	return err
}

// unique rejects two files with the same name.
func (f *finder) unique() error {
	all := slices.Clone(f.files)
	slices.SortStableFunc(all, byName)
	for i := range all[min(1, len(all)):] {
		if a, b := &all[i], &all[i+1]; a.name == b.name {
			return Input{Name: b.where}.fail(0, ErrMalformed, "give the directory that contains both", "duplicate name %.200q, first used by %s", b.name, a.where)
		}
	}
	return nil
}

// chunks yields the chunks of a file.
func (f *foundFile) chunks(o FilesOptions) Source {
	return func(yield func([]byte, error) bool) {
		in := Input{Name: f.where, MaxChunk: o.MaxChunk}
		file, size, err := f.open()
		if err != nil {
			yield(nil, in.unreadable(0, err))
			return
		}
		defer file.Close()
		in.Reader = file
		if o.Unpack != nil {
			content, n, err := in.unpack(file, o)
			if err != nil {
				yield(nil, err)
				return
			}
			if content != nil {
				defer content.Close()
				in.Reader, size = content, n
			}
		}
		p := parts{file: f, in: in, size: size, left: size}
		for item, err := range p.all(o) {
			if !yield(item, err) || err != nil {
				return
			}
		}
	}
}

// unpack returns the content of a compressed file and its size, or nil. Without Split it
// reads no more than fits in a chunk.
func (in Input) unpack(file io.ReadSeeker, o FilesOptions) (content io.ReadCloser, size int64, err error) {
	if content, err = o.Unpack(file); content != nil {
		most := int64(math.MaxInt64)
		if o.Split == 0 {
			most = int64(in.limit()) + 1
		}
		size, err = io.Copy(io.Discard, io.LimitReader(content, most))
		content.Close()
		if err == nil && o.Split == 0 && size == most {
			return nil, 0, in.fail(0, ErrTooLarge, HintSplit, "too large: the decompressed content does not fit in a chunk of %d bytes", in.limit())
		}
	}
	if err == nil {
		_, err = file.Seek(0, io.SeekStart)
	}
	if err == nil && content != nil {
		content, err = o.Unpack(file)
	}
	if err != nil {
		return nil, 0, in.unreadable(0, err)
	}
	return content, size, nil
}

// open opens a file, which may have changed its type since it was found.
func (f *foundFile) open() (file *os.File, size int64, err error) {
	if f.root == nil {
		file, err = os.Open(f.path)
	} else {
		file, err = f.root.Open(filepath.FromSlash(path.Clean(f.path)))
	}
	if err != nil {
		return nil, 0, err
	}
	stat, err := file.Stat()
	if err == nil && !stat.Mode().IsRegular() {
		err = ErrChanged
	}
	if err != nil {
		file.Close()
		return nil, 0, err
	}
	return file, stat.Size(), nil
}

// parts makes the chunks of one file, whose size is known.
type parts struct {
	file       *foundFile
	in         Input
	size, left int64
	buf, item  []byte
}

func (p *parts) all(o FilesOptions) iter.Seq2[[]byte, error] {
	next := func() ([]byte, error) { return p.read(o.Split) }
	if o.Split > 0 && o.AtLines {
		in := p.in
		in.Reader = io.LimitReader(in.Reader, p.size)
		next = newCutter(in, Cut{Bytes: o.Split}).next
	}
	return func(yield func([]byte, error) bool) {
		for part := uint64(0); part == 0 || p.left > 0; part++ {
			b, err := next()
			switch {
			case err == io.EOF && p.left > 0:
				err = p.changed()
			case err == io.EOF: // of an empty file
				err = nil
			}
			if err == nil {
				err = p.append(part, b, o.Split > 0)
			}
			if !yield(p.item, err) || err != nil {
				return
			}
		}
		if n, err := p.in.Reader.Read(make([]byte, 1)); n > 0 || err != io.EOF {
			yield(nil, p.changed())
		}
	}
}

func (p *parts) changed() error {
	return p.in.fail(0, ErrChanged, "run again when no other program writes to it", "the file changed while it was read")
}

// read reads the next part of at most split bytes, or all that is left.
func (p *parts) read(split int64) ([]byte, error) {
	n := p.left
	if split > 0 {
		n = min(n, split)
	}
	if n > int64(p.in.limit()) {
		return nil, p.tooLarge(split, n)
	}
	p.buf = slices.Grow(p.buf[:0], int(n))[:n]
	if _, err := io.ReadFull(p.in.Reader, p.buf); err == io.EOF && n > 0 || err == io.ErrUnexpectedEOF {
		return nil, p.changed()
	} else if err != nil && err != io.EOF {
		return nil, p.in.unreadable(0, err)
	}
	return p.buf, nil
}

func (p *parts) tooLarge(split, n int64) error {
	hint := HintSplit
	if split > 0 {
		hint = HintSmallerSplit
	}
	return p.in.fail(0, ErrTooLarge, hint, "too large: %d bytes do not fit in a chunk of %d bytes", n, p.in.limit())
}

// append makes the chunk of a part.
func (p *parts) append(part uint64, b []byte, split bool) error {
	offset := p.size - p.left
	p.left -= int64(len(b))
	keys := uint64(3)
	if split {
		keys = 5
	}
	item := abi.AppendHead(p.item[:0], abi.MajorMap, keys)
	item = abi.AppendText(abi.AppendText(item, "name"), p.file.name)
	if split {
		item = abi.AppendHead(abi.AppendText(item, "part"), abi.MajorUint, part)
		item = abi.AppendHead(abi.AppendText(item, "offset"), abi.MajorUint, uint64(offset))
	}
	item = abi.AppendHead(abi.AppendText(item, "size"), abi.MajorUint, uint64(p.size))
	item = abi.AppendHead(abi.AppendText(item, "bytes"), abi.MajorBytes, uint64(len(b)))
	if p.item = append(item, b...); len(p.item) > p.in.limit() {
		if !split {
			return p.tooLarge(0, p.size)
		}
		return p.tooLarge(1, int64(len(b)))
	}
	return nil
}
