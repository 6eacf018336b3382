package replay

import (
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/wasm-jobs/wasm-jobs/host/bundle"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// ModuleError is returned if a module is not the module of the bundle.
type ModuleError struct{ Given, Recorded bundle.Module }

// Error includes the digest and the size of both.
func (e *ModuleError) Error() string {
	return fmt.Sprintf("not the module of the bundle: SHA-256 %x, %d bytes; want %x, %d bytes",
		e.Given.SHA256, e.Given.Size, e.Recorded.SHA256, e.Recorded.Size)
}

// CheckModule returns a *[ModuleError] if wasm is not the module of b.
func CheckModule(b *bundle.Bundle, wasm []byte) error {
	if given := (bundle.Module{SHA256: sha256.Sum256(wasm), Size: len(wasm)}); given != b.Module {
		return &ModuleError{given, b.Module}
	}
	return nil
}

// DirProblem is a problem with the given directories.
type DirProblem string

// The problems of directories.
const (
	DirMissing  DirProblem = "not given"
	DirDiffers  DirProblem = "another content"
	DirsTooMany DirProblem = "too many directories"
)

// DirError is returned if the given directories are not those of the bundle.
type DirError struct {
	Problem         DirProblem
	Guest           string            // the guest's name for the directory; not set for DirsTooMany
	Given, Recorded [sha256.Size]byte // digests of the contents, for DirDiffers
	Count, Want     int               // number of directories that are given, and in the bundle
}

// Error describes the problem in one line.
func (e *DirError) Error() string {
	switch e.Problem {
	case DirsTooMany:
		return fmt.Sprintf("the chunk could read %d directories, but %d are given", e.Want, e.Count)
	case DirDiffers:
		return fmt.Sprintf("directory %q has different contents: digest sha256:%x, want sha256:%x", e.Guest, e.Given, e.Recorded)
	}
	return fmt.Sprintf("missing directory %q, which the chunk could read", e.Guest)
}

// MatchDirs returns the directories that the chunk could read, in the order of
// the bundle. The error is a *[DirError] if one is missing or has different
// contents, or if there are too many.
func MatchDirs(b *bundle.Bundle, given []wasi.Dir) ([]wasi.Dir, error) {
	problem := DirError{Problem: DirMissing, Count: len(given), Want: len(b.Dirs)}
	var dirs []wasi.Dir
	for _, d := range b.Dirs {
		problem.Guest, problem.Recorded = d.Guest, d.Digest
		i := slices.IndexFunc(given, func(g wasi.Dir) bool { return g.Guest == d.Guest })
		if i < 0 {
			return nil, &problem
		}
		if problem.Given = given[i].Tree.Digest(); problem.Given != d.Digest {
			problem.Problem = DirDiffers
			return nil, &problem
		}
		dirs = append(dirs, given[i])
	}
	if len(given) > len(dirs) {
		return nil, &DirError{Problem: DirsTooMany, Count: len(given), Want: len(dirs)}
	}
	return dirs, nil
}
