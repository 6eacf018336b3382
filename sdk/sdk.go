// Package sdk has the SDKs, one file for each language of guests, and a small project
// for each language to start a guest with.
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
)

//go:embed go/wasmjobs.go c/wasm_jobs.h rust/wasm_jobs.rs assemblyscript/wasm_jobs.ts zig/wasm_jobs.zig templates
var files embed.FS

// copies has the file that a project of a language copies, and its name there.
var copies = map[string]struct{ from, to string }{
	"assemblyscript": {"assemblyscript/wasm_jobs.ts", "wasm_jobs.ts"},
	"c":              {"c/wasm_jobs.h", "wasm_jobs.h"},
	"go":             {"go/wasmjobs.go", "wasmjobs/wasmjobs.go"},
	"rust":           {"rust/wasm_jobs.rs", "wasm_jobs.rs"},
	"zig":            {"zig/wasm_jobs.zig", "wasm_jobs.zig"},
}

// Languages returns the languages that have projects, in order.
func Languages() []string {
	names := []string{}
	for name := range copies {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// example is one of the small jobs that a project can start with.
type example struct {
	name   string
	about  string // continues a sentence that begins with the project's name
	data   string // the input, in the README
	input  string // the arguments of run after the module
	output string // name of the type of outputs, which has two numbers
	a, b   string // their names, in the order of their keys in deterministic CBOR
	max    bool   // b of a result is the largest of its parts, not their sum
}

var examples = []example{
	{"primes", "counts the prime numbers in ranges of integers. A chunk is a range. Its output is the number of primes in it and the largest one.",
		"the ten ranges of `chunks.jsonl`", "--jsonl chunks.jsonl", "Primes", "Count", "Largest", true},
	{"lines", "counts lines and words. A chunk is a text of some lines. Change it into what your logs need.",
		"the lines of `log.txt`, four in a chunk", "--lines log.txt --chunk-lines 4", "Counts", "Lines", "Words", false},
	{"csv", "sums a column of a CSV file. A chunk is a record.",
		"the records of `orders.csv`", "--csv orders.csv --csv-types cents:uint", "Sales", "Cents", "Orders", false},
	{"files", "counts the lines and bytes of files. A chunk is a file.",
		"the files in `texts`", "--files texts", "Sizes", "Bytes", "Lines", false},
	{"montecarlo", "estimates pi. A chunk is a number of random points in a square, with its id as the seed; its output says how many are in the circle, whose share is pi/4.",
		"the eight chunks of `chunks.jsonl`", "--jsonl chunks.jsonl", "Points", "Inside", "Points", false},
}

// Examples returns the names of the examples, the simplest first.
func Examples() (names []string) {
	for _, e := range examples {
		names = append(names, e.name)
	}
	return names
}

// File is one file of a project.
type File struct {
	Path    string // with slashes, from the project's directory
	Content []byte
}

// Project returns the files of a new guest with the example primes: see [ExampleProject].
func Project(language, name string) ([]File, error) {
	return ExampleProject(language, "primes", name)
}

// ExampleProject returns the files of a new guest in one of [Languages], with one of
// [Examples], in the order of their paths. name is the name of its directory and its
// module. It must consist of letters, digits, - and _, which ExampleProject does not
// check.
func ExampleProject(language, exampleName, name string) ([]File, error) {
	from, ok := copies[language]
	if !ok {
		return nil, fmt.Errorf("unknown language %q: want one of %s", language, strings.Join(Languages(), ", "))
	}
	at := slices.IndexFunc(examples, func(e example) bool { return e.name == exampleName })
	if at < 0 {
		return nil, fmt.Errorf("unknown example %q: want one of %s", exampleName, strings.Join(Examples(), ", "))
	}
	sdk, err := files.ReadFile(from.from)
	if err != nil {
		return nil, err
	}
	p := &project{language: language, example: &examples[at], name: name, files: []File{{from.to, sdk}}}
	for _, root := range []string{"templates/all", "templates/" + language, "templates/examples/" + exampleName} {
		if err := p.add(root); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(p.files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return p.files, nil
}

// project collects the files of a project.
type project struct {
	language, name string
	example        *example
	files          []File
}

// add adds the files below a directory, with templates filled in.
func (p *project) add(root string) error {
	return fs.WalkDir(files, root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := files.ReadFile(path)
		if err == nil && strings.HasSuffix(path, ".tmpl") {
			content, err = p.render(path, content)
		}
		p.files = append(p.files, File{target(strings.TrimPrefix(path, root+"/")), content})
		return err
	})
}

// render fills in a template. Its marks are <%these%>, because C, Go and make use
// braces. The parts that an example has of its own are templates that it defines.
func (p *project) render(name string, content []byte) ([]byte, error) {
	t := template.New(path.Base(name)).Delims("<%", "%>").Option("missingkey=error").Funcs(template.FuncMap{"lower": strings.ToLower})
	parts, err := files.ReadFile("templates/parts/" + p.language + "/" + p.example.name + ".tmpl")
	if err != nil {
		return nil, err
	}
	if _, err := t.New("parts").Parse(string(parts)); err != nil {
		return nil, err
	}
	if _, err := t.Parse(string(content)); err != nil {
		return nil, err
	}
	var b bytes.Buffer
	e := p.example
	err = t.Execute(&b, map[string]any{
		"name": p.name, "language": p.language, "does": e.about, "data": e.data, "input": e.input, "Output": e.output, "A": e.a, "B": e.b, "max": e.max, "width": max(len(e.a), len(e.b)),
		"about":    comment("// ", p.name, e.about),
		"docAbout": comment("//! ", p.name, e.about),
	})
	return b.Bytes(), err
}

// comment returns a text as the rest of a comment that begins with the name.
func comment(prefix, name, text string) string {
	const width = 88
	line, out := prefix+name, ""
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > width {
			out += line + "\n"
			line = strings.TrimRight(prefix, " ")
		}
		line += " " + word
	}
	return strings.TrimPrefix(out+line, prefix+name+" ")
}

// target returns the path of a template's file in a project.
func target(template string) string {
	return strings.Replace(strings.TrimSuffix(template, ".tmpl"), "dot-", ".", 1)
}
