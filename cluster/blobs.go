package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// maxBlob bounds a blob: a segment with more than one chunk is never larger.
const maxBlob = 1 << 20

// Blobs keeps bytes under their SHA-256. After Put has returned nil, the bytes are there.
type Blobs interface {
	// Missing returns the digests for which there are no bytes, or damaged ones.
	Missing(ctx context.Context, digests []store.Digest) (map[store.Digest]bool, error)
	// Put keeps bytes.
	Put(ctx context.Context, d store.Digest, b []byte) error
	// Get returns the bytes of a digest. It may return other bytes if the copy is damaged.
	Get(d store.Digest) ([]byte, error)
}

// inTables keeps blobs in the database.
type inTables struct{ *postgres.Store }

func (t inTables) Put(ctx context.Context, d store.Digest, b []byte) error {
	return t.PutBlob(ctx, d, len(b), b)
}

// Get is never called: the database returns blobs with the rows that refer to them.
func (inTables) Get(store.Digest) ([]byte, error) { return nil, errDamaged }

// inDirectory keeps blobs in files of a directory that all machines see, and notes
// in the database that they are there.
type inDirectory struct {
	dir   string
	store *postgres.Store // nil if the blobs are only read
}

// SharedDir returns the blobs in a directory.
func SharedDir(dir string, s *postgres.Store) (Blobs, error) {
	stat, err := os.Stat(dir)
	if err == nil && !stat.IsDir() {
		err = errors.New("it is not a directory")
	}
	if err != nil {
		return nil, fmt.Errorf("shared directory %s: %w", dir, err)
	}
	return &inDirectory{dir, s}, nil
}

func (d *inDirectory) path(digest store.Digest) string {
	name := hex.EncodeToString(digest[:])
	return filepath.Join(d.dir, name[:2], name)
}

func (d *inDirectory) Missing(_ context.Context, digests []store.Digest) (map[store.Digest]bool, error) {
	missing := map[store.Digest]bool{}
	for _, digest := range digests {
		whole, err := d.whole(digest)
		if err != nil {
			return nil, err
		}
		if !whole {
			missing[digest] = true
		}
	}
	return missing, nil
}

// whole reports whether the directory has the bytes of a digest. A file of another length or
// content was damaged after Put had synced it.
func (d *inDirectory) whole(digest store.Digest) (bool, error) {
	f, err := os.Open(d.path(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	sum := sha256.New()
	_, err = io.Copy(sum, f)
	return store.Digest(sum.Sum(nil)) == digest, err
}

// Put writes and syncs a file under a temporary name, and then renames it.
func (d *inDirectory) Put(ctx context.Context, digest store.Digest, b []byte) error {
	path := d.path(digest)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		_ = os.Remove(f.Name())
		return err
	}
	return d.store.PutBlob(ctx, digest, len(b), nil)
}

func (d *inDirectory) Get(digest store.Digest) ([]byte, error) { return os.ReadFile(d.path(digest)) }
