package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// losing is a store with one damaged output, named by its order.
type losing struct {
	*sqlite.Store
	order []byte
}

func (s *losing) Get(ctx context.Context, action store.Action, keys []store.Key, found func(int, store.Value) error) error {
	return s.Store.Get(ctx, action, keys, func(i int, v store.Value) error {
		if bytes.Equal(keys[i].Order, s.order) {
			return nil
		}
		return found(i, v)
	})
}

// TestOutputsThatAreGone has more outputs than one query returns.
func TestOutputsThatAreGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "store")
	mustRun(t, "run", "../../guest-examples/square/c/square.wasm", "--range-of", "0-2999", "--store", dir, "--progress", "none")
	s, err := sqlite.Open(t.Context(), dir, sqlite.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for _, lost := range []uint64{1, 1500, 2999, 1 << 20} {
		j, err := journal.Find(t.Context(), &losing{s, abi.IntID(lost).AppendOrderKey(nil)}, "")
		if err != nil {
			t.Fatal(err)
		}
		claimed := expectedOf(&console{err: t.Output()}, j, "the store", func() error { return nil })
		var ids []uint64
		err = nil
		for o, failed := range claimed.All(t.Context()) {
			if err = failed; err != nil {
				break
			}
			n, _ := o.ID.Int()
			if want := abi.AppendHead(nil, abi.MajorUint, n*n); !bytes.Equal(o.Output, want) {
				t.Errorf("the output of chunk %d is %x, want %x", n, o.Output, want)
			}
			ids = append(ids, n)
		}
		for i, n := range ids {
			if i > 0 && n <= ids[i-1] || n == lost {
				t.Fatalf("chunk %d comes behind %d, without %d", n, ids[max(0, i-1)], lost)
			}
		}
		if lost >= 3000 {
			if err != nil || len(ids) != 3000 || claimed.Most != 3000 {
				t.Errorf("%d outputs of %d, error %v", len(ids), claimed.Most, err)
			}
			continue
		}
		gone, ok := errors.AsType[*exitError](err)
		if !ok || gone.code != exitFailed || !strings.Contains(err.Error(), "missing outputs, damaged or deleted: "+abi.IntID(lost).String()) || len(ids) != 2999 {
			t.Errorf("without chunk %d: %d outputs, error %v", lost, len(ids), err)
		}
	}
}
