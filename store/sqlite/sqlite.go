package sqlite

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// FileName is the name of the store's file in its directory.
	FileName = "store.db"
	lockName = "store.lock"

	// Version is the version of the schema that this package writes.
	Version = 3

	// patience is how long other processes may keep the file busy.
	patience = 60 * time.Second
)

// Options change how a store behaves. The zero Options work.
type Options struct {
	// Damaged is told of each output that does not pass its checksum. Such an
	// output counts as missing, is dropped, and can be put again. It is called
	// from the goroutine of any method and must not call the store.
	Damaged func(Damage)
	// Notice is told, in one line, what the store did to the file as a whole:
	// that it set aside one that is beyond reading, or laid one of an older
	// version out anew. As Damaged.
	Notice func(line string)
	// MaxDelay bounds how long a Put waits for others to share its commit. A
	// Put waits only where the commit before it was shared. 0 = 2 ms.
	MaxDelay time.Duration
	// MaxBytes bounds the outputs of one shared commit; a single Put may hold
	// more. 0 = 8 MiB.
	MaxBytes int

	// fault is asked before each write, sync, truncation, deletion and renaming
	// of a file; tests let it fail.
	fault func(op, name string) error
}

func (o *Options) setDefaults() {
	if o.Damaged == nil {
		o.Damaged = func(Damage) {}
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = 2 * time.Millisecond
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 8 << 20
	}
}

// Damage names an output that did not pass its checksum.
type Damage struct {
	Action store.Action
	store.Key
}

// VersionError says that a newer program wrote the store. Nothing was written.
type VersionError struct {
	Path    string
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s has version %d, which a newer wasm-jobs wrote; this one knows version %d and older", e.Path, e.Version, Version)
}

// Stats count what a store did since it was opened.
type Stats struct {
	Puts    int64 // calls of Put that were stored
	Commits int64 // durable transactions; less than Puts where some were shared
	Syncs   int64 // fsyncs, of the log and of the file
	Bytes   int64 // of outputs and orders that were put
}

// Store is a durable [store.Store]. It is safe for concurrent use, also by
// several processes on one directory.
type Store struct {
	path    string
	options Options
	vfs     *countingVFS

	mu sync.RWMutex // held for writing while db is replaced
	db *database    // nil after Close

	requests  chan *request
	quit      chan struct{} // closed by Close
	closeOnce sync.Once
	committer sync.WaitGroup

	puts, commits, bytes atomic.Int64
	damaged              atomic.Int64 // outputs
	replaced             atomic.Bool  // the file was set aside since Open, and the jobs' records with it
}

// Open opens the store in dir, which it makes where it is missing (mode 0700).
// The error is a *VersionError where a newer program wrote it, and names the
// path and the cause otherwise. A file that is beyond reading is no error: see
// [Options.Notice].
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o.setDefaults()
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	s := &Store{
		path: filepath.Join(dir, FileName), options: o,
		requests: make(chan *request), quit: make(chan struct{}),
	}
	if err := checkVersion(s.path); err != nil {
		return nil, err
	}
	s.vfs = registerVFS(o.fault)
	if err := s.locked(func() error { return s.openOrReplace() }); err != nil {
		s.vfs.unregister()
		return nil, s.wrap("open", err)
	}
	s.committer.Go(s.commitLoop)
	return s, nil
}

// Stats returns what the store did so far.
func (s *Store) Stats() Stats {
	return Stats{Puts: s.puts.Load(), Commits: s.commits.Load(), Syncs: s.vfs.syncs.Load(), Bytes: s.bytes.Load()}
}

// Close writes the log back into the file and frees it.
func (s *Store) Close() (err error) {
	s.closeOnce.Do(func() {
		close(s.quit)
		s.committer.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.db != nil {
			err = s.wrap("close", s.db.close(true))
		}
		s.db = nil
		s.vfs.unregister()
	})
	return err
}

// wrap gives an error of the file its path. Others pass as they are.
func (s *Store) wrap(op string, err error) error {
	if err == nil || errors.Is(err, store.ErrClosed) {
		return err
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		if _, inner := errors.AsType[*sqlite3.Error](err); !inner {
			return err
		}
	}
	if _, ok := errors.AsType[*VersionError](err); ok {
		return err
	}
	if cause := s.vfs.cause.Swap(nil); cause != nil && !errors.Is(err, *cause) {
		err = fmt.Errorf("%w: %w", err, *cause)
	}
	return &fs.PathError{Op: op, Path: s.path, Err: err}
}

// errMoved says that another process has set the file aside.
var errMoved = errors.New("the file was replaced")

// errDamaged says that the file's own records do not hold together.
var errDamaged = errors.New("a record of the store is damaged")

// beyondReading tells whether err means that the file cannot be relied on.
func beyondReading(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) ||
		errors.Is(err, sqlite3.IOERR_DATA) || errors.Is(err, sqlite3.IOERR_CORRUPTFS) || errors.Is(err, sqlite3.IOERR_SHORT_READ)
}

func isBusy(err error) bool {
	return errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.LOCKED) || errors.Is(err, sqlite3.PROTOCOL)
}

// do runs f on the file: again on a new one where it is beyond reading or was
// replaced, and again where it is busy. f must be idempotent.
func (s *Store) do(op string, f func(*database) error) error {
	start := time.Now()
	for replaced := 0; ; {
		db, err := s.once(f)
		switch {
		case err == nil:
			s.vfs.cause.Store(nil)
			return nil
		case errors.Is(err, errMoved), beyondReading(err):
			if replaced++; replaced > 3 {
				return s.wrap(op, err)
			}
			if err := s.replace(db, err); err != nil {
				return s.wrap(op, err)
			}
		case isBusy(err) && time.Since(start) < patience:
			time.Sleep(2 * time.Millisecond)
		default:
			return s.wrap(op, err)
		}
	}
}

func (s *Store) once(f func(*database) error) (*database, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.db == nil {
		return nil, store.ErrClosed
	}
	if s.db.broken {
		return s.db, errMoved
	}
	return s.db, f(s.db)
}

// applicationID marks the file as a store of wasm-jobs: "wjst".
const applicationID = 0x776a7374

// checkVersion reads the version where it stands in the file, before anything
// is written. The number is kept twice in user_version, so that a flipped bit
// is not taken for a newer version.
func checkVersion(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var header [100]byte
	if n, _ := f.ReadAt(header[:], 0); n < len(header) || string(header[:16]) != "SQLite format 3\x00" {
		return nil
	}
	version := binary.BigEndian.Uint32(header[60:])
	id := binary.BigEndian.Uint32(header[68:])
	if id == applicationID && version>>16 == version&0xffff && version&0xffff > Version {
		return &VersionError{path, int(version & 0xffff)}
	}
	return nil
}
