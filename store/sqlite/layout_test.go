package sqlite

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ncruces/go-sqlite3/vfs"

	"github.com/wasm-jobs/wasm-jobs/store"
)

var update = flag.Bool("update", false, "write empty.db")

// TestEmptyFile makes a store with SQLite, and compares it with the embedded one.
func TestEmptyFile(t *testing.T) {
	s := &Store{path: filepath.Join(t.TempDir(), FileName), vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	c, err := s.connect(s.path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(c.Exec("pragma journal_mode=off"), c.layOut(), c.Exec("pragma journal_mode=wal"), c.Close())
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("empty.db", made, 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !bytes.Equal(made, emptyFile) {
		t.Error("SQLite makes a different file: run go generate ./store/sqlite")
	}
}

// TestFewSyncs counts the syncs of a new store with one commit: one of the file, one of
// the log when it begins, one of the commit, and one each of the log and the file when
// the log is written back. SQLite's sync of the directory, with the log, is not counted.
func TestFewSyncs(t *testing.T) {
	dir := t.TempDir()
	for run, want := range []int64{5, 4} {
		s := openOnly(t, dir, Options{})
		all := records(10*run, 10*run+10)
		start := &store.RunStart{
			Job: store.JobRecord{ID: store.JobID{byte(run)}, Total: 10, Spec: []byte(`{}`)}, IDs: func(func([]byte) bool) {}, Info: []byte(`{}`),
			Finished: []store.Finished{
				{Action: store.Action{1}, Records: all, Span: store.Span{Chunks: []store.Digest{all[0].Chunk}, Detail: []byte{0}}},
				{Action: store.Action{2}, Records: all[:1]},
			},
			Report: []byte(`{}`),
		}
		if _, err := s.BeginLate(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if n := s.Stats().Syncs; n != want {
			t.Errorf("run %d: %d syncs, want %d", run, n, want)
		}
	}
}

// TestLeftOver opens a store after a crash at any step of its creation.
func TestLeftOver(t *testing.T) {
	for name, files := range map[string]map[string][]byte{
		"half written":  {FileName + newSuffix: emptyFile[:5000]},
		"not renamed":   {FileName + newSuffix: emptyFile},
		"an empty file": {FileName: nil, FileName + newSuffix: emptyFile},
		"a file without tables, and its logs": {
			FileName: noTables(t), FileName + "-journal": []byte("journal"), FileName + "-shm": []byte("index"),
		},
	} {
		dir := t.TempDir()
		damagedStore(t, dir, files)
		s := open(t, dir, Options{Notice: func(line string) { t.Errorf("%s: %s", name, line) }})
		if err := s.Put(t.Context(), store.Action{1}, records(0, 10)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(dir, FileName+newSuffix)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the new file is still there: %v", name, err)
		}
	}
}

// noTables returns a database without tables.
func noTables(t *testing.T) []byte {
	t.Helper()
	s := &Store{path: filepath.Join(t.TempDir(), FileName), vfs: registerVFS(nil)}
	defer s.vfs.unregister()
	c, err := s.connect(s.path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Exec(fmt.Sprintf("pragma application_id=%d", applicationID)), c.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first look-up in a fresh file needs no connection of its own, and leaves the
// writer as it was, also if its context ends.
func TestFreshFileIsReadByWriter(t *testing.T) {
	all := records(0, 10)
	keys := make([]store.Key, len(all))
	for i := range all {
		keys[i] = all[i].Key
	}
	for _, ends := range []bool{false, true} {
		s := open(t, t.TempDir(), Options{})
		get := func(ctx context.Context) (found int, err error) {
			err = s.Get(ctx, store.Action{1}, keys, func(int, store.Value) error { found++; return nil })
			return found, err
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if ends {
			err := s.do(ctx, "test", func(db *database) error {
				return db.read(ctx, func(c *conn) error {
					cancel()
					return ctx.Err()
				})
			})
			if !errors.Is(err, context.Canceled) {
				t.Errorf("a read whose context ends: %v", err)
			}
		} else if found, err := get(ctx); found != 0 || err != nil {
			t.Errorf("%d outputs of an empty store, %v", found, err)
		}
		if n := len(s.db.readers); n != 0 {
			t.Errorf("%d connections besides the writer", n)
		}
		fill(t, s, store.Action{1}, 10, 10)
		if found, err := get(t.Context()); found != len(all) || err != nil {
			t.Errorf("%d outputs of %d, %v", found, len(all), err)
		}
		if n := len(s.db.readers); n != 1 {
			t.Errorf("%d connections besides the writer after a second look-up, want 1", n)
		}
	}
}

// twinLogs is a log that is written as SQLite does, and another one through a logFile.
type twinLogs struct {
	*testing.T
	random *rand.Rand
	plain  vfs.File
	log    *logFile
	writes int
}

func newTwinLogs(t *testing.T) *twinLogs {
	image := newImage()
	t.Cleanup(func() { image.close() })
	plain, err := image.open("plain")
	file, err2 := image.open("log")
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	l := &twinLogs{T: t, random: rand.New(rand.NewPCG(1, 2)), plain: plain}
	v := &countingVFS{fault: func(op, _ string) error {
		if op == "write" {
			l.writes++
		}
		return nil
	}}
	l.log = &logFile{countingFile: &countingFile{File: file, vfs: v}}
	return l
}

func (l *twinLogs) both(f func(vfs.File) error) {
	l.Helper()
	if err := errors.Join(f(l.plain), f(l.log)); err != nil {
		l.Fatal(err)
	}
}

func (l *twinLogs) write(size int, at int64) {
	l.Helper()
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(l.random.Uint32())
	}
	l.both(func(f vfs.File) error { _, err := f.WriteAt(p, at); return err })
}

// look compares the files.
func (l *twinLogs) look() {
	l.Helper()
	var content [2][]byte
	for i, f := range []vfs.File{l.plain, l.log} {
		size, err := f.Size()
		content[i] = make([]byte, size)
		if _, readErr := f.ReadAt(content[i], 0); err != nil || readErr != nil {
			l.Fatal(err, readErr)
		}
	}
	if !bytes.Equal(content[0], content[1]) {
		l.Fatal("the files differ")
	}
}

// TestLogFile checks that a log is the same through a logFile whenever it is looked at,
// and that a frame takes one write.
func TestLogFile(t *testing.T) {
	const first, frame = 32, frameHeader + pageSize
	l := newTwinLogs(t)
	l.write(first, 0)
	frames := int64(0)
	appendFrame := func() {
		l.write(frameHeader, first+frames*frame)
		l.write(pageSize, first+frames*frame+frameHeader)
		frames++
	}
	for range 2000 {
		some := first + l.random.Int64N(frames+1)*frame
		switch l.random.IntN(15) {
		case 0: // a checksum is written again
			l.write(frameHeader, some)
		case 1: // and a page
			l.write(pageSize, some+frameHeader)
		case 2: // the page of a frame does not come
			l.write(frameHeader, first+frames*frame)
			l.both(func(f vfs.File) error { return f.Sync(0) })
		case 3:
			frames /= 2
			l.both(func(f vfs.File) error { return f.Truncate(first + frames*frame) })
		case 4:
			l.look()
		default:
			appendFrame()
		}
	}
	l.look()
	appendFrame()
	l.writes = 0
	for range 10 {
		appendFrame()
	}
	if l.writes != 10 {
		t.Errorf("%d writes of 10 frames", l.writes)
	}
	l.look()
}
