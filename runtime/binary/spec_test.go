package binary_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/runtime/binary"
)

// specFile is one compiled module of the W3C core test suite, which is part of
// the engine's source.
type specFile struct {
	name    string // as in "v2/address.0.wasm"
	command string // of the suite's script: module, assert_invalid, assert_malformed ...
	text    string // the error that the script expects
	wasm    []byte
}

func specFiles(t testing.TB) (files []specFile) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/tetratelabs/wazero").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	root := filepath.Join(strings.TrimSpace(string(out)), "internal", "integration_test", "spectest")
	for _, version := range []string{"v1", "v2", "extended-const"} {
		scripts, err := filepath.Glob(filepath.Join(root, version, "testdata", "*.json"))
		if err != nil || len(scripts) == 0 {
			t.Fatalf("no scripts of %s: %v", version, err)
		}
		for _, script := range scripts {
			files = append(files, readScript(t, version, script)...)
		}
	}
	return files
}

func readScript(t testing.TB, version, path string) (files []specFile) {
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var script struct {
		Commands []struct{ Type, Filename, Text string }
	}
	if err := json.Unmarshal(b, &script); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for _, c := range script.Commands {
		if !strings.HasSuffix(c.Filename, ".wasm") {
			continue
		}
		wasm, err := os.ReadFile(filepath.Join(filepath.Dir(path), c.Filename))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, specFile{version + "/" + c.Filename, c.Type, c.Text, wasm})
	}
	return files
}

// beyond has the reasons for which valid modules of the suite are refused.
var beyond = []string{
	"the table needs a maximum of at most", // table.grow without bound
	"in more bytes than needed",            // long forms of 0xFC and 0xFD numbers
}

func TestSpecSuite(t *testing.T) {
	valid, refused, invalid, caught := 0, 0, 0, 0
	for _, f := range specFiles(t) {
		_, problems := binary.Parse(f.wasm)
		switch f.command {
		case "assert_invalid", "assert_malformed":
			invalid++
			if len(problems) > 0 {
				caught++
			} else if f.command == "assert_malformed" {
				t.Errorf("%s: malformed (%s), but accepted", f.name, f.text)
			}
		default:
			valid++
			if len(problems) > 0 {
				refused++
				t.Logf("%s: %v", f.name, problems)
			}
			for _, p := range problems {
				if !expected(p.Reason) {
					t.Errorf("%s: %v", f.name, p)
				}
			}
		}
	}
	t.Logf("%d valid modules, %d of them refused for a known reason; %d invalid ones, %d found here", valid, refused, invalid, caught)
	if valid < 1500 || invalid < 2000 {
		t.Errorf("only %d valid and %d invalid modules found", valid, invalid)
	}
}

func expected(reason string) bool {
	for _, b := range beyond {
		if strings.Contains(reason, b) {
			return true
		}
	}
	return false
}

// TestHeights follows the operand stack through the modules of the suite. If an
// instruction changes its height by another number than in the specification,
// blocks end with the wrong operands.
func TestHeights(t *testing.T) {
	all := 0
	for _, f := range specFiles(t) {
		if f.command == "assert_invalid" || f.command == "assert_malformed" {
			continue
		}
		wrong, ends := binary.Unbalanced(f.wasm)
		if all += ends; wrong > 0 {
			t.Errorf("%s: %d of %d blocks end with other operands than their type requires", f.name, wrong, ends)
		}
	}
	if all < 10_000 {
		t.Errorf("only %d ends of blocks were seen", all)
	}
}
