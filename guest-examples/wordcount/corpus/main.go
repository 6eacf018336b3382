// Corpus writes a chunk for each regular file in a directory, to count the words
// of: the map {"id": path, "text": bytes}. The path is relative to the directory,
// with slashes. Symbolic links are not followed.
//
//	go run ./guest-examples/wordcount/corpus DIR > chunks.cbor
package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	if len(args) != 1 {
		fmt.Fprintln(stderr, "usage: corpus DIR > chunks.cbor")
		return 2
	}
	out := bufio.NewWriterSize(stdout, 1<<20)
	files, size, err := write(out, args[0], sameAs(stdout))
	if err == nil {
		err = out.Flush()
	}
	if err != nil {
		fmt.Fprintln(stderr, "corpus:", err)
		return 1
	}
	fmt.Fprintf(stderr, "corpus: %d files, %.1f MB\n", files, float64(size)/1e6)
	return 0
}

// sameAs returns a test for the file out: it may lie in the directory.
func sameAs(out io.Writer) func(fs.FileInfo) bool {
	if f, ok := out.(*os.File); ok {
		if info, err := f.Stat(); err == nil {
			return func(other fs.FileInfo) bool { return os.SameFile(info, other) }
		}
	}
	return func(fs.FileInfo) bool { return false }
}

func write(out io.Writer, dir string, skip func(fs.FileInfo) bool) (files, size int, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return 0, 0, err
	}
	defer root.Close()
	tree := root.FS()
	err = fs.WalkDir(tree, ".", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		if info, err := entry.Info(); err != nil || skip(info) {
			return err
		}
		if !utf8.ValidString(path) {
			return fmt.Errorf("invalid file name %q: want UTF-8", path)
		}
		text, err := fs.ReadFile(tree, path)
		if err != nil {
			return err
		}
		files++
		size += len(text)
		_, err = out.Write(chunk(path, text))
		return err
	})
	return files, size, err
}

func chunk(path string, text []byte) []byte {
	b := abi.AppendHead(nil, abi.MajorMap, 2)
	b = abi.AppendText(abi.AppendText(b, "id"), path)
	b = abi.AppendHead(abi.AppendText(b, "text"), abi.MajorBytes, uint64(len(text)))
	return append(b, text...)
}
