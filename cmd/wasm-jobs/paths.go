package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/remote"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/outputs"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// verbPaths says which flags and arguments of a verb are paths that it writes or reads.
type verbPaths struct {
	results []string // flags
	inputs  []string // flags
	dirs    []string // flags of directories that guests read, HOST:GUEST
	args    bool     // the arguments are inputs too
	store   bool     // the verb has a store
	what    string   // name of the inputs in messages; "" = the path
}

// The results of a job and of a flow. A run that reads its sources can write skipped
// records, too.
var (
	jobResults       = []string{"output", "outputs", "dead-letter", "bundle", "report", "receipt", "events"}
	runResults       = append(slices.Clone(jobResults), "skip-bad")
	flowAgainResults = []string{"output", "outputs", "dead-letter", "report", "receipt", "events", "effects"}
	flowRunResults   = append(slices.Clone(flowAgainResults), "skip-bad")
)

// pathsOf returns the paths of a verb, such as "chunks ls". Verbs that are not listed write no given path,
// or replace it on purpose, or require that it does not exist.
func pathsOf(verb string) verbPaths {
	switch verb {
	case "run":
		return verbPaths{results: runResults, inputs: []string{"context", "lines", "jsonl", "csv", "parquet", "arrow", "files"}, dirs: []string{"dir"}, args: true, store: true}
	case "redrive":
		return verbPaths{results: jobResults, inputs: []string{"module", "chunks", "with-context"}, dirs: []string{"with-dir"}, store: true}
	case "output":
		return verbPaths{results: []string{"output", "outputs"}, store: true}
	case "report":
		return verbPaths{results: []string{"output"}, store: true}
	case "replay":
		return verbPaths{results: []string{"dump-memory"}, inputs: []string{"module"}, dirs: []string{"dir"}, args: true}
	case "sign":
		return verbPaths{results: []string{"output"}, inputs: []string{"key"}, args: true, what: "the receipt or the key"}
	case "wait":
		return verbPaths{results: jobResults, inputs: []string{"shared"}, store: true}
	case "flow run":
		return verbPaths{results: flowRunResults, inputs: []string{"context", "lines", "jsonl", "csv", "parquet", "arrow", "files", "replay-effects"}, args: true, store: true}
	case "flow redrive":
		return verbPaths{results: flowAgainResults, inputs: []string{"context", "replay-effects"}, store: true}
	case "flow verify":
		return verbPaths{results: []string{"skip-bad"}, inputs: []string{"context", "effects", "lines", "jsonl", "csv", "parquet", "arrow", "files"}, args: true, store: true}
	case "flow prove":
		return verbPaths{results: []string{"output"}, args: true, store: true}
	case "chunks from-lines", "chunks from-jsonl", "chunks from-csv":
		return verbPaths{results: []string{"output", "skip-bad"}, args: true}
	case "chunks from-parquet", "chunks from-arrow", "chunks from-files", "chunks ls", "chunks cat", "chunks merge", "chunks filter":
		return verbPaths{results: []string{"output"}, args: true}
	case "submit":
		return verbPaths{results: []string{"skip-bad"}, inputs: []string{"context", "shared", "lines", "jsonl", "csv", "parquet", "arrow", "files"}, dirs: []string{"dir"}, args: true}
	case "verify":
		return verbPaths{results: []string{"skip-bad"}, inputs: []string{"context", "outputs", "except", "lines", "jsonl", "csv", "parquet", "arrow", "files"}, dirs: []string{"dir"}, args: true, store: true}
	case "chunks from-range":
		return verbPaths{results: []string{"output"}}
	}
	return verbPaths{}
}

// checkPaths refuses, before a verb does anything, a result that would replace an
// input or is in the store. Only the dead letter may replace the chunk file, which then
// has the failed chunks for the next run.
func checkPaths(ctx *cli.Context) error {
	_, verb, _ := strings.Cut(ctx.Command.HelpName, " ") // without the program's name
	v := pathsOf(verb)
	for _, name := range v.results {
		for _, path := range resultsOfFlag(ctx, name) {
			if path == "" || path == "-" {
				continue
			}
			if err := v.check(ctx, name, path); err != nil {
				return err
			}
		}
	}
	return nil
}

