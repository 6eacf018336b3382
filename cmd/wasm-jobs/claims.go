package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/jobs"
	"github.com/wasm-jobs/wasm-jobs/host/receipt"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// claims are the outputs that a job is said to have given: of a file, or of a
// store.
type claims struct {
	name  string // for messages
	most  int64  // how many outputs there can be
	each  func(ctx context.Context, each func(id abi.ID, output []byte) error) error
	close func() error
}

// maxClaim is the limit of one output in a file of them, in bytes.
const maxClaim = 1 << 30

// minClaim is the size of the smallest map of id and output in it: five heads
// and two keys.
const minClaim = 1 + 3 + 1 + 7 + 1

// fileClaims are the outputs in a file that run --outputs wrote, as CBOR.
func fileClaims(path string) (*claims, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case ".jsonl", ".ndjson", ".csv":
		return nil, refuse("%s: outputs are needed as CBOR, which alone has their exact bytes: run --outputs FILE.cbor", path)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, refuse("%s: cannot be opened: %s", path, withoutPath(err))
	}
	c := &claims{name: path, close: file.Close}
	if stat, err := file.Stat(); err == nil {
		if !stat.Mode().IsRegular() { // it is read more than once
			file.Close()
			return nil, refuse("%s: is no regular file, and a file of outputs is needed", path)
		}
		c.most = stat.Size() / minClaim
	}
	c.each = func(ctx context.Context, each func(abi.ID, []byte) error) error {
		if _, err := file.Seek(0, 0); err != nil {
			return err
		}
		return eachFileOutput(ctx, path, file, each)
	}
	return c, nil
}

func eachFileOutput(ctx context.Context, path string, r io.Reader, each func(abi.ID, []byte) error) error {
	var last abi.ID
	o := chunks.Options{Name: path, Format: chunks.Sequence, NoIDKey: true, MaxChunk: maxClaim}
	for item, err := range chunks.Stream(ctx, r, o) {
		if err != nil {
			return err
		}
		id, output, ok := cutOutput(item.Bytes)
		switch {
		case !ok:
			return refuse("%s: item %d is no map of id and output: a file is needed that run --outputs wrote", path, item.Position)
		case item.Position > 0 && last.Compare(id) >= 0:
			return refuse("%s: the output of chunk %v comes behind that of %v: outputs are needed in id order, each once", path, id, last)
		}
		last = id
		if err := each(id, output); err != nil {
			return err
		}
	}
	return nil
}

// cutOutput takes apart a map of id and output, one well-formed item.
func cutOutput(item []byte) (id abi.ID, output []byte, ok bool) {
	if rest, ok := bytes.CutPrefix(item, headOfOutput); ok { // as AppendOutput writes it
		h, err := abi.ReadHead(rest)
		if err == nil && h.Major == abi.MajorUint && bytes.HasPrefix(rest[h.Size:], outputKey) {
			return abi.IntID(h.Arg), rest[h.Size+len(outputKey):], true
		}
	}
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorMap || h.Indefinite || h.Arg != 2 {
		return id, nil, false
	}
	id, ok, err = abi.FindID(item, "id")
	if err != nil || !ok {
		return id, nil, false
	}
	for rest := item[h.Size:]; len(rest) > 0; {
		k, _ := abi.ItemSize(rest)
		v, _ := abi.ItemSize(rest[k:])
		if key, value := rest[:k], rest[k:k+v]; bytes.Equal(key, outputKey) {
			return id, value, true
		}
		rest = rest[k+v:]
	}
	return id, nil, false
}

var (
	outputKey    = abi.AppendText(nil, "output")
	headOfOutput = abi.AppendText(abi.AppendHead(nil, abi.MajorMap, 2), "id")
)

// storeClaims are the outputs of the job in a store that a receipt is of. It is
// nil where the store, or the job in it, is not there.
func storeClaims(ctx context.Context, c *console, dir string, r *receipt.Receipt) (*claims, error) {
	if !sqlite.Exists(dir) {
		return nil, nil
	}
	s, err := sqlite.Open(ctx, dir, sqlite.Options{
		Notice:  func(line string) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", line) },
		Damaged: func(d sqlite.Damage) { fmt.Fprintf(c.err, "wasm-jobs: store: %s\n", damageLine(d)) },
	})
	if err != nil {
		return nil, failedStore(err)
	}
	for j, err := range jobs.List(ctx, s) {
		if err != nil {
			return nil, errors.Join(failedStore(err), s.Close())
		}
		if isOf(&j.Spec, r) {
			return jobClaims(c, j, "the store", s.Close), nil
		}
	}
	return nil, failedStore(s.Close())
}

// isOf reports whether a receipt may be of a job.
func isOf(spec *jobs.Spec, r *receipt.Receipt) bool {
	own := jobFields(spec)
	for _, f := range r.Fields() {
		if value, known := own[f.Name]; known && value != f.Value {
			return false
		}
	}
	return true
}

// jobClaims are the outputs of a job in a store, which close closes.
func jobClaims(c *console, j *jobs.Job, name string, close func() error) *claims {
	each := func(ctx context.Context, each func(abi.ID, []byte) error) error {
		err := eachJobOutput(ctx, c, j, each)
		c = &console{err: io.Discard} // what it says is said once
		return err
	}
	return &claims{name: name, most: int64(j.Record.Total), each: each, close: close}
}

// settingsOf are the settings of a recorded job that can change a result.
func settingsOf(spec *jobs.Spec) receipt.Settings {
	s := receipt.Settings{
		Memory: spec.Settings.Memory, Metering: !spec.Settings.NoMetering, NaNs: receipt.CanonicalNaNs, Seed: spec.Settings.Seed,
	}
	if spec.Settings.NativeNaNs {
		s.NaNs = receipt.NativeNaNs
	}
	if c := spec.Settings.Command; c != nil {
		s.Args, s.Env = c.Args, c.Env
		if c.Stdin == receipt.StdinCBOR {
			s.Stdin = receipt.StdinCBOR
		}
		for _, d := range c.Dirs {
			dir := receipt.Dir{Guest: d.Guest}
			_ = dir.Digest.UnmarshalText([]byte(d.Digest)) // another one, where it cannot be read
			s.Dirs = append(s.Dirs, dir)
		}
	}
	var d receipt.Digest
	if d.UnmarshalText([]byte(spec.Context)) == nil && d != sha256.Sum256(abi.Null) {
		s.Context = &d
	}
	return s
}

// jobFields are those fields of a receipt that a job's record has.
func jobFields(spec *jobs.Spec) map[string]string {
	r := receipt.Receipt{Chunks: uint64(spec.Total), Settings: settingsOf(spec)}
	fields := map[string]string{}
	for _, f := range r.Fields() {
		if f.Name == "chunks" || strings.HasPrefix(f.Name, "settings.") {
			fields[f.Name] = f.Value
		}
	}
	fields["module"], fields["input"] = spec.Module.Digest, spec.Chunks.Digest
	return fields
}
