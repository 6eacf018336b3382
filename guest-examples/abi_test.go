package guestexamples_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// The smallest guests in ABI.md are complete.
func TestSmallestGuests(t *testing.T) {
	for language, build := range map[string][]string{
		"wat": {"wat2wasm", "-o"},
		"c":   {"clang-19", "--target=wasm32", "-O2", "-nostdlib", "-Wl,--no-entry", "-o"},
	} {
		t.Run(language, func(t *testing.T) {
			if _, err := exec.LookPath(build[0]); err != nil {
				t.Skip(err)
			}
			page, err := os.ReadFile("../abi/ABI.md")
			if err != nil {
				t.Fatal(err)
			}
			block := regexp.MustCompile("(?s)```" + language + "\n(.*?)```").FindSubmatch(page)
			source := filepath.Join(t.TempDir(), "echo."+language)
			if err := os.WriteFile(source, block[1], 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(build[0], append(build[1:], source+".wasm", source)...).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			g := loadFile(t, source+".wasm")
			if got := g.must(t, "exec", unhex(t, "83010203")); !bytes.Equal(got, unhex(t, "83010203")) {
				t.Errorf("got %x", got)
			}
		})
	}
}

// The reader of wasm_jobs.h can skip every item of the vectors: the faulty guest
// returns the value that it is asked for.
func TestHeaderReadsVectors(t *testing.T) {
	g := loadFile(t, "faulty/c/faulty.wasm")
	var items struct {
		Vectors []struct {
			Name, Bytes string
			Size        int
		}
	}
	readVectors(t, "items.json", &items)
	for _, v := range items.Vectors {
		item := unhex(t, v.Bytes)
		if v.Size == 0 || v.Size < len(item) {
			continue
		}
		chunk := append(unhex(t, "bf 6576616c7565"), item...)
		chunk = append(chunk, unhex(t, "20 60 62646f 7f 616f 60 616b ff ff")...) // -1: "", "do": "ok"
		if got, err := g.run(t.Context(), &call{}, abi.ExportExec, chunk); err != nil || !bytes.Equal(got, item) {
			t.Errorf("%s: %x, %v", v.Name, got, err)
		}
	}
	var jobs struct {
		Vectors []struct {
			Name      string
			Outputs   []any
			Aggregate string
		}
	}
	readVectors(t, "envelopes.json", &jobs)
	for _, v := range jobs.Vectors {
		if got := g.must(t, abi.ExportAggregate, unhex(t, v.Aggregate)); !bytes.Equal(got, encode(t, len(v.Outputs))) {
			t.Errorf("%s: %x outputs", v.Name, got)
		}
	}
}

func readVectors(t *testing.T, name string, file any) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../testdata/abi", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, file); err != nil {
		t.Fatal(err)
	}
}
