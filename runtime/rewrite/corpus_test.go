package rewrite_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// specRoot is the directory of the W3C core test suite in the engine's source,
// as compiled modules and scripts.
var specRoot = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	return filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest"), err
})

func specDir(t testing.TB) string {
	root, err := specRoot()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return root
}

// specModules returns the valid modules of the suite, by name.
func specModules(t testing.TB) map[string][]byte {
	modules := map[string][]byte{}
	for _, version := range []string{"v1", "v2", "extended-const"} {
		for _, s := range specScripts(t, version) {
			for _, c := range s.Commands {
				switch c.Type {
				case "module", "assert_unlinkable", "assert_uninstantiable":
					if strings.HasSuffix(c.Filename, ".wasm") {
						modules[version+"/"+c.Filename] = s.read(t, c.Filename)
					}
				}
			}
		}
	}
	return modules
}

func (s *script) read(t testing.TB, name string) []byte {
	b, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
