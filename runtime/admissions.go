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

// admissions keeps what admitting gave, in a directory: for a guest of some
// megabytes, checking and rewriting takes longer than all else at the start of a
// job whose code is compiled. The zero value keeps nothing.
//
// A file has the checksum of what follows it, a line of JSON and the rewritten
// module. What is damaged, or written by another build of this program, is not
// there.
type admissions struct {
	dir     string
	program string // which build this is
}

const (
	admissionsDir    = "admitted"
	admissionsFormat = 2
	// cacheLimit bounds what the cache directory holds, in bytes.
	cacheLimit = 1 << 30
)

func openAdmissions(cacheDir string) admissions {
	program, ok := build()
	if !ok {
		return admissions{}
	}
	return admissions{filepath.Join(cacheDir, admissionsDir), program}
}

// build names the build of this program: its rules may be others tomorrow.
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

func (c admissions) path(module [sha256.Size]byte, o Options) string {
	key := sha256.Sum256(fmt.Appendf(nil, "%d %d %s %x %+v", admissionsFormat, rewrite.Version, c.program, module, o))
	return filepath.Join(c.dir, hex.EncodeToString(key[:]))
}

// get returns what is kept of a module, or nil.
func (c admissions) get(module [sha256.Size]byte, o Options) *admission {
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

// put keeps what was found of a module. Where it cannot, it will be found again.
func (c admissions) put(module [sha256.Size]byte, o Options, a *admission) {
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

// replaceFile writes a file of these parts, which is there as a whole or not.
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
		_ = os.Remove(f.Name()) // or it is trimmed some day
	}
	return err
}

const temporary = "new-"

// trim removes the oldest of what this program and the engine keep in the cache
// directory, until that is within the limit. Files that are being written are
// left alone for an hour.
func trim(cacheDir string, limit int64) {
	type file struct {
		path    string
		size    int64
		written time.Time
	}
	var files []file
	total := int64(0)
	for _, pattern := range []string{admissionsDir + "/*", enginePattern} {
		paths, _ := fs.Glob(os.DirFS(cacheDir), pattern) // patterns that are ours
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
		if os.Remove(f.path) == nil { // somebody else may have been first
			total -= f.size
		}
	}
}
