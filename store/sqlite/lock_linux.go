package sqlite

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The bytes that SQLite locks in a file with a rollback journal. See "File Locking And
// Concurrency" in its documentation.
const sqlitePending, sqliteLocks = 0x40000000, 512

// lock locks a file, which it closes when it is unlocked, as an exclusive transaction of
// SQLite does. A connection would take more processor time than all else that Open does
// with the lock.
func (s *Store) lock(ctx context.Context, file *os.File) (unlock func() error, err error) {
	first := time.Now()
	for {
		switch err := tryLock(file); {
		case err == nil:
			return file.Close, nil // which also unlocks it
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EACCES):
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: file.Name(), Err: err}, file.Close())
		case ctx.Err() != nil:
			return nil, errors.Join(ctx.Err(), file.Close())
		case time.Since(first) >= lockTimeout || !s.waitBusy(first):
			return nil, errors.Join(fmt.Errorf("%w: %s", ErrBusy, file.Name()), file.Close())
		}
	}
}

// tryLock locks the bytes as an open file description, as SQLite's files here do: other
// files of this process count as other processes. See fcntl(2).
func tryLock(file *os.File) error {
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: sqlitePending, Len: sqliteLocks}
	for {
		err := unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &lock)
		if err != unix.EINTR {
			return err
		}
	}
}
