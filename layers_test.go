// Package wasmjobs_test tests the repository as a whole.
package wasmjobs_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/wasm-jobs/wasm-jobs/"

// wall lists the other folders that a folder may import, and the reason for the limit.
type wall struct {
	may    []string // folders, with those below them
	reason string
}

// walls are the walls of all folders with Go files. If a file is below several of them,
// the longest path counts. A folder may not import siblings that it does not list.
var walls = map[string]wall{
	"abi":            {nil, "the contract with guests knows no engine and no host"},
	"store":          {nil, "a store keeps bytes by keys, whatever they mean"},
	"store/sqlite":   {[]string{"store"}, "only its own store knows a driver"},
	"store/postgres": {[]string{"store"}, "only its own store knows a driver"},
	"cluster":        {[]string{"host", "runtime", "store", "abi"}, "one job on many machines: it wires a shared database with the parts of host"},
	"runtime":        {[]string{"abi"}, "bytes in, bytes out: no chunk file, no store, no job"},
	"sdk":            {nil, "what guests copy"},
	"guest-examples": {[]string{"abi", "sdk"}, "guests know the contract"},
	"examples":       {[]string{"host", "processor", "store", "abi"}, "they are programs of users"},
	"cmd":            {[]string{"flow", "host", "processor", "cluster", "runtime", "store", "abi", "sdk"}, "flags, words and exit codes over all of it"},

	"processor": {[]string{"abi", "runtime", "store", "host/action", "host/chunks", "host/lending", "host/notation", "host/sources", "host/values"}, "a request belongs to no job: host and processor know nothing of each other"},

	"flow":            {[]string{"abi", "runtime", "store", "host/action", "host/chunks", "host/event", "host/fold", "host/journal", "host/merkle", "host/queue", "host/receipt", "host/worker"}, "a flow has many functions and is not a job; both use the same parts"},
	"flow/definition": {[]string{"abi", "flow", "host/queue"}, "a definition is read without running anything"},
	"flow/effects":    {[]string{"abi", "flow", "host/notation", "host/worker", "runtime", "store"}, "all effects on the outside are in one place"},

	"host": {[]string{"runtime", "store", "abi", "host"}, "one job: it wires the parts"},

	"host/lending":    {nil, "a lender does not know the type of the things it lends"},
	"host/values":     {[]string{"abi"}, "Go values as items"},
	"host/action":     {[]string{"runtime", "store", "host/spec"}, "a key is made of settings, without a job or a request"},
	"host/event":      {[]string{"abi"}, "events are a leaf, so that every package can send them"},
	"host/merkle":     {[]string{"abi"}, "hashes of entries"},
	"host/chunks":     {[]string{"abi", "host/merkle"}, "an input is read without knowing who runs it"},
	"host/sources":    {[]string{"abi", "host/chunks", "host/notation"}, "chunks of other files"},
	"host/notation":   {[]string{"abi"}, "CBOR as text"},
	"host/queue":      {[]string{"abi", "host/event"}, "leases are values: a queue may be on another machine than the engine and the store"},
	"host/worker":     {[]string{"abi", "host/event", "host/merkle", "host/queue", "runtime", "store"}, "a worker executes leases of any queue, for any job"},
	"host/profile":    {[]string{"abi"}, "measurements are numbers, whoever made them"},
	"host/fold":       {[]string{"abi", "host/merkle"}, "a fold sees outputs in order, and knows no run"},
	"host/spec":       {[]string{"abi"}, "a specification can be read by programs that cannot run it"},
	"host/journal":    {[]string{"abi", "store", "host/event", "host/spec"}, "records are read without the module, the chunks or an engine"},
	"host/receipt":    {[]string{"abi", "host/merkle", "host/spec"}, "a receipt is read by programs that cannot run a job"},
	"host/bundle":     {[]string{"abi", "runtime", "host/spec"}, "a failed chunk, with everything needed to run it again"},
	"host/outputs":    {[]string{"abi", "host/chunks", "host/merkle", "host/notation", "host/sources"}, "writing outputs does not depend on who computed them"},
	"host/verify":     {[]string{"abi", "runtime", "host/chunks", "host/merkle", "host/notation", "host/outputs", "host/receipt", "host/spec"}, "the caller chooses the executor"},
	"host/replay":     {[]string{"abi", "runtime", "host/bundle", "host/guest"}, "it executes one chunk again, without a job"},
	"host/enginetest": {[]string{"abi", "runtime"}, "the suite of engines, which need not be a runtime"},
	"host/attest":     {[]string{"host/receipt", "host/notation"}, "a statement is about a receipt"},
	"host/guest":      {[]string{"abi", "runtime", "host/chunks", "host/guest", "host/merkle", "host/notation"}, "guest authors need no jobs"},
}

