package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/journal"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Submission has the options of [Submit].
type Submission struct {
	Store          *postgres.Store
	Shared         Blobs // nil = the input goes to the database
	Priority       int   // 0 lowest to 255
	MaxConcurrency int   // slots of all workers; 0 = no limit
	MaxUpload      int64 // bytes of the input
	// Progress, if not nil, is called with the number of chunks that were read so far, and
	// the number of all chunks.
	Progress func(chunks, total int)
}

// Uploaded counts the bytes of a job that were sent, and those that were there already.
type Uploaded struct {
	Job     store.JobID
	State   string
	Sent    int64
	Skipped int64
}

// TooLargeError reports an input that is larger than MaxUpload.
type TooLargeError struct{ Limit int64 }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("the input is too large: want at most %d bytes", e.Limit)
}

// uploading is a job on its way to the database.
type uploading struct {
	*Submission
	job       *host.Job
	record    store.JobRecord
	submitted postgres.Submitted
	blobs     Blobs
	sent      Uploaded
	pending   []piece // of the input that are not sent yet
	size      int64
	reuses    bool // the store has outputs of the action
}

// piece is a segment with its bytes.
type piece struct {
	postgres.Segment
	data []byte
}

// Submit submits a job: it puts the missing parts in the store, and then lets workers take
// the job. The job has the same id as when it is run by one process. A job
// that was submitted before is renewed. The job must be valid, and j.Admitted must be set.
func Submit(ctx context.Context, j *host.Job, s Submission) (*Uploaded, error) {
	u := &uploading{Submission: &s, job: j, blobs: s.Shared}
	if u.blobs == nil {
		u.blobs = inTables{s.Store}
	}
	if err := u.begin(ctx); err != nil {
		return nil, err
	}
	u.sent.Job, u.sent.State = u.record.ID, u.submitted.State
	if u.submitted.State != "uploading" {
		return &u.sent, nil
	}
	if err := errors.Join(u.files(ctx), u.chunks(ctx)); err != nil {
		return nil, err
	}
	if err := j.Chunks.Unchanged(); err != nil {
		return nil, err
	}
	state, err := s.Store.Activate(ctx, u.submitted.Number, u.sent.Sent, u.sent.Skipped)
	u.sent.State = state
	return &u.sent, err
}

// begin records the job.
func (u *uploading) begin(ctx context.Context) error {
	j := u.job
	asked := j.Spec()
	if err := asked.Validate(); err != nil {
		return err
	}
	if err := u.checkSize(ctx, asked); err != nil {
		return err
	}
	text, err := json.Marshal(asked)
	if err != nil {
		return err
	}
	name, _ := os.Hostname()
	info, err := json.Marshal(journal.Process{Host: name, PID: os.Getpid()})
	if err != nil {
		return err
	}
	action := store.Action(asked.Action())
	total := j.Chunks.Len()
	u.record = store.JobRecord{ID: store.JobID(asked.ID()), Action: action, Derived: host.DerivedActions(action), Input: j.Chunks.Digest(), Total: total, Spec: text}
	shared := &postgres.SharedJob{
		JobRecord: u.record, Priority: u.Priority, MaxConcurrency: u.MaxConcurrency, Retries: asked.Settings.Retries, MaxRequeues: asked.Settings.MaxRequeues,
		Classes: []string{}, Backoff: asked.Settings.Backoff, BackoffMax: asked.Settings.BackoffMax, Deterministic: asked.Settings.Deterministic,
		MaxFailures: asked.Settings.MaxFailures, Engine: EngineName(), Info: info,
	}
	for _, class := range asked.Settings.Classes {
		shared.Classes = append(shared.Classes, string(class))
	}
	u.submitted, err = u.Store.Submit(ctx, shared, journal.EncodeIDs(total, j.Chunks.ID))
	return err
}

// checkSize rejects an input that is too large, before anything is sent.
func (u *uploading) checkSize(ctx context.Context, asked *spec.Spec) error {
	if u.MaxUpload == 0 || u.Shared != nil {
		return nil
	}
	size := int64(len(u.job.Module)) + asked.ContextSize
	if c := asked.Settings.Command; c != nil {
		for _, d := range c.Dirs {
			size += d.Bytes
		}
	}
	err := u.job.Chunks.Read(ctx, 0, u.job.Chunks.Len(), func(_ int, chunk []byte) error {
		if size += int64(len(chunk)); size > u.MaxUpload {
			return &TooLargeError{u.MaxUpload}
		}
		return nil
	})
	if err == nil && size > u.MaxUpload {
		err = &TooLargeError{u.MaxUpload}
	}
	return err
}

// files puts the module, the context and the directories in the store.
func (u *uploading) files(ctx context.Context) error {
	if err := u.file(ctx, roleModule, u.job.Module); err != nil {
		return err
	}
	if len(u.job.Settings.Context) > 0 {
		if err := u.file(ctx, roleContext, u.job.Settings.Context); err != nil {
			return err
		}
	}
	for i, d := range u.job.Settings.Command.Dirs {
		if err := u.file(ctx, fmt.Sprint(roleDir, i), d.Tree.Encode()); err != nil {
			return err
		}
	}
	return nil
}

