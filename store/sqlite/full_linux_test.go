package sqlite

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// TestFullDisk fills a small file system, makes room and goes on.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a file system of 1 MiB needs root")
	}
	mount := t.TempDir()
	if err := syscall.Mount("tmpfs", mount, "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("a file system of 1 MiB cannot be mounted: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(mount, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(mount, "ballast")
	if err := os.WriteFile(ballast, bytes.Repeat([]byte{1}, 512<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), mount, Options{Notice: func(line string) { t.Error(line) }})
	if err != nil {
		t.Fatal(err)
	}
	all := records(0, 4000)
	i := 0
	for ; i < len(all) && err == nil; i += 100 {
		err = s.Put(t.Context(), store.Action{1}, all[i:i+100])
	}
	if err == nil || !strings.Contains(err.Error(), mount) || !errors.Is(err, syscall.ENOSPC) && !strings.Contains(err.Error(), "full") {
		t.Fatalf("the full disk gave %v after %d: %#v", err, i, errors.Unwrap(err))
	}
	acked := i - 100
	t.Logf("after %d outputs: %v", acked, err)
	if err := s.Close(); err != nil {
		t.Logf("close: %v", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	s = open(t, mount, Options{Notice: func(line string) { t.Error(line) }})
	var keys []store.Key
	for _, r := range all[:acked] {
		keys = append(keys, r.Key)
	}
	found := 0
	if err := s.Get(t.Context(), store.Action{1}, keys, func(int, store.Value) error { found++; return nil }); err != nil || found != acked {
		t.Errorf("%d of %d acknowledged outputs, %v", found, acked, err)
	}
	if err := s.Put(t.Context(), store.Action{1}, all[acked:acked+100]); err != nil {
		t.Errorf("after room was made: %v", err)
	}
}