// resultsOfFlag returns the paths that a flag of results names.
func resultsOfFlag(ctx *cli.Context, name string) []string {
	if name == "report" {
		return ctx.StringSlice(name)
	}
	return []string{ctx.String(name)}
}

// check compares one result with all inputs and the store.
func (v verbPaths) check(ctx *cli.Context, name, path string) error {
	result := locate(path)
	if name == "bundle" && result.isFile() {
		return nil // it must be a directory: a later check reports it
	}
	for _, input := range v.inputsOf(ctx, name) {
		if input != "" && input != "-" && result.is(locate(input)) {
			what := v.what
			if what == "" {
				what = "the input " + input
			}
			return wouldReplace("--"+name+" ", path, what)
		}
	}
	for _, dir := range v.dirsOf(ctx) {
		if root := locate(dir.host); result.is(root) || result.isFile() && result.isIn(root) {
			return wouldReplace("--"+name+" ", path, "files that guests read in "+dir.host)
		}
	}
	if !v.store || ctx.Bool("no-store") {
		return nil
	}
	if store, err := storeDir(ctx); err == nil && !postgres.IsURL(store) && result.isIn(locate(store)) {
		return usageErrorf("--%s %s is in the store %s: give another name", name, path, store)
	}
	return nil
}

func wouldReplace(flag, path, what string) error {
	return usageErrorf("%s%s would replace %s: give another name", flag, path, what)
}

// inputsOf returns the inputs that a result must not be.
func (v verbPaths) inputsOf(ctx *cli.Context, result string) (paths []string) {
	for _, name := range v.inputs {
		if name != "chunks" || result != "dead-letter" {
			paths = append(paths, pathsOfFlag(ctx, name)...)
		}
	}
	if !v.args {
		return paths
	}
	args := ctx.Args().Slice()
	if result == "dead-letter" {
		args = args[:min(len(args), 1)] // only the module, not CHUNKS
	}
	return append(paths, filesOf(args)...)
}

// pathsOfFlag returns the paths that a flag names, and the files of patterns.
func pathsOfFlag(ctx *cli.Context, name string) []string {
	if name == "except" {
		return ctx.StringSlice(name)
	}
	if !slices.Contains(sourceKinds, name) {
		return []string{ctx.String(name)}
	}
	return filesOf(ctx.StringSlice(name))
}

// filesOf returns paths and the files of patterns; what matches nothing is refused
// later.
func filesOf(patterns []string) (paths []string) {
	for _, pattern := range patterns {
		found, _ := match(pattern)
		paths = append(paths, found...)
	}
	return paths
}

func (v verbPaths) dirsOf(ctx *cli.Context) (dirs []hostDir) {
	for _, name := range v.dirs {
		for _, value := range ctx.StringSlice(name) {
			if dir, err := parseDir(value); err == nil { // parseCommand reports the error
				dirs = append(dirs, dir)
			}
		}
	}
	return dirs
}

// location is the target of a path, which need not exist.
type location struct {
	path string
	info fs.FileInfo // nil if it does not exist
}

// locate follows links, also in the existing part of a path that does not exist.
func locate(path string) location {
	if remote.IsURL(path) {
		return location{path: path}
	}
	path, rest := absolute(path), ""
	for {
		real, err := filepath.EvalSymlinks(path)
		if err == nil {
			return at(filepath.Join(real, rest))
		}
		parent := filepath.Dir(path)
		if parent == path {
			return at(filepath.Join(path, rest))
		}
		path, rest = parent, filepath.Join(filepath.Base(path), rest)
	}
}

func at(path string) location {
	info, err := os.Stat(path)
	if err != nil {
		info = nil
	}
	return location{path, info}
}

// is reports whether two locations are the same file or directory. It is false for
// devices and pipes, because writing to them replaces nothing.
func (p location) is(q location) bool {
	if p.info == nil || q.info == nil {
		return p.info == nil && q.info == nil && p.path == q.path
	}
	mode := p.info.Mode()
	return (mode.IsRegular() || mode.IsDir()) && os.SameFile(p.info, q.info)
}

