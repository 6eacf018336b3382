package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func chunksSplitCommand(c *console) *cli.Command {
	return readingCommand("split", "split a chunk file into several",
		`wasm-jobs chunks split -n N|--size SIZE [flags] [FILE]

Example: wasm-jobs chunks split -n 4 chunks.cbor

It writes PREFIX-000000.cbor, PREFIX-000001.cbor and so on, and prints their names.
The files appear when all of them are complete. chunks merge of these files, in this
order, gives the chunks of FILE again. The id of a chunk without its own id is its
position, which changes in the new file.`,
		[]cli.Flag{
			&cli.IntFlag{Name: "n", Usage: "make `N` files with nearly equal numbers of chunks"},
			&cli.StringFlag{Name: "size", Usage: "make files of at most `SIZE`; a larger chunk gets its own file"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, DefaultText: "FILE without .cbor", Usage: "`PREFIX` of the file names"},
			&cli.BoolFlag{Name: "json", Usage: "print the names as a JSON array"},
		},
		func(ctx *cli.Context, path string, o chunks.Options) (err error) {
			s := splitter{c: c, path: path, o: o, n: ctx.Int("n"), prefix: ctx.String("output")}
			switch {
			case isSet(ctx, "n") == isSet(ctx, "size"):
				return usageErrorf("split needs either -n N or --size SIZE")
			case isSet(ctx, "n") && (s.n < 1 || s.n > maxParts):
				return usageErrorf("invalid -n %d: want 1 to %d", s.n, maxParts)
			case isSet(ctx, "size"):
				if s.size, err = parseSize[int64](ctx, "size"); err != nil {
					return err
				}
			}
			if s.prefix == "" {
				if s.prefix = strings.TrimSuffix(path, ".cbor"); path == "-" {
					s.prefix = "chunks"
				}
			}
			defer s.discard()
			if err := untilSignal(ctx.Context, c, s.split); err != nil {
				return err
			}
			return outputError(s.print(ctx.Bool("json")))
		})
}

// maxParts is the number of file names of six digits, which sort in the order of the
// files.
const maxParts = 1_000_000

// splitter splits one chunk file.
type splitter struct {
	c      *console
	path   string
	o      chunks.Options
	n      int   // number of files; 0 if size is given
	size   int64 // maximum size of a file, in bytes
	prefix string

	files   []*atomicfile.File
	names   []string
	current *atomicfile.File
	w       *bufio.Writer
	file    *chunks.Writer // the current file
	empty   bool           // file has no chunk yet
}

func (s *splitter) split(ctx context.Context) error {
	if s.o.Name = s.path; s.path == "-" {
		s.o.Name = "standard input"
	}
	input, err := openInput(s.c, s.path)
	if err != nil {
		return err
	}
	defer input.Close()
	if s.n > 0 {
		err = s.intoCount(ctx, input)
	} else {
		err = s.intoSizes(ctx, input)
	}
	if err == nil {
		err = s.end()
	}
	if err != nil {
		return err
	}
	for _, file := range s.files {
		if err := file.Place(); err != nil {
			return err
		}
	}
	return nil
}

// intoCount reads the input twice: to count the chunks, and to write them.
func (s *splitter) intoCount(ctx context.Context, input io.Reader) error {
	var file *os.File
	plain, isFile := input.(*unpackedFile)
	if isFile = isFile && plain.Form() == ""; isFile {
		random := regular(plain)
		if isFile = random != nil; isFile {
			file = random.File
		}
	}
	if !isFile {
		temp, err := os.CreateTemp("", "wasm-jobs-chunks-*")
		if err != nil {
			return err
		}
		os.Remove(temp.Name())
		defer os.Remove(temp.Name()) // for systems that cannot remove an open file
		defer temp.Close()
		file, input = temp, io.TeeReader(input, temp)
	}
	count := 0
	if err := streamFrom(ctx, input, s.o, func(chunks.Chunk) error { count++; return nil }); err != nil {
		return err
	}
	if count == 0 {
		warnNoChunks(s.c, s.o.Name)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	err := streamFrom(ctx, file, s.o, func(chunk chunks.Chunk) error {
		for len(s.names) == 0 || chunk.Position >= len(s.names)*count/s.n && len(s.names) < s.n {
			if err := s.begin(); err != nil {
				return err
			}
		}
		return s.file.Write(chunk.Bytes)
	})
	for err == nil && len(s.names) < s.n { // without chunks
		err = s.begin()
	}
	return err
}

func (s *splitter) intoSizes(ctx context.Context, input io.Reader) error {
	err := streamFrom(ctx, input, s.o, func(chunk chunks.Chunk) error {
		if s.current == nil || !s.empty && s.file.SizeWith(chunk.Bytes) > s.size {
			if err := s.begin(); err != nil {
				return err
			}
		}
		s.empty = false
		return s.file.Write(chunk.Bytes)
	})
	if err == nil && s.current == nil {
		warnNoChunks(s.c, s.o.Name)
		err = s.begin()
	}
	return err
}

// begin ends the current file and starts the next one.
func (s *splitter) begin() error {
	if err := s.end(); err != nil {
		return err
	}
	if len(s.names) == maxParts {
		return usageErrorf("%s: --size %[3]d is too small: it makes more than %[2]d files", s.o.Name, maxParts, s.size)
	}
	name := s.part(len(s.names))
	if locate(name).is(locate(s.path)) {
		return wouldReplace("", name, "the input "+s.path)
	}
	t, err := atomicfile.Create(name)
	if err != nil {
		return usageErrorf("%s cannot be written: %s", name, withoutPath(err))
	}
	s.names, s.files, s.current, s.empty = append(s.names, name), append(s.files, t), t, true
	if s.w == nil {
		s.w = bufio.NewWriterSize(nil, 1<<18)
	}
	s.w.Reset(t.Out())
	s.file = chunks.NewWriter(s.w)
	return nil
}

func (s *splitter) part(i int) string { return fmt.Sprintf("%s-%06d.cbor", s.prefix, i) }

// end closes the current file. It gets its name when all files are written.
func (s *splitter) end() error {
	if s.current == nil {
		return nil
	}
	return errors.Join(s.file.Close(), s.w.Flush(), s.current.Seal())
}

// discard removes the files that were not put in place.
func (s *splitter) discard() {
	for _, file := range s.files {
		file.Discard()
	}
}

// print prints the names of the files. It warns if an older file has the name that
// would come next.
func (s *splitter) print(asJSON bool) error {
	next := s.part(len(s.names))
	if _, err := os.Lstat(next); err == nil {
		fmt.Fprintf(s.c.err, "wasm-jobs: warning: %s is left over from an earlier split\n", filepath.Clean(next))
	}
	if asJSON {
		return writeJSON(s.c.out, s.names)
	}
	for _, name := range s.names {
		if _, err := fmt.Fprintln(s.c.out, name); err != nil {
			return err
		}
	}
	return nil
}
