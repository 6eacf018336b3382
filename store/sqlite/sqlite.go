package sqlite

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/ncruces/go-sqlite3"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// FileName is the name of the store's file in its directory.
	FileName = "store.db"
	lockName = "store.lock"

	// Version is the version of the schema that this package writes.
	Version = 4

	// busyTimeout is how long to wait for other processes that lock the file.
	busyTimeout = 60 * time.Second
)

// Options change how a store behaves. The zero Options work.
type Options struct {
	// Damaged is called for each output that does not match its checksum. Such an
	// output counts as missing, is deleted, and can be put again. Damaged is called
	// from the goroutine of any method and must not call the store.
	Damaged func(Damage)
	// DamagedJob is called for each job whose records in a file that was set aside
	// could not all be copied. It is called in the same way as Damaged.
	DamagedJob func(DamagedJob)
	// CheckJob is called for each job that is copied from such a file, with the pieces
	// of its ids. If it returns an error, the job counts as damaged. nil = all are
	// copied. It is called in the same way as Damaged.
	CheckJob func(job store.JobRecord, ids iter.Seq[[]byte]) error
	// Notice is called with one line when the store changed the file as a whole:
	// when it set aside a file that cannot be read, or converted an older layout.
	// It is called in the same way as Damaged.
	Notice func(line string)
	// MaxDelay bounds how long a Put waits for others to share its commit. A Put
	// waits only if the commit before it was shared. 0 = 2 ms.
	MaxDelay time.Duration
	// MaxBytes bounds the outputs of one shared commit; a single Put may hold
	// more. 0 = 8 MiB.
	MaxBytes int
	// ReadOnly opens an existing store for reading: methods that write return
	// [ErrReadOnly], and damaged outputs are reported but stay. If the file, its
	// directory or its file system cannot be written, or is full, the store is read
	// as it is, an older layout is converted in memory, and a file that cannot be
	// read is an error. If they can be written, the store is opened as usual.
	ReadOnly bool
	// Hurry, when it is closed, ends all waits for other processes that lock the
	// file: the error is then [ErrBusy] at once instead of after a minute. nil = it
	// is never closed.
	Hurry <-chan struct{}
	// Waiting is called once, if a call has waited for a second for other processes
	// that lock the file. It is called in the same way as Damaged.
	Waiting func()

	// fault is called before each write, sync, truncation, deletion and renaming
	// of a file; tests return an error from it.
	fault func(op, name string) error
	// waitingAfter is the time before Waiting is called. 0 = a second; tests set less.
	waitingAfter time.Duration
	// fewEntries: if an action has at most so many chunks, all of them are read when
	// one is looked up. 0 = the constant of that name; tests set less.
	fewEntries int64
}

func (o *Options) setDefaults() {
	if o.Damaged == nil {
		o.Damaged = func(Damage) {}
	}
	if o.DamagedJob == nil {
		o.DamagedJob = func(DamagedJob) {}
	}
	if o.CheckJob == nil {
		o.CheckJob = func(store.JobRecord, iter.Seq[[]byte]) error { return nil }
	}
	if o.Notice == nil {
		o.Notice = func(string) {}
	}
	if o.Waiting == nil {
		o.Waiting = func() {}
	}
	o.Waiting = sync.OnceFunc(o.Waiting)
	if o.waitingAfter == 0 {
		o.waitingAfter = time.Second
	}
	if o.MaxDelay == 0 {
		o.MaxDelay = 2 * time.Millisecond
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 8 << 20
	}
	if o.fewEntries == 0 {
		o.fewEntries = fewEntries
	}
}

// ErrReadOnly is returned by methods that write to a store that was opened with
// [Options.ReadOnly].
var ErrReadOnly = errors.New("the store was opened for reading only")

// ErrBusy is wrapped by the error if another process locks the file for a minute, or
// until [Options.Hurry] is closed.
var ErrBusy = errors.New("another process locks the file")

// Damage names an output that does not match its checksum.
type Damage struct {
	Action store.Action
	store.Key
}

