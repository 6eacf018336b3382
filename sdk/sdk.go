// Package sdk holds the SDKs, one file for each language that guests are written
// in, and the small projects around them that start a guest.
package sdk

import (
	"bytes"
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"text/template"

	"github.com/fxamacker/cbor/v2"
)

//go:embed go/wasmjobs.go c/wasm_jobs.h rust/wasm_jobs.rs assemblyscript/wasm_jobs.ts zig/wasm_jobs.zig templates
var files embed.FS

// copies say which file of a language a project copies, and where to.
var copies = map[string]struct{ from, to string }{
	"assemblyscript": {"assemblyscript/wasm_jobs.ts", "wasm_jobs.ts"},
	"c":              {"c/wasm_jobs.h", "wasm_jobs.h"},
	"go":             {"go/wasmjobs.go", "wasmjobs/wasmjobs.go"},
	"rust":           {"rust/wasm_jobs.rs", "wasm_jobs.rs"},
	"zig":            {"zig/wasm_jobs.zig", "wasm_jobs.zig"},
}

// Languages returns the languages that there are projects in, in order.
func Languages() []string {
	names := []string{}
	for name := range copies {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// File is one file of a project.
type File struct {
	Path    string // with slashes, from the project's directory
	Content []byte
}

// Project returns the files of a new guest in one of [Languages], in the order
// of their paths. name is that of its directory and its module: letters, digits,
// - and _, of which it must be made of already.
func Project(language, name string) ([]File, error) {
	from, ok := copies[language]
	if !ok {
		return nil, fmt.Errorf("no language %q; there are %s", language, strings.Join(Languages(), ", "))
	}
	sdk, err := files.ReadFile(from.from)
	if err != nil {
		return nil, err
	}
	project := []File{{from.to, sdk}, {"chunks.cbor", exampleChunks()}}
	for _, root := range []string{"templates/all", "templates/" + language} {
		err := fs.WalkDir(files, root, func(p string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			content, err := render(p, name)
			project = append(project, File{target(strings.TrimPrefix(p, root+"/")), content})
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(project, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return project, nil
}

// render fills in a template. Its marks are <<these>>, since C, Go and make have
// use for braces.
func render(p, name string) ([]byte, error) {
	content, err := files.ReadFile(p)
	if err != nil {
		return nil, err
	}
	t, err := template.New(path.Base(p)).Delims("<<", ">>").Option("missingkey=error").Parse(string(content))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = t.Execute(&b, map[string]string{"name": name})
	return b.Bytes(), err
}

// exampleChunks is a chunk file: ten ranges of a thousand numbers.
func exampleChunks() (sequence []byte) {
	type chunk struct {
		ID   int `cbor:"id"`
		To   int `cbor:"to"`
		From int `cbor:"from"`
	}
	for i := range 10 {
		b, err := cbor.Marshal(chunk{i, 1000 * (i + 1), 1000 * i})
		if err != nil {
			panic(err) // three integers always encode
		}
		sequence = append(sequence, b...)
	}
	return sequence
}

// target returns the path in a project of a template.
func target(template string) string {
	return strings.Replace(strings.TrimSuffix(template, ".tmpl"), "dot-", ".", 1)
}
