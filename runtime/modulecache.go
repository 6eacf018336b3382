package runtime

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/runtime/rewrite"
)

// moduleCache stores admissions in a directory. For a guest of a few megabytes,
// checking and rewriting takes longer than everything else at the start of a
// job whose code is already compiled. The zero value stores nothing.
//
// A file has a checksum of the rest, a line of JSON, and the rewritten module.
// Files that are damaged or from another build of this program are treated as
// missing.
type moduleCache struct {
	dir     string
	program string // the build of this program
}

const (
	admissionsDir    = "admitted"
	admissionsFormat = 2
	// cacheLimit is the maximum size of the cache directory, in bytes.
	cacheLimit = 1 << 30
)

func openAdmissions(cacheDir string) moduleCache {
	program, ok := build()
	if !ok {
		return moduleCache{}
	}
	return moduleCache{filepath.Join(cacheDir, admissionsDir), program}
}

// build identifies the build of this program, because another build may have
// other rules.
func build() (name string, ok bool) {
	path, err := os.Executable()
	if err != nil {
		return "", false
	}
	stat, err := os.Stat(path)
	if err != nil {
		return "", false
	}
	return fmt.Sprintf("%s %d %d", path, stat.Size(), stat.ModTime().UnixNano()), true
}

func (c moduleCache) path(module [sha256.Size]byte, o Options) string {
	key := sha256.Sum256(fmt.Appendf(nil, "%d %d %s %x %+v", admissionsFormat, rewrite.Version, c.program, module, o))
	return filepath.Join(c.dir, hex.EncodeToString(key[:]))
}

// get returns the stored admission of a module, or nil.
func (c moduleCache) get(module [sha256.Size]byte, o Options) *admission {
	if c.dir == "" {
		return nil
	}
	b, err := os.ReadFile(c.path(module, o))
	if err != nil || len(b) < sha256.Size {
		return nil
	}
	sum, content := b[:sha256.Size], b[sha256.Size:]
	if right := sha256.Sum256(content); !bytes.Equal(sum, right[:]) {
		return nil
	}
	head, wasm, _ := bytes.Cut(content, []byte{'\n'})
	a := &admission{wasm: wasm}
	if json.Unmarshal(head, a) != nil || a.Description == nil || a.Description.SHA256 != hex.EncodeToString(module[:]) {
		return nil
	}
	return a
}

// put stores the admission of a module. Errors are ignored: the module will be
// admitted again.
func (c moduleCache) put(module [sha256.Size]byte, o Options, a *admission) {
	if c.dir == "" {
		return
	}
	head, err := json.Marshal(a)
	if err != nil {
		return
	}
	content := slices.Concat(head, []byte{'\n'}, a.wasm)
	sum := sha256.Sum256(content)
	if os.MkdirAll(c.dir, 0o700) != nil || replaceFile(c.path(module, o), sum[:], content) != nil {
		return
	}
	trim(filepath.Dir(c.dir), cacheLimit)
}

// compiledDir has an empty file for each module whose code is in the engine's cache.
// The engine has no other way to ask without compiling. The code may be gone: the
// module is then compiled.
const compiledDir = "compiled"

func (c moduleCache) compiledPath(module [sha256.Size]byte, o Options) string {
	return filepath.Join(filepath.Dir(c.dir), compiledDir, filepath.Base(c.path(module, o)))
}

// markCompiled notes that the code of a module is in the engine's cache.
func (c moduleCache) markCompiled(module [sha256.Size]byte, o Options) {
	path := c.compiledPath(module, o)
	if c.dir != "" && os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = os.WriteFile(path, nil, 0o600) // without it, the module starts on the interpreter again
	}
}

func (c moduleCache) isCompiled(module [sha256.Size]byte, o Options) bool {
	if c.dir == "" {
		return false
	}
	_, err := os.Stat(c.compiledPath(module, o))
	return err == nil
}

// replaceFile writes a file with these parts, atomically.
func replaceFile(path string, parts ...[]byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), temporary+"*")
	if err != nil {
		return err
	}
	for _, part := range parts {
		if err == nil {
			_, err = f.Write(part)
		}
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name()) // otherwise trim removes it later
	}
	return err
}

const temporary = "new-"

// trim removes the oldest files of this program and of the engine from the
// cache directory, until it is within the limit. It skips files that are being
// written for up to an hour.
func trim(cacheDir string, limit int64) {
	type file struct {
		path    string
		size    int64
		written time.Time
	}
	var files []file
	total := int64(0)
	for _, pattern := range []string{admissionsDir + "/*", compiledDir + "/*", enginePattern} {
		paths, _ := fs.Glob(os.DirFS(cacheDir), pattern) // the patterns are valid
		for _, path := range paths {
			path = filepath.Join(cacheDir, filepath.FromSlash(path))
			stat, err := os.Lstat(path)
			if err != nil || !stat.Mode().IsRegular() ||
				strings.HasPrefix(stat.Name(), temporary) && time.Since(stat.ModTime()) < time.Hour {
				continue
			}
			files = append(files, file{path, stat.Size(), stat.ModTime()})
			total += stat.Size()
		}
	}
	slices.SortFunc(files, func(a, b file) int { return cmp.Or(a.written.Compare(b.written), cmp.Compare(a.path, b.path)) })
	for _, f := range files {
		if total <= limit {
			return
		}
		if os.Remove(f.path) == nil { // another process may have removed it
			total -= f.size
		}
	}
}
