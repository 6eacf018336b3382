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

	"github.com/wasm-jobs/wasm-jobs/host/chunks"
)

func chunksSplitCommand(c *console) *cli.Command {
	return readingCommand("split", "split a chunk file into several",
		`wasm-jobs chunks split -n N|--size SIZE [flags] [FILE]

Example: wasm-jobs chunks split -n 4 chunks.cbor

Writes PREFIX-000000.cbor, PREFIX-000001.cbor and so on, and prints their names.
All appear when all of them are written. merge of them, in this order, gives the
chunks of FILE again. A chunk that states no id has another position, and with it
another id, in the new file.`,
		[]cli.Flag{
			&cli.IntFlag{Name: "n", Usage: "into `N` files with nearly as many chunks each"},
			&cli.StringFlag{Name: "size", Usage: "into files of at most `SIZE`; a chunk that is larger has a file of its own"},
			&cli.StringFlag{Name: "output", Aliases: []string{"o"}, DefaultText: "FILE without .cbor", Usage: "`PREFIX` of the names of the files"},
			&cli.BoolFlag{Name: "json", Usage: "print the names as a JSON array"},
		},
		func(ctx *cli.Context, path string, o chunks.Options) (err error) {
			s := splitter{c: c, path: path, o: o, n: ctx.Int("n"), prefix: ctx.String("output")}
			switch {
			case isSet(ctx, "n") == isSet(ctx, "size"):
				return refuse("split needs -n N or --size SIZE, one of them")
			case isSet(ctx, "n") && (s.n < 1 || s.n > maxParts):
				return refuse("-n %d is not from 1 to %d", s.n, maxParts)
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
			defer s.files.discard()
			if err := untilSignal(ctx.Context, s.split); err != nil {
				return err
			}
			return written(s.print(ctx.Bool("json")))
		})
}

// maxParts keeps the order of the files' names that of the files.
const maxParts = 1_000_000

// splitter splits one chunk file.
type splitter struct {
	c      *console
	path   string
	o      chunks.Options
	n      int   // files; 0 where size is given
	size   int64 // of a file at most
	prefix string

	files   resultFiles
	names   []string
	current *target
	w       *bufio.Writer
	held    int64 // bytes in the current file
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
	for _, t := range s.files.order {
		if t.temp != "" {
			if err := os.Rename(t.temp, t.path); err != nil {
				return err
			}
		}
	}
	return nil
}

// intoCount reads the input twice: to count its chunks, and to share them out.
func (s *splitter) intoCount(ctx context.Context, input io.Reader) error {
	file, isFile := input.(*os.File)
	if isFile {
		stat, err := file.Stat()
		isFile = err == nil && stat.Mode().IsRegular()
	}
	if !isFile {
		temp, err := os.CreateTemp("", "wasm-jobs-chunks-*")
		if err != nil {
			return err
		}
		defer os.Remove(temp.Name())
		defer temp.Close()
		file, input = temp, io.TeeReader(input, temp)
	}
	count := 0
	if err := streamFrom(ctx, input, s.o, func(chunks.Chunk) error { count++; return nil }); err != nil {
		return err
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
		_, err := s.w.Write(chunk.Bytes)
		return err
	})
	for err == nil && len(s.names) < s.n { // without chunks
		err = s.begin()
	}
	return err
}

func (s *splitter) intoSizes(ctx context.Context, input io.Reader) error {
	err := streamFrom(ctx, input, s.o, func(chunk chunks.Chunk) error {
		size := int64(len(chunk.Bytes))
		if s.current == nil || s.held > 0 && s.held+size > s.size {
			if err := s.begin(); err != nil {
				return err
			}
		}
		s.held += size
		_, err := s.w.Write(chunk.Bytes)
		return err
	})
	if err == nil && s.current == nil {
		err = s.begin()
	}
	return err
}

// begin ends the current file and begins the next.
func (s *splitter) begin() error {
	if err := s.end(); err != nil {
		return err
	}
	if len(s.names) == maxParts {
		return refuse("%s: more than %d files of --size %d: choose a larger one", s.o.Name, maxParts, s.size)
	}
	name := s.part(len(s.names))
	t, err := s.files.openTarget(resolve(name), s.c.out)
	if err != nil {
		return refuse("%s cannot be written: %w", name, err)
	}
	s.names, s.current, s.held = append(s.names, name), t, 0
	if s.w == nil {
		s.w = bufio.NewWriterSize(nil, 1<<18)
	}
	s.w.Reset(t.file)
	return nil
}

func (s *splitter) part(i int) string { return fmt.Sprintf("%s-%06d.cbor", s.prefix, i) }

// end closes the current file, which has its name only once all are written.
func (s *splitter) end() error {
	if s.current == nil {
		return nil
	}
	return errors.Join(s.w.Flush(), s.current.seal())
}

// print says which files were written, and warns of one that looks as if it
// were the next.
func (s *splitter) print(asJSON bool) error {
	next := s.part(len(s.names))
	if _, err := os.Lstat(next); err == nil {
		fmt.Fprintf(s.c.err, "wasm-jobs: warning: %s is of an earlier split: it was not written now\n", filepath.Clean(next))
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
