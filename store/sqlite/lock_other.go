//go:build !linux

package sqlite

import (
	"context"
	"os"
)

// lock locks a file, which it closes.
func (s *Store) lock(ctx context.Context, file *os.File) (unlock func() error, err error) {
	return s.lockWithSQLite(ctx, file)
}
