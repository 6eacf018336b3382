package sqlite

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// Exists reports whether there is a store in dir.
func Exists(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, FileName))
	return !errors.Is(err, fs.ErrNotExist)
}

// CheckReport is the result of Check.
type CheckReport struct {
	Outputs int `json:"outputs"` // that match their checksum
	Damaged int `json:"damaged"` // that do not, and were deleted
	Jobs    int `json:"jobs"`
}

// Check reads every page of the file and every output, and compares them with their
// checksums. Outputs that do not match are reported to [Options.Damaged] and
// deleted; a file that cannot be read is set aside. progress is called with the
// number of outputs read so far.
func (s *Store) Check(ctx context.Context, progress func(outputs int)) (report CheckReport, err error) {
	if err := ctx.Err(); err != nil {
		return report, err
	}
	var actions []store.Action
	before := s.damaged.Load()
	err = s.do(ctx, "check", func(db *database) error {
		return db.read(ctx, func(c *conn) error {
			actions, report.Jobs = actions[:0], 0
			if err := c.integrity(); err != nil {
				return err
			}
			if err := c.rows(func(*columns) { report.Jobs++ }, "select id from jobs"); err != nil {
				return err
			}
			return c.rows(func(r *columns) { actions = append(actions, store.Action(r.blob())) },
				"select digest from actions where length(digest)=32")
		})
	})
	if err != nil {
		return report, err
	}
	for _, action := range actions {
		for _, err := range s.All(ctx, action) {
			if err != nil {
				return report, err
			}
			if report.Outputs++; report.Outputs%pageRows == 0 {
				progress(report.Outputs)
			}
		}
	}
	report.Damaged = int(s.damaged.Load() - before)
	return report, nil
}

// integrity reads the whole file and checks its structure.
func (c *conn) integrity() error {
	verdict := ""
	err := c.rows(func(r *columns) {
		if verdict == "" {
			verdict = string(r.blob())
		}
	}, "pragma integrity_check(1)")
	if err == nil && verdict != "ok" {
		return errors.Join(errDamaged, errors.New(verdict))
	}
	return err
}

// Size is the size of a store on disk, in bytes.
type Size struct {
	Used  int64 `json:"used"`  // pages in use
	Files int64 `json:"files"` // the file and its log
}

// Size returns the size of the store on disk.
func (s *Store) Size(ctx context.Context) (size Size, err error) {
	if err := ctx.Err(); err != nil {
		return size, err
	}
	err = s.do(ctx, "read", func(db *database) error {
		return db.read(ctx, func(c *conn) error {
			var pages, free int64
			if _, err := c.ints("pragma page_count", []*int64{&pages}); err != nil {
				return err
			}
			_, err := c.ints("pragma freelist_count", []*int64{&free})
			size.Used = (pages - free) * pageSize
			return err
		})
	})
	for _, suffix := range []string{"", "-wal"} {
		if info, statErr := os.Stat(s.path + suffix); statErr == nil {
			size.Files += info.Size()
		}
	}
	return size, err
}

// Compact gives the space of deleted rows back to the system. For a while it needs
// as much space again as the file has. Others can read meanwhile.
func (s *Store) Compact(ctx context.Context) error {
	return s.submit(ctx, &request{compact: true, ctx: ctx})
}

func (db *database) compact(ctx context.Context) error {
	db.writing.Lock()
	defer db.writing.Unlock()
	old := db.writer.SetInterrupt(ctx)
	err := db.writer.Exec("vacuum")
	db.writer.SetInterrupt(old)
	if err != nil {
		return cmp.Or(ctx.Err(), err)
	}
	err = db.truncateLog()
	return errors.Join(err, db.store.waitsFor(db.writer, busyTimeout))
}

// AsideFile is a damaged file that was set aside.
type AsideFile struct {
	Path string    `json:"path"`
	Size int64     `json:"size"` // bytes
	Time time.Time `json:"time"` // of its last change
}

// AsideFiles returns the files in dir that were set aside and whose outputs were
// copied into the new file. They are only of use for finding the cause.
func AsideFiles(dir string) (files []AsideFile, err error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, e := range entries {
		info, infoErr := e.Info()
		if strings.HasPrefix(e.Name(), FileName+damagedInfix) && infoErr == nil {
			files = append(files, AsideFile{filepath.Join(dir, e.Name()), info.Size(), info.ModTime()})
		}
	}
	return files, err
}