// file puts a file, in blobs of at most maxBlob bytes.
func (u *uploading) file(ctx context.Context, role string, b []byte) error {
	for n := 0; n == 0 || len(b) > 0; n++ {
		part := b[:min(len(b), maxBlob)]
		b = b[len(part):]
		d := store.Digest(sha256.Sum256(part))
		if err := u.put(ctx, []piece{{postgres.Segment{Digest: d}, part}}); err != nil {
			return err
		}
		if err := u.Store.AddFile(ctx, u.submitted.Number, role, n, d); err != nil {
			return err
		}
	}
	return nil
}

// put puts those of the pieces that are missing.
func (u *uploading) put(ctx context.Context, pieces []piece) error {
	digests := make([]store.Digest, len(pieces))
	for i := range pieces {
		digests[i] = pieces[i].Digest
	}
	missing, err := u.blobs.Missing(ctx, digests)
	if err != nil {
		return err
	}
	for i := range pieces {
		p := &pieces[i]
		if !missing[p.Digest] {
			u.sent.Skipped += int64(len(p.data))
			if err := u.note(ctx, p); err != nil {
				return err
			}
			continue
		}
		if err := u.blobs.Put(ctx, p.Digest, p.data); err != nil {
			return err
		}
		delete(missing, p.Digest)
		u.sent.Sent += int64(len(p.data))
	}
	return nil
}

// note records in the database that the shared directory has a blob.
func (u *uploading) note(ctx context.Context, p *piece) error {
	if u.Shared == nil {
		return nil
	}
	return u.Store.PutBlob(ctx, p.Digest, len(p.data), nil)
}

// batchBytes is the number of bytes of segments that one request asks for.
const batchBytes = 4 << 20

// chunks puts the input, and finds the chunks that have outputs already.
func (u *uploading) chunks(ctx context.Context) error {
	for _, err := range u.Store.All(ctx, u.record.Action) {
		if err != nil {
			return err
		}
		u.reuses = true
		break
	}
	var open piece
	var keys []store.Key
	next := 0
	total := u.job.Chunks.Len()
	err := u.job.Chunks.Read(ctx, 0, total, func(i int, chunk []byte) error {
		next = i
		if open.Count > 0 && len(open.data)+len(chunk)+5 > maxBlob {
			if err := u.close(ctx, &open, &keys); err != nil {
				return err
			}
			open.First = i
		}
		open.data = appendChunk(open.data, chunk)
		open.Count++
		if u.reuses {
			keys = append(keys, store.Key{Chunk: sha256.Sum256(chunk), Order: u.job.Chunks.ID(i).AppendOrderKey(nil)})
		}
		return nil
	})
	if err == nil && open.Count > 0 {
		err = u.close(ctx, &open, &keys)
	}
	if err == nil {
		err = u.flush(ctx)
	}
	if err == nil && u.Progress != nil {
		u.Progress(min(next+1, total), total)
	}
	return err
}

// close ends a segment.
func (u *uploading) close(ctx context.Context, open *piece, keys *[]store.Key) error {
	open.Digest = sha256.Sum256(open.data)
	first := open.First
	u.size += int64(len(open.data))
	u.pending = append(u.pending, *open)
	*open = piece{}
	err := u.reuse(ctx, first, *keys)
	*keys = (*keys)[:0]
	if err != nil || u.size < batchBytes {
		return err
	}
	return u.flush(ctx)
}

// flush sends the segments that wait.
func (u *uploading) flush(ctx context.Context) error {
	if len(u.pending) == 0 {
		return nil
	}
	if err := u.put(ctx, u.pending); err != nil {
		return err
	}
	segments := make([]postgres.Segment, len(u.pending))
	for i := range u.pending {
		segments[i] = u.pending[i].Segment
	}
	if u.Progress != nil {
		u.Progress(segments[len(segments)-1].First, u.job.Chunks.Len())
	}
	u.pending, u.size = u.pending[:0], 0
	return u.Store.AddSegments(ctx, u.submitted.Number, segments)
}

// reuse records the chunks of a segment that have outputs already.
func (u *uploading) reuse(ctx context.Context, first int, keys []store.Key) error {
	if len(keys) == 0 {
		return nil
	}
	there := make([]bool, len(keys))
	err := u.Store.Get(ctx, u.record.Action, keys, func(i int, _ store.Value) error {
		there[i] = true
		return nil
	})
	for from := 0; err == nil && from < len(keys); {
		to := from
		for to < len(keys) && there[to] {
			to++
		}
		if to > from {
			chunks := make([]store.Digest, 0, to-from)
			detail := journal.AppendDetail(nil, 0, now())
			for i := from; i < to; i++ {
				chunks = append(chunks, keys[i].Chunk)
				detail = journal.AppendElapsed(detail, 0, -1)
			}
			err = u.Store.AddReused(ctx, u.submitted, first+from, chunks, detail)
		}
		from = to + 1
	}
	return err
}
