//go:build ignore

// Dirs writes a chunk for each directory below a root that has files: its name, and
// its files with their contents.
package main

import (
	"io/fs"
	"log"
	"os"
	"path"

	"github.com/fxamacker/cbor/v2"
)

type file struct {
	Name  string `cbor:"name"`
	Bytes []byte `cbor:"bytes"`
}

type dir struct {
	ID    string `cbor:"id"`
	Files []file `cbor:"files"`
}

func main() {
	root := os.DirFS(os.Args[1])
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return write(root, name)
	})
	if err != nil {
		log.Fatal(err)
	}
}

func write(root fs.FS, name string) error {
	entries, err := fs.ReadDir(root, name)
	d := dir{ID: name}
	for _, e := range entries {
		if !e.Type().IsRegular() {
			continue
		}
		b, err := fs.ReadFile(root, path.Join(name, e.Name()))
		if err != nil {
			return err
		}
		d.Files = append(d.Files, file{e.Name(), b})
	}
	if err != nil || len(d.Files) == 0 {
		return err
	}
	return cbor.NewEncoder(os.Stdout).Encode(d)
}