func (p location) isFile() bool { return p.info != nil && p.info.Mode().IsRegular() }

// isIn reports whether a location is a directory or below it.
func (p location) isIn(dir location) bool {
	for !remote.IsURL(p.path) && !p.is(dir) {
		parent := filepath.Dir(p.path)
		if parent == p.path {
			return false
		}
		p = at(parent)
	}
	return p.is(dir)
}

// ours returns the existing directories with files of this program: the store of this
// run ("" for none), and its caches.
func ours(store string) (all []fs.FileInfo) {
	cache, _ := cacheDir()
	return infosOf(store, cache, compiledDir())
}

// infosOf returns the file info of each path that exists.
func infosOf(paths ...string) (all []fs.FileInfo) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil {
			all = append(all, info)
		}
	}
	return all
}

// checkRecorded refuses a result that would replace an input of a recorded job. No flag
// names these inputs.
func (o *runOptions) checkRecorded() error {
	return o.files.check(o.inputs, o.wasi.dirs)
}

// check refuses a result that would replace an input or a file in a directory that
// guests read. inputs returns the paths of inputs, with those of chunks if that is set.
func (f *resultFiles) check(inputs func(chunks bool) []string, dirs []hostDir) error {
	type result struct{ name, path string }
	results := []result{
		{"output", f.result}, {"outputs", f.outputs}, {"dead-letter", f.deadLetter}, {"bundle", f.bundle}, {"receipt", f.receipt}, {"events", f.events}, {"effects", f.effects},
	}
	for _, path := range f.reports {
		results = append(results, result{"report", path})
	}
	for _, r := range results {
		if r.path == "" || r.path == "-" {
			continue
		}
		result := locate(r.path)
		for _, input := range inputs(r.name != "dead-letter") {
			if result.is(locate(input)) {
				return wouldReplace("--"+r.name+" ", r.path, "the input "+input)
			}
		}
		for _, dir := range dirs {
			if root := locate(dir.host); result.is(root) || result.isFile() && result.isIn(root) {
				return wouldReplace("--"+r.name+" ", r.path, "files that guests read in "+dir.host)
			}
		}
	}
	return nil
}

// inputs returns the paths that the job reads. chunks includes the paths of its chunks.
func (o *runOptions) inputs(chunks bool) (paths []string) {
	all := []string{o.module, o.context}
	if chunks {
		all = append(all, o.chunks)
	}
	if chunks && o.source != nil && o.source.kind != "range-of" {
		all = append(all, o.source.found...)
	}
	for _, path := range all {
		if path != "" && path != "-" {
			paths = append(paths, path)
		}
	}
	return paths
}

// checkNames refuses a directory of outputs or bundles if one of its files would
// replace an input.
func (o *runOptions) checkNames(file *chunks.File) error {
	for flag, dir := range map[string]*outputs.Dir{"outputs": o.files.dir, "bundle": o.files.bundles} {
		if dir == nil {
			continue
		}
		ending := ".cbor"
		if flag == "bundle" {
			ending = bundleEnding
		}
		for _, input := range o.inputsIn(dir.Path(), ending) {
			for i := range file.Len() {
				if file.ID(i).FileName()+ending == filepath.Base(input) {
					return wouldReplace("--"+flag+" ", input, "the input of that name")
				}
			}
		}
	}
	return nil
}

// inputsIn returns the inputs that are files in a directory, with a name extension.
func (o *runOptions) inputsIn(dir, ending string) (inputs []string) {
	for _, path := range o.inputs(true) {
		for _, name := range []string{absolute(path), atomicfile.Resolve(path)} { // a link, and its target
			if strings.HasSuffix(name, ending) && locate(filepath.Dir(name)).is(locate(dir)) {
				inputs = append(inputs, name)
			}
		}
	}
	return inputs
}

func absolute(path string) string {
	if path == "-" || path == "" {
		return path
	}
	if remote.IsURL(path) {
		return remote.Recorded(path)
	}
	if a, err := filepath.Abs(path); err == nil {
		return a
	}
	return path
}
