package sqlite

import (
	"testing"

	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/storetest"
)

// open opens a store, which is closed at the end of the test. At that point, its
// records must agree with its outputs.
func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s := openOnly(t, dir, o)
	t.Cleanup(func() {
		s.mu.RLock()
		closed := s.db == nil
		s.mu.RUnlock()
		if !closed && !t.Failed() {
			storetest.Agree(t, s)
		}
	})
	return s
}

func openOnly(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t, t.TempDir(), Options{}) })
}

func TestJobsConformance(t *testing.T) {
	storetest.RunJobs(t, func(t *testing.T) storetest.Recording { return openOnly(t, t.TempDir(), Options{}) })
}