// libraries lists the folders that may import a library, and the reason why others may
// not. The walls above do not cover libraries.
var libraries = map[string]wall{
	"github.com/tetratelabs/wazero":   {[]string{"runtime"}, "the engine can be replaced"},
	"github.com/urfave/cli/":          {[]string{"cmd"}, "flags are the command's"},
	"github.com/cenkalti/backoff/":    {[]string{"host", "store/postgres", "cmd/wasm-jobs/internal/remote"}, "a queue waits for retries, and a database or URL for its server"},
	"go.opentelemetry.io/":            {[]string{"cmd"}, "packages offer events, not an exporter"},
	"github.com/jackc/":               {[]string{"store/postgres"}, "only its own store knows a driver; embedders of the others do not get it"},
	"github.com/HdrHistogram/":        {[]string{"host/profile"}, "only a profile has sketches, so that another library can make them"},
	"github.com/schollz/progressbar/": {[]string{"cmd"}, "the core knows no screen"},
	"github.com/ncruces/go-sqlite3":   {[]string{"store/sqlite"}, "only its own store knows a driver"},
	"github.com/secure-systems-lab/":  {[]string{"host/attest"}, "envelopes are made in one place"},
	modulePath + "store/postgres":     {[]string{"cluster", "cmd", "store/postgres"}, "embedders of the parts of one machine get no driver of a database"},
	"net/http":                        {[]string{"cmd", "processor/web", "flow/effects"}, "embedders get no server with a job runner"},
	"gopkg.in/yaml":                   {nil, "it is not maintained any more; only tests use it"},
	"github.com/goccy/go-yaml":        {[]string{"flow/definition"}, "only definitions are YAML"},
	"golang.org/x/time/":              {[]string{"flow"}, "only flows have rates"},
	"github.com/parquet-go/":          {[]string{"cmd/wasm-jobs/internal/parquet"}, "embedders get no formats of tables"},
	"github.com/andybalholm/brotli":   {[]string{"cmd/wasm-jobs/internal/parquet"}, "embedders get no formats of tables"},
	"github.com/pierrec/lz4/":         {[]string{"cmd/wasm-jobs/internal"}, "embedders get no formats of tables"},
	"github.com/klauspost/compress/":  {[]string{"cmd/wasm-jobs/internal"}, "embedders decide what they compress"},
	"github.com/aws/":                 {[]string{"cmd/wasm-jobs/internal/remote"}, "embedders read objects with clients of their own"},
	"github.com/fsnotify/":            {[]string{"cmd/wasm-jobs/internal/project"}, "only projects of guests are watched"},
	"github.com/jdx/go-netrc":         {[]string{"cmd/wasm-jobs/internal/remote"}, "only the command reads the user's files"},
	"database/sql":                    {nil, "only its own store knows a driver"},
}

// TestLayers checks the imports of all files. It parses the files itself: the result of
// a test that asks the go command would be cached in spite of a violation.
func TestLayers(t *testing.T) {
	files := 0
	eachSource(t, func(path string) {
		files++
		for _, violation := range violations(t, path) {
			t.Error(violation)
		}
	})
	if files < 20 {
		t.Errorf("only %d files were read", files)
	}
}

// eachSource calls f with every Go file in a folder of this module, except tests and
// files below testdata.
func eachSource(t *testing.T, f func(path string)) {
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if _, none := os.Stat(filepath.Join(path, "go.mod")); path != "." && none == nil {
			return filepath.SkipDir // another module, with imports of its own
		}
		path = filepath.ToSlash(path)
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata/") || !strings.Contains(path, "/") {
			return err
		}
		f(path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func violations(t *testing.T, path string) (found []string) {
	path = filepath.ToSlash(path)
	folder, w, known := wallOf(path)
	if !known {
		return []string{path + ": this folder has no wall: give it one in layers_test.go"}
	}
	f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range f.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		rest, own := strings.CutPrefix(imported, modulePath)
		if own && !below(rest, folder) && !slices.ContainsFunc(w.may, func(f string) bool { return below(rest, f) }) {
			found = append(found, path+" imports "+rest+": "+folder+" must not, because "+w.reason)
		}
		if own && rest == "host" && strings.HasPrefix(folder, "host/") {
			found = append(found, path+" imports host: folders below it must not, because host wires the parts")
		}
		for library, l := range libraries {
			if strings.HasPrefix(imported, library) && !slices.ContainsFunc(l.may, func(f string) bool { return below(path, f) }) {
				found = append(found, path+" imports "+imported+": "+folder+" must not, because "+l.reason)
			}
		}
	}
	return found
}

