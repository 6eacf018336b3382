package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite/internal/dbfile"
)

const (
	// damagedInfix names files that were set aside, salvageInfix those whose outputs
	// are not copied yet, so that a crash in between loses none.
	damagedInfix = ".damaged-"
	salvageInfix = ".salvage-"

	// lockTimeout is how long another process may take to replace the file.
	lockTimeout = 10 * time.Minute
)

// locked calls f while no other process opens or replaces the file. The lock is that of a
// SQLite transaction, on a separate file, because that works on every system and ends
// with the process.
func (s *Store) locked(ctx context.Context, f func() error) (err error) {
	path := filepath.Join(filepath.Dir(s.path), lockName)
	if err := s.vfs.fault("create", path); err != nil {
		return &fs.PathError{Op: "create", Path: path, Err: err}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	unlock, err := s.lock(ctx, file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	return f()
}

// lockWithSQLite locks a file, which it closes, by a transaction.
func (s *Store) lockWithSQLite(ctx context.Context, file *os.File) (unlock func() error, err error) {
	if err := file.Close(); err != nil {
		return nil, err
	}
	c, err := s.connect(file.Name())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	c.SetInterrupt(ctx)
	if err := s.waitsFor(c, lockTimeout); err != nil {
		return nil, err
	}
	err = c.Exec("begin exclusive")
	if isCorrupt(err) { // we never write to it, so nothing is lost
		if err = os.Truncate(file.Name(), 0); err == nil {
			err = c.Exec("begin exclusive")
		}
	}
	if err != nil {
		return nil, err
	}
	return func() error {
		c.SetInterrupt(context.Background())
		return errors.Join(c.Exec("rollback"), c.Close())
	}, nil
}

// recover opens the file again after an error that concerns it as a whole, and sets
// it aside unless another process has done that.
func (s *Store) recover(ctx context.Context, old *database, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != old {
		return nil
	}
	moved := old.broken || old.moved()
	if !old.broken {
		old.close(false) // its error says no more than cause
	}
	s.db = &database{store: s, broken: true}
	s.replaced.Store(true)
	return s.locked(ctx, func() error {
		if !moved && !errors.Is(cause, errMoved) {
			if err := s.quarantine(cause); err != nil {
				return err
			}
		}
		return s.openOrRecover(ctx)
	})
}

// openOrRecover opens the file, or a new one if it cannot be read, and copies the
// outputs of files that were set aside. The lock is held.
func (s *Store) openOrRecover(ctx context.Context) error {
	if err := s.finishQuarantine(); err != nil {
		return err
	}
	db, err := s.open(ctx)
	if isCorrupt(err) {
		if err := s.quarantine(err); err != nil {
			return err
		}
		db, err = s.open(ctx)
	}
	if err != nil {
		return err
	}
	if err := db.salvageAll(); err != nil {
		return errors.Join(err, db.close(false))
	}
	db.writer.SetInterrupt(context.Background())
	s.db = db
	return nil
}

// quarantine renames the file and its log. The lock is held, and the file must not be
// open in this process.
func (s *Store) quarantine(cause error) error {
	why := strings.ReplaceAll(cause.Error(), "\n", "; ") // joined errors have several lines
	s.options.Notice(fmt.Sprintf("%s: damaged store (%s): the file is set aside, and what can be read of it is copied into a new one", s.path, why))
	aside := s.path + salvageInfix + time.Now().UTC().Format("20060102T150405.000000000")
	if err := s.rename(s.path, aside); err != nil {
		return err
	}
	return s.finishQuarantine()
}

func (s *Store) rename(from, to string) error {
	if err := s.vfs.fault("rename", from); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return os.Rename(from, to)
}

// finishQuarantine renames the log of a file that was set aside. It also does that if
// the file is missing for another reason.
func (s *Store) finishQuarantine() error {
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(s.path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log := s.path + "-wal"
	info, err := os.Lstat(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return os.Remove(log)
	}
	aside := s.path + salvageInfix + "log"
	if waiting, err := s.pending(); err != nil {
		return err
	} else if len(waiting) > 0 {
		aside = waiting[len(waiting)-1]
	}
	return s.rename(log, aside+"-wal")
}

// pending returns the files that were set aside and whose outputs are not copied yet.
func (s *Store) pending() (paths []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	for _, e := range entries {
		path := strings.TrimSuffix(filepath.Join(filepath.Dir(s.path), e.Name()), "-wal")
		if strings.HasPrefix(path, s.path+salvageInfix) && (len(paths) == 0 || paths[len(paths)-1] != path) {
			paths = append(paths, path)
		}
	}
	return paths, err
}

// salvageAll copies the outputs of all pending files.
func (db *database) salvageAll() error {
	paths, err := db.store.pending()
	if err != nil {
		return err
	}
	for _, path := range paths {
		carried, notices, err := db.salvage(path)
		if err != nil {
			return err
		}
		final := db.store.path + damagedInfix + strings.TrimPrefix(path, db.store.path+salvageInfix)
		for _, suffix := range []string{"-wal", ""} {
			if err := db.store.rename(path+suffix, final+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		db.store.options.Notice(fmt.Sprintf("%d outputs were copied from %s", carried, final))
		for _, line := range notices {
			db.store.options.Notice(line)
		}
	}
	return nil
}

// salvage puts every output that is found on the pages of a file and of its log and
// that matches its checksum, and copies the records of jobs that can be read. It
// returns the number of outputs, and what to tell about the jobs.
func (db *database) salvage(path string) (carried int, notices []string, err error) {
	file, closeFile, err := dbfile.Open(path)
	if err != nil {
		return 0, nil, err
	}
	defer closeFile()
	b := &salvager{db: db, records: map[store.Action][]store.Record{}, named: map[int64][]store.Action{}, tries: maxTries}
	b.readActions(file)
	if err := b.readOutputs(file); err != nil {
		return b.carried, nil, err
	}
	if notices, err = db.carryJobs(path, file); err != nil {
		return b.carried, nil, err
	}
	return b.carried, notices, db.nameLost(b.lost)
}

// foundJobs are jobs whose rows were found on any page of a file.
type foundJobs struct {
	ids    []store.JobID
	chunks map[store.JobID]int64
	more   bool // than maxJobs
}

const (
	// maxJobs bounds how many jobs are counted, namedJobs how many are named in a line.
	maxJobs   = 1 << 16
	namedJobs = 5
)

// read finds the rows of the table jobs.
func (f *foundJobs) read(file *dbfile.File) {
	f.chunks = map[store.JobID]int64{}
	const digest, action, input, total = 1, 2, 4, 5
	for row := range file.Rows(8) {
		c := row.Columns
		if len(c) != 8 || len(c[digest].Bytes) != len(store.JobID{}) || len(c[action].Bytes) != len(store.Action{}) ||
			len(c[input].Bytes) != len(store.Digest{}) || c[total].Bytes != nil || c[total].Integer < 0 {
			continue
		}
		id := store.JobID(c[digest].Bytes)
		if _, known := f.chunks[id]; known {
			continue
		}
		if f.more = len(f.chunks) == maxJobs; f.more {
			return
		}
		f.chunks[id] = c[total].Integer
		f.ids = append(f.ids, id)
	}
}

// nameLost reports the damaged outputs of which no other page had a sound copy. A
// damaged output may be on a page that was no longer in use; then it is not lost.
func (db *database) nameLost(lost []Damage) error {
	for _, d := range lost {
		there := false
		at, ok, err := db.writer.locate(d.Action)
		if err == nil && ok {
			there, err = db.writer.one(at, d.Key, func(row) {})
		}
		if err != nil {
			return err
		}
		if !there {
			db.store.damaged.Add(1)
			db.store.options.Damaged(d)
		}
	}
	return nil
}

// salvager puts outputs in batches.
type salvager struct {
	db      *database
	named   map[int64][]store.Action // actions by their row ids, which may be ambiguous
	all     []store.Action           // without repetitions
	tries   int                      // how many more actions may be tried for outputs whose action is not known
	records map[store.Action][]store.Record
	size    int
	carried int
	lost    []Damage
	pack    pack
	scratch []byte
}

// maxTries bounds the time for outputs of unknown actions to about 2 s.
const maxTries = 1 << 22

// readActions finds the rows of the table actions, which had three columns in older
// layouts, and the actions in the table jobs.
func (b *salvager) readActions(file *dbfile.File) {
	known := map[store.Action]bool{}
	for _, t := range []struct{ columns, digest int }{{2, 1}, {3, 1}, {8, 2}} {
		for row := range file.Rows(t.columns) {
			if len(row.Columns) != t.columns || len(row.Columns[t.digest].Bytes) != len(store.Action{}) {
				continue
			}
			action := store.Action(row.Columns[t.digest].Bytes)
			if t.columns != 8 {
				b.named[row.ID] = append(b.named[row.ID], action)
			}
			if !known[action] {
				b.all = append(b.all, action)
			}
			known[action] = true
		}
	}
}

// readOutputs finds the rows of the table packs, and puts their outputs.
func (b *salvager) readOutputs(file *dbfile.File) error {
	for row := range file.Rows(6) {
		if len(row.Columns) != 6 || row.Columns[5].Bytes == nil {
			continue
		}
		c := row.Columns[1:]
		b.pack.read(c[1].Bytes, c[2].Bytes, c[3].Bytes, c[4].Bytes)
		for i := range b.pack.slots {
			if err := b.carry(c[0].Integer, b.pack.row(i)); err != nil {
				return err
			}
		}
	}
	return b.flush()
}

// carry puts an output of the action with a row id, if it matches its checksum. An
// output without an order belongs to a derived action and may mean that a job is
// finished; carrier copies it with the job.
func (b *salvager) carry(id int64, r row) error {
	if len(r.order) == 0 {
		return nil
	}
	for _, action := range b.named[id] {
		if key, ok := r.verify(action, &b.scratch); ok {
			return b.add(action, key, r.Value)
		}
	}
	for _, action := range b.all[:min(len(b.all), b.tries)] { // its name may be damaged
		b.tries--
		if key, ok := r.verify(action, &b.scratch); ok {
			return b.add(action, key, r.Value)
		}
	}
	if len(b.named[id]) > 0 {
		key := r.key()
		b.lost = append(b.lost, Damage{b.named[id][0], store.Key{Chunk: key.Chunk, Order: bytes.Clone(key.Order)}})
	}
	return nil
}

func (b *salvager) add(action store.Action, key store.Key, v store.Value) error {
	key.Order = append([]byte{}, key.Order...)
	b.records[action] = append(b.records[action], store.Record{
		Key: key, Value: store.Value{Output: append([]byte{}, v.Output...), Fuel: v.Fuel},
	})
	if b.size += 64 + len(v.Output); b.size < 1<<20 {
		return nil
	}
	return b.flush()
}

func (b *salvager) flush() error {
	var group []*request
	for action, records := range b.records {
		group = append(group, newPut(action, records))
	}
	if _, err := b.db.write(group); err != nil {
		return err
	}
	for _, r := range group {
		b.carried += r.stored
	}
	clear(b.records)
	b.size = 0
	return nil
}
