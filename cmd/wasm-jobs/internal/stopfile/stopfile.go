// Package stopfile lets one process ask another one to end a job softly. The request is a
// file in the directory of their store: the processes may be in different containers, or
// on different machines with a shared file system.
package stopfile

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/atomicfile"
)

// Request is a request to a process that runs a job.
type Request struct {
	Store string // directory
	Job   string // id in hex
	Host  string // of the process
	PID   int
}

const (
	// folder is in the directory of the store.
	folder = "stop"
	// every is the time between two looks for a request.
	every = 200 * time.Millisecond
	// maxHost bounds the name of a host.
	maxHost = 1024
)

func (r *Request) path() string {
	return filepath.Join(r.Store, folder, r.Job+"-"+strconv.Itoa(r.PID))
}

// Make makes the request.
func (r *Request) Make() error {
	if err := os.MkdirAll(filepath.Join(r.Store, folder), 0o700); err != nil {
		return err
	}
	f, err := atomicfile.Create(r.path())
	if err != nil {
		return err
	}
	defer f.Discard()
	return f.Write(func(w *bufio.Writer) error {
		_, err := w.WriteString(r.Host)
		return err
	})
}

// Withdraw removes the request, if it is still there.
func (r *Request) Withdraw() error {
	err := os.Remove(r.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Taken reports whether the process has taken the request.
func (r *Request) Taken() bool {
	_, err := os.Lstat(r.path())
	return errors.Is(err, fs.ErrNotExist)
}

// isMade reports whether there is such a request. A request with the name of another host
// is one to a process with the same number there.
func (r *Request) isMade() bool {
	if info, err := os.Lstat(r.path()); err != nil || !info.Mode().IsRegular() {
		return false
	}
	f, err := os.Open(r.path())
	if err != nil {
		return false
	}
	defer f.Close()
	host, err := io.ReadAll(io.LimitReader(f, maxHost))
	return err == nil && bytes.Equal(host, []byte(r.Host))
}

// Watch takes requests to this process, until the returned function is called, which waits
// for the end of Watch. The first request calls ask. Requests from before Watch are void:
// they were to an earlier process with the same number.
func (r *Request) Watch(ctx context.Context, ask func()) (end func()) {
	if r.isMade() {
		_ = r.Withdraw() // otherwise it ends this process, too
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { // until end is called
		defer close(done)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if r.isMade() && r.Withdraw() == nil {
					ask()
				}
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}
