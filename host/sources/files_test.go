package sources_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

// tree makes files in a new directory, and goes there.
func tree(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	t.Chdir(dir)
	for name, content := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestFiles(t *testing.T) {
	tree(t, map[string]string{"d/a.txt": "aa\nb\n", "d/a/z": "", "d/b": "123", "e/x/1.md": "1", "e/y/2.md": "2", "e/y/3": "3"})
	for _, tt := range []struct {
		name  string
		paths []string
		o     sources.FilesOptions
		want  []string
		err   string
	}{
		{name: "of nothing"},
		{name: "a directory, in the order of names", paths: []string{"d"}, want: []string{
			`{"name": "a.txt", "size": 5, "bytes": h'61610a620a'}`, `{"name": "a/z", "size": 0, "bytes": h''}`, `{"name": "b", "size": 3, "bytes": h'313233'}`}},
		{name: "a file and a pattern", paths: []string{"e/*/*.md", "d/b"}, want: []string{
			`{"name": "x/1.md", "size": 1, "bytes": h'31'}`, `{"name": "y/2.md", "size": 1, "bytes": h'32'}`, `{"name": "d/b", "size": 3, "bytes": h'313233'}`}},
		{name: "a pattern of directories", paths: []string{"e/?"}, want: []string{
			`{"name": "x/1.md", "size": 1, "bytes": h'31'}`, `{"name": "y/2.md", "size": 1, "bytes": h'32'}`, `{"name": "y/3", "size": 1, "bytes": h'33'}`}},
		{name: "parts", paths: []string{"d"}, o: sources.FilesOptions{Split: 4}, want: []string{
			`{"name": "a.txt", "part": 0, "offset": 0, "size": 5, "bytes": h'61610a62'}`, `{"name": "a.txt", "part": 1, "offset": 4, "size": 5, "bytes": h'0a'}`,
			`{"name": "a/z", "part": 0, "offset": 0, "size": 0, "bytes": h''}`, `{"name": "b", "part": 0, "offset": 0, "size": 3, "bytes": h'313233'}`}},
		{name: "parts of lines", paths: []string{"d"}, o: sources.FilesOptions{Split: 4, AtLines: true}, want: []string{
			`{"name": "a.txt", "part": 0, "offset": 0, "size": 5, "bytes": h'61610a'}`, `{"name": "a.txt", "part": 1, "offset": 3, "size": 5, "bytes": h'620a'}`,
			`{"name": "a/z", "part": 0, "offset": 0, "size": 0, "bytes": h''}`, `{"name": "b", "part": 0, "offset": 0, "size": 3, "bytes": h'313233'}`}},
		{name: "too large", paths: []string{"d/b"}, o: sources.FilesOptions{MaxChunk: 20}, err: "d/b: too large: 3 bytes do not fit in a chunk of 20 bytes; MaxChunk sets the limit, and Split cuts files"},
		{name: "parts too large", paths: []string{"d/b"}, o: sources.FilesOptions{MaxChunk: 20, Split: 3}, err: "d/b: too large: 3 bytes do not fit in a chunk of 20 bytes; MaxChunk sets the limit, and a smaller Split makes smaller parts"},
		{name: "not there", paths: []string{"d", "nothere"}, err: "nothere: cannot be read: no such file or directory"},
		{name: "no match", paths: []string{"d/*.md"}, err: "d/*.md: no file matches the pattern"},
		{name: "no pattern", paths: []string{"d/[a"}, err: "d/[a: invalid pattern: syntax error in pattern"},
		{name: "twice", paths: []string{"d", "d"}, err: `d/a.txt: duplicate name "a.txt", first used by d/a.txt; give the directory that contains both`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if runtime.GOOS == "windows" && tt.err != "" {
				t.Skip("paths and messages of the system differ there")
			}
			check(t, sources.Files(tt.paths, tt.o), tt.want, tt.err, nil)
		})
	}
}

func TestFilesExcept(t *testing.T) {
	tree(t, map[string]string{"d/a": "1", "d/b": "2", "d/c/d": "3"})
	var except []fs.FileInfo
	for _, name := range []string{"d/b", "d/c"} {
		stat, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		except = append(except, stat)
	}
	check(t, sources.Files([]string{"d"}, sources.FilesOptions{Except: except}), []string{`{"name": "a", "size": 1, "bytes": h'31'}`}, "", nil)
}

// Links to files of the directory are read; others are refused.
func TestLinks(t *testing.T) {
	tree(t, map[string]string{"d/a": "1", "d/sub/b": "2", "secret": "no"})
	link := func(to, from string) {
		t.Helper()
		if err := os.Symlink(to, from); err != nil {
			t.Skip(err)
		}
	}
	link("sub/b", "d/inside")
	link("sub", "d/dir")
	want := []string{`{"name": "a", "size": 1, "bytes": h'31'}`, `{"name": "inside", "size": 1, "bytes": h'32'}`, `{"name": "sub/b", "size": 1, "bytes": h'32'}`}
	check(t, sources.Files([]string{"d"}, sources.FilesOptions{}), want, "", nil)
	for _, to := range []string{"../secret", "nothere", filepath.Join(os.TempDir(), "x"), ".."} {
		link(to, "d/out")
		_, err := collect(t, sources.Files([]string{"d"}, sources.FilesOptions{}))
		checkError(t, err, err.Error(), nil)
		if err := os.Remove("d/out"); err != nil {
			t.Fatal(err)
		}
	}
	link("d", "linked") // a path of its own
	check(t, sources.Files([]string{"linked"}, sources.FilesOptions{}), want, "", nil)
}