// wallOf returns the innermost folder with a wall that a file is below.
func wallOf(path string) (folder string, w wall, known bool) {
	for folder = filepath.ToSlash(filepath.Dir(path)); folder != "."; folder = filepath.ToSlash(filepath.Dir(folder)) {
		if w, known = walls[folder]; known {
			return folder, w, true
		}
	}
	return "", w, false
}

// below reports whether a path is the folder or is in it.
func below(path, folder string) bool { return path == folder || strings.HasPrefix(path, folder+"/") }

// TestWallsAreOfFolders checks that each folder with a wall exists.
func TestWallsAreOfFolders(t *testing.T) {
	for folder := range walls {
		if _, err := os.Stat(folder); err != nil {
			t.Error(err)
		}
	}
}

// TestNoCircles checks that the walls allow no import cycle.
func TestNoCircles(t *testing.T) {
	var visit func(folder string, way []string)
	visit = func(folder string, way []string) {
		if slices.Contains(way, folder) {
			t.Fatalf("cycle: %s", strings.Join(append(way, folder), " -> "))
		}
		for _, next := range walls[folder].may {
			if _, has := walls[next]; has && next != folder {
				visit(next, append(slices.Clone(way), folder))
			}
		}
	}
	for folder := range walls {
		visit(folder, nil)
	}
}

// TestTypesOfHostAreSmall checks that no type of host has more than 15 fields, or
// methods in more than two files.
func TestTypesOfHostAreSmall(t *testing.T) {
	const mostFields, mostFiles = 15, 2
	paths, err := filepath.Glob("host/*.go")
	if err != nil {
		t.Fatal(err)
	}
	methods := map[string]map[string]bool{}
	types := 0
	for _, path := range paths {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					types++
					if fields := s.Fields.NumFields(); fields > mostFields {
						t.Errorf("%s: %s has %d fields, want at most %d", path, n.Name, fields, mostFields)
					}
				}
			case *ast.FuncDecl:
				if n.Recv != nil {
					name := receiver(n.Recv.List[0].Type)
					if methods[name] == nil {
						methods[name] = map[string]bool{}
					}
					methods[name][path] = true
				}
			}
			return true
		})
	}
	for name, files := range methods {
		if len(files) > mostFiles {
			t.Errorf("the methods of %s are in %d files, want at most %d: %v", name, len(files), mostFiles, slices.Sorted(maps.Keys(files)))
		}
	}
	if types < 10 {
		t.Errorf("only %d types were read", types)
	}
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}

var (
	flagDefined = regexp.MustCompile(`Flag\{\s*Name: "([a-z][a-z-]*)"`)
	flagName    = regexp.MustCompile(`--([a-z][a-z-]*)`)
)

// flagsOfCommand returns the flags that the command defines. They do not include the
// flags of compilers, which some messages to guest authors name.
func flagsOfCommand(t *testing.T) map[string]bool {
	flags := map[string]bool{}
	eachSource(t, func(path string) {
		if !below(path, "cmd") {
			return
		}
		source, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range flagDefined.FindAllSubmatch(source, -1) {
			flags[string(m[1])] = true
		}
	})
	if len(flags) < 50 {
		t.Errorf("only %d flags were found", len(flags))
	}
	return flags
}

// TestNoFlagBelowTheCommand checks that string literals outside of cmd name no flag:
// only the command knows its flags.
func TestNoFlagBelowTheCommand(t *testing.T) {
	literals, flags := 0, flagsOfCommand(t)
	eachSource(t, func(path string) {
		if below(path, "cmd") || below(path, "sdk") || below(path, "guest-examples") || below(path, "bench") || below(path, "examples") {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				literals++
				for _, m := range flagName.FindAllStringSubmatch(l.Value, -1) {
					if flags[m[1]] {
						t.Errorf("%s names the flag %s: give the error a field, and let the command name the flag", path, m[0])
					}
				}
			}
			return true
		})
	})
	if literals < 1000 {
		t.Errorf("only %d literals were read", literals)
	}
}
