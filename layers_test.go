// Package wasmjobs_test holds what concerns the repository as a whole.
package wasmjobs_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const modulePath = "github.com/wasm-jobs/wasm-jobs/"

// layers say what each folder of the repository may import of the others:
// cmd -> host -> {runtime, store, abi}, runtime -> abi. Siblings never meet.
var layers = map[string][]string{
	"abi":            {},
	"store":          {},
	"runtime":        {"abi"},
	"host":           {"runtime", "store", "abi"},
	"cmd":            {"host", "runtime", "store", "abi", "sdk"},
	"sdk":            {}, // what guests copy
	"guest-examples": {"abi", "sdk"},
}

// engines say where a library may be known that the layers above are not to
// depend on.
var engines = map[string][]string{
	"github.com/tetratelabs/wazero":   {"runtime"},
	"github.com/urfave/cli/":          {"cmd"},
	"github.com/cenkalti/backoff/":    {"host"},
	"github.com/schollz/progressbar/": {"cmd"},
	"github.com/ncruces/go-sqlite3":   {"store/sqlite"},
	"github.com/secure-systems-lab/":  {"cmd/wasm-jobs"},
	"gopkg.in/yaml":                   {}, // of tests
}

// TestLayers parses the files themselves: a test that asks the go command
// would be cached past a violation.
func TestLayers(t *testing.T) {
	files := 0
	err := filepath.WalkDir(".", func(path string, entry fs.DirEntry, err error) error {
		if _, none := os.Stat(filepath.Join(path, "go.mod")); path != "." && none == nil {
			return filepath.SkipDir // a module of its own, with what it imports
		}
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata/") {
			return err
		}
		folder, _, nested := strings.Cut(filepath.ToSlash(path), "/")
		if !nested {
			return nil
		}
		files++
		for _, violation := range violations(t, folder, path) {
			t.Error(violation)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 20 {
		t.Errorf("only %d files were read", files)
	}
}

func violations(t *testing.T, folder, path string) (found []string) {
	allowed, known := layers[folder]
	if !known {
		return []string{path + ": folder " + folder + " has no layer: give it one in layers_test.go"}
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
		if rest, own := strings.CutPrefix(imported, modulePath); own {
			other, _, _ := strings.Cut(rest, "/")
			if other != folder && !slices.Contains(allowed, other) {
				found = append(found, path+": "+folder+" must not import "+rest)
			}
		}
		for library, folders := range engines {
			within := func(f string) bool { return strings.HasPrefix(filepath.ToSlash(path), f+"/") }
			if strings.HasPrefix(imported, library) && !slices.ContainsFunc(folders, within) {
				found = append(found, path+": "+folder+" must not know "+imported)
			}
		}
	}
	return found
}