// DamagedJob names a job whose records in a file that was set aside could not all be
// copied.
type DamagedJob struct {
	ID     store.JobID
	Chunks int  // -1 if their number is not known
	Copied bool // in part: some spans or attempts are missing, and their chunks are pending
}

// VersionError means that a newer program wrote the store. The file is unchanged.
type VersionError struct {
	Path    string
	Version int
}

func (e *VersionError) Error() string {
	return fmt.Sprintf("%s: unsupported version %d, written by a newer wasm-jobs: want version %d or older", e.Path, e.Version, Version)
}

// ForeignError means that the file is a database of another program. It is
// unchanged.
type ForeignError struct{ Path string }

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s: not a wasm-jobs store but a database of another program; it is left unchanged", e.Path)
}

// Stats are counters since a store was opened.
type Stats struct {
	Puts    int64 // calls of Put that were stored
	Commits int64 // durable transactions; less than Puts if some were shared
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
	replaced             atomic.Bool  // the file was set aside since Open, with the jobs' records
}

// Open opens the store in dir, which it creates if it is missing (mode 0700). The
// error is a *VersionError if a newer program wrote the store, a *ForeignError if
// the file is a database of another program, and else names the path and the
// cause. A file that cannot be read is set aside and is not an error: see
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
	if !o.ReadOnly {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
	s := &Store{
		path: filepath.Join(dir, FileName), options: o,
		requests: make(chan *request), quit: make(chan struct{}),
	}
	if err := checkHeader(s.path); err != nil {
		return nil, err
	}
	s.vfs = registerVFS(o.fault)
	if err := s.openFiles(ctx); err != nil {
		s.vfs.unregister()
		return nil, s.wrap("open", cmp.Or(ctx.Err(), err))
	}
	s.committer.Go(s.commitLoop)
	return s, nil
}

// openFiles opens the file. If it cannot be written and the store is read-only, the
// file is opened as an image in memory.
func (s *Store) openFiles(ctx context.Context) error {
	if !s.options.ReadOnly {
		return s.locked(ctx, func() error { return s.openOrRecover(ctx) })
	}
	if _, err := os.Stat(s.path); err != nil {
		return err
	}
	err := s.locked(ctx, func() error { return s.openOrRecover(ctx) })
	if err == nil || ctx.Err() != nil || !s.unwritable(err) {
		return err
	}
	s.vfs.image = newImage()
	db, err := s.open(ctx)
	if err != nil {
		return errors.Join(err, s.vfs.image.close())
	}
	db.writer.SetInterrupt(context.Background())
	s.db = db
	return nil
}

// unwritable reports whether an error means that files cannot be written.
func (s *Store) unwritable(err error) bool {
	if cause := s.vfs.cause.Swap(nil); cause != nil {
		err = errors.Join(err, *cause)
	}
	for _, why := range []error{
		fs.ErrPermission, syscall.EROFS, syscall.ENOSPC, syscall.EDQUOT,
		sqlite3.FULL, sqlite3.READONLY, sqlite3.PERM,
	} {
		if errors.Is(err, why) {
			return true
		}
	}
	return false
}

// Stats returns the current counters.
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
		if s.vfs.image != nil {
			err = errors.Join(err, s.vfs.image.close())
		}
		s.vfs.unregister()
	})
	return err
}

// wrap adds the path to an error of the file. Other errors are returned unchanged.
func (s *Store) wrap(op string, err error) error {
	if err == nil || errors.Is(err, store.ErrClosed) {
		return err
	}
	if _, ok := errors.AsType[*fs.PathError](err); ok {
		if _, inner := errors.AsType[*sqlite3.Error](err); !inner {
			return err
		}
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	if cause := s.vfs.cause.Swap(nil); cause != nil && !errors.Is(err, *cause) {
		err = fmt.Errorf("%w: %w", err, *cause)
	}
	return &fs.PathError{Op: op, Path: s.path, Err: err}
}

// errMoved means that another process has set the file aside.
var errMoved = errors.New("the file was replaced")

// errDamaged means that the file's own records contradict each other.
var errDamaged = errors.New("a record of the store is damaged")

// isCorrupt reports whether err means that the file cannot be trusted.
func isCorrupt(err error) bool {
	return errors.Is(err, errDamaged) || errors.Is(err, sqlite3.CORRUPT) || errors.Is(err, sqlite3.NOTADB) ||
		errors.Is(err, sqlite3.IOERR_DATA) || errors.Is(err, sqlite3.IOERR_CORRUPTFS) || errors.Is(err, sqlite3.IOERR_SHORT_READ)
}

func isBusy(err error) bool {
	return errors.Is(err, sqlite3.BUSY) || errors.Is(err, sqlite3.LOCKED) || errors.Is(err, sqlite3.PROTOCOL)
}

// do runs f on the file. If the file cannot be read or was replaced, f runs again
// on the new one; if the file is busy, f runs again later. f must be idempotent. If
// the call fails because ctx ended, the error is ctx.Err().
func (s *Store) do(ctx context.Context, op string, f func(*database) error) error {
	start := time.Now()
	for replaced := 0; ; {
		db, err := s.once(f)
		switch {
		case err == nil:
			s.vfs.cause.Store(nil)
			return nil
		case errors.Is(err, errMoved), isCorrupt(err):
			if replaced++; replaced > 3 || s.vfs.image != nil {
				return s.wrap(op, err)
			}
			if err := s.recover(ctx, db, err); err != nil {
				return s.wrap(op, cmp.Or(ctx.Err(), err))
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case isBusy(err) && time.Since(start) < busyTimeout && s.waitBusy(start): // again
		case isBusy(err):
			return s.wrap(op, fmt.Errorf("%w: %w", ErrBusy, err))
		default:
			s.fail(db, err)
			return s.wrap(op, err)
		}
	}
}

// waitBusy waits a little for another process, for which the caller has waited since
// start. It returns false if Hurry is closed.
func (s *Store) waitBusy(start time.Time) bool {
	if time.Since(start) >= s.options.waitingAfter {
		s.options.Waiting()
	}
	select {
	case <-s.options.Hurry:
		return false
	default:
	}
	select {
	case <-s.options.Hurry:
		return false
	case <-time.After(time.Duration(rand.Int64N(int64(2 * time.Millisecond)))):
		return true
	}
}

// waitsFor makes a connection wait for other processes, up to a timeout.
func (s *Store) waitsFor(c *conn, timeout time.Duration) error {
	var first time.Time
	return c.BusyHandler(func(_ context.Context, count int) bool {
		if count == 0 {
			first = time.Now()
		}
		return time.Since(first) < timeout && s.waitBusy(first)
	})
}

func (s *Store) once(f func(*database) error) (*database, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	switch {
	case s.db == nil:
		return nil, store.ErrClosed
	case s.db.failed != nil:
		return s.db, s.db.failed
	case s.db.broken:
		return s.db, errMoved
	}
	return s.db, f(s.db)
}

// errEngine means that SQLite panicked, as it does when it has no memory.
var errEngine = errors.New("the database engine failed")

// recoverEngine turns a panic of the engine into an error: the caller gets it, and
// the process goes on and can write its results.
func recoverEngine(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errEngine, p)
	}
}

// fail records that the engine failed. The state of its connections is unknown, so
// they are neither used nor closed any more; the system closes them when the
// process ends.
func (s *Store) fail(db *database, err error) {
	if !errors.Is(err, errEngine) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db == db {
		s.db = &database{store: s, broken: true, failed: err}
	}
}

// applicationID marks the file as a store of wasm-jobs: "wjst".
const applicationID = 0x776a7374

// checkHeader reads the header of the file before anything is written. The version
// stands twice in user_version, so a flipped bit does not look like a newer version.
// A database belongs to another program if nothing in its header is as we write it:
// neither the application id, nor the version, nor the room for checksums. A
// damaged file of ours still has one of them.
func checkHeader(path string) error {
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
	versioned := version > 0 && version>>16 == version&0xffff
	switch reserved := int(header[20]); {
	case id == applicationID && versioned && version&0xffff > Version:
		return &VersionError{path, int(version & 0xffff)}
	case id != applicationID && !versioned && reserved != pageSize-usableSize:
		return &ForeignError{path}
	}
	return nil
}
