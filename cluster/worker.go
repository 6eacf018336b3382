package cluster

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store"
	"github.com/wasm-jobs/wasm-jobs/store/postgres"
)

// Config has the options of [Work].
type Config struct {
	Store  *postgres.Store
	Engine host.Engine // executes the modules of all jobs
	Slots  int         // chunks that run at once
	// Name, App and Host identify the process to people.
	Name, App, Host string
	PID             int
	Lease           time.Duration // how long a lease lasts if it is not renewed; at least 2 s
	IdleTimeout     time.Duration // Work ends after this time without work; 0 = never
	Grace           time.Duration // time that running chunks get after soft has ended
	Modules         int           // number of jobs whose instances are kept; at least 1
	Only            *store.JobID  // nil = leases of any job
	Shared          Blobs         // nil = inputs are only in the database
	// Notice, if not nil, is called with one line of text for users. Several
	// goroutines call it.
	Notice  func(line string)
	Watcher Watcher // nil = nobody
}

// process is a worker. Its fields do not change, except for those that mu guards.
type process struct {
	Config
	worker   *postgres.Worker
	slots    []*slot
	started  time.Time
	hard     context.Context // of attempts
	requests context.Context // of requests: it ends later than hard
	stop     context.CancelFunc
	looking  chan struct{} // held by the slot that looks for work

	mu      sync.Mutex
	err     error // the first
	jobs    map[version]*taken
	refused map[int]*refusal // jobs that this process cannot execute now
	worked  time.Time        // last time when there was work
	serving int              // slots
}

// taken is a job whose module is ready.
type taken struct {
	ready chan struct{} // closed when job or err is set
	job   *job
	err   error
	users int
	used  time.Time
}

// version identifies one submission of a job. The next submission may change its options.
type version struct {
	job     int
	version int64
}

func versionOf(l postgres.Lease) version { return version{l.Job, l.Version} }

// Work executes leases until soft ends, and then gives back the chunks that it has not
// begun. When ctx ends, running chunks are cut off. The error is an error of the store,
// such as [postgres.ErrUnreachable].
func Work(ctx, soft context.Context, c Config) error {
	requests, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	hard, cut := context.WithCancel(ctx)
	defer cut()
	soft, leave := context.WithCancel(soft)
	defer leave()
	w, err := c.Store.Register(soft, postgres.WorkerInfo{
		Name: c.Name, App: c.App, Host: c.Host, PID: c.PID, Engine: EngineName(), Slots: c.Slots, Lease: c.Lease,
	})
	if err != nil && soft.Err() != nil { // it was told to stop before it began
		return nil
	}
	if err != nil {
		return err
	}
	p := &process{
		Config: c, worker: w, started: time.Now(), hard: hard, requests: requests, stop: leave,
		looking: make(chan struct{}, 1), jobs: map[version]*taken{}, refused: map[int]*refusal{}, worked: time.Now(),
	}
	var working, beating sync.WaitGroup
	for n := range c.Slots {
		p.slots = append(p.slots, &slot{process: p, number: n + 1})
	}
	beats, ended := context.WithCancel(requests)
	beating.Go(func() { p.heartbeat(beats) })
	grace := context.AfterFunc(soft, func() { time.AfterFunc(c.Grace, cut) })
	for _, s := range p.slots {
		working.Go(func() { s.work(soft) })
	}
	working.Wait()
	grace()
	ended()
	beating.Wait()
	p.closeJobs(0)
	leaving, cancel := context.WithTimeout(requests, 10*time.Second)
	defer cancel()
	if err := w.Leave(leaving); err != nil && p.err == nil {
		p.notice("leases could not be given back, and expire by themselves: " + err.Error())
	}
	return p.err
}

func (p *process) notice(line string) {
	if p.Notice != nil {
		p.Notice(line)
	}
}

// fail ends the process softly after an error of the store.
func (p *process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil && err != nil {
		p.err = err
		p.stop()
	}
}

// work takes leases until there is a reason to stop.
func (s *slot) work(soft context.Context) {
	next := postgres.Lease{}
	for soft.Err() == nil {
		if next.Key == 0 {
			l, err := s.look(soft)
			if err != nil {
				if soft.Err() == nil {
					s.fail(err)
				}
				return
			}
			if next = l; next.Key == 0 {
				continue
			}
		}
		next = s.take(soft, next)
	}
}

// take executes a lease and those that follow it, and returns the first lease of another
// job, or on a fold.
func (s *slot) take(soft context.Context, l postgres.Lease) postgres.Lease {
	none := postgres.Lease{Slot: s.number}
	idle := s.busy(1) // making a module ready is work too
	asked := time.Now()
	j, fresh, release, err := s.jobOf(l)
	if err != nil {
		s.reject(l, err)
		s.busy(-1)
		s.idleSince(idle)
		return none
	}
	defer s.busy(-1)
	defer release()
	t := stintOf(s, j)
	t.begin(l, asked, fresh)
	defer t.end()
	if l.Fold {
		s.fold(soft, j, l)
		return none
	}
	if l.Calls {
		return s.calls(soft, j, l)
	}
	return s.serve(soft, j, l)
}

// busy adds n to the number of slots that have work, and returns the time when there was
// work before.
func (p *process) busy(n int) (worked time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	worked = p.worked
	p.serving += n
	p.worked = time.Now()
	return worked
}

// idleSince undoes a call of busy: a job that cannot be executed does not count as work.
func (p *process) idleSince(t time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.serving == 0 {
		p.worked = t
	}
}

// idle reports whether the process ends because it had no work for IdleTimeout.
func (p *process) idle() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.IdleTimeout > 0 && p.serving == 0 && time.Since(p.worked) > p.IdleTimeout
}

// reject reports that a job cannot be executed.
func (s *slot) reject(l postgres.Lease, err error) {
	if errors.Is(err, postgres.ErrNotHeld) || s.hard.Err() != nil { // the process is stopping, and gives all leases back
		return
	}
	by := ""
	if _, ok := errors.AsType[*runtime.InitError](err); ok {
		by = "init"
	} else if _, ok := errors.AsType[*runtime.RefusedError](err); ok || errors.Is(err, errDamaged) || errors.Is(err, errNotOurs) {
		by = "module"
	} else if _, ok := errors.AsType[*spec.InvalidError](err); ok {
		by = "module"
	}
	if by == "" {
		if errors.Is(err, postgres.ErrUnreachable) {
			s.fail(err)
			return
		}
		s.refuse(l, err)
		return
	}
	if err := s.worker.Break(s.requests, l, by, err.Error()); err != nil && !errors.Is(err, postgres.ErrNotHeld) {
		s.fail(err)
	}
}

// refusal is a job that this process cannot execute for a reason of this machine, such as
// a shared directory that is missing. Others may execute it.
type refusal struct {
	wait  time.Duration
	until time.Time
}

// The times after which a refused job is tried again.
const (
	firstRefusal = time.Second
	lastRefusal  = 30 * time.Second
)

// refuse gives a lease back, and takes no other one of its job for some time.
func (s *slot) refuse(l postgres.Lease, err error) {
	wait := s.putOff(l.Job)
	s.notice(fmt.Sprintf("a job cannot be executed here, and is tried again after %v: %v", wait, err))
	s.seq++
	_, err = s.worker.Settle(s.requests, &postgres.Settlement{Lease: l, Seq: s.seq, Done: l.First, Ends: true})
	if err != nil && !errors.Is(err, postgres.ErrNotHeld) {
		s.fail(err)
	}
}

// putOff records that a job was refused, and returns the time until it is tried again.
func (p *process) putOff(job int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.refused[job]
	if r == nil {
		r = &refusal{}
		p.refused[job] = r
	}
	if time.Now().After(r.until) { // otherwise another slot has just refused it too
		r.wait = min(max(2*r.wait, firstRefusal), lastRefusal)
		r.until = time.Now().Add(r.wait)
	}
	return r.wait
}

// The times between two requests for work, if no notification comes.
const (
	firstLook = 50 * time.Millisecond
	lastLook  = 5 * time.Second
)

// look waits until there is work. Only one of the waiting slots asks for it; when it has
// found some, the others ask once.
func (s *slot) look(soft context.Context) (l postgres.Lease, err error) {
	select {
	case s.looking <- struct{}{}:
	case <-soft.Done():
		return l, soft.Err()
	}
	defer func() { <-s.looking }()
	ask := func(ctx context.Context) bool {
		l, err = s.worker.Next(ctx, s.number, s.wants(), s.Only)
		return err != nil || l.Key != 0
	}
	for wait := firstLook; ; wait = min(2*wait, lastLook) {
		if s.idle() {
			s.stop()
			return l, nil
		}
		pause := wait/2 + rand.N(wait/2)
		if s.IdleTimeout > 0 {
			pause = min(pause, s.IdleTimeout)
		}
		told := s.Store.WaitForWork(soft, pause, ask)
		if err != nil || l.Key != 0 || soft.Err() != nil {
			return l, err
		}
		if told != nil { // no notifications: ask anyway
			if ask(soft) {
				return l, err
			}
		}
	}
}

// wants returns the sizes that leases should have, 0 for a job of which no lease is wanted.
func (p *process) wants() postgres.Want {
	p.mu.Lock()
	defer p.mu.Unlock()
	want := postgres.Want{}
	for v, t := range p.jobs {
		select {
		case <-t.ready:
			if t.job != nil {
				want[v.job] = t.job.want()
			}
		default:
		}
	}
	for job, r := range p.refused {
		if time.Now().Before(r.until) {
			want[job] = 0
		}
	}
	return want
}

// jobOf returns the job of a lease, with its instances ready if it is a lease on chunks.
// The caller calls release when it no longer uses the job. With fresh, this call has made
// the module ready.
func (s *slot) jobOf(l postgres.Lease) (j *job, fresh bool, release func(), err error) {
	p := s.process
	p.mu.Lock()
	v := versionOf(l)
	t := p.jobs[v]
	if fresh = t == nil; fresh {
		t = &taken{ready: make(chan struct{})}
		p.jobs[v] = t
		t.users++
		p.mu.Unlock()
		t.job, t.err = s.load(l)
		close(t.ready)
		if t.err != nil {
			p.forget(v, t)
		}
	} else {
		t.users++
		p.mu.Unlock()
		<-t.ready
	}
	release = func() {
		p.mu.Lock()
		t.users--
		t.used = time.Now()
		p.mu.Unlock()
		p.closeJobs(max(1, p.Modules))
	}
	if t.err != nil {
		release()
		return nil, false, nil, t.err
	}
	return t.job, fresh, release, nil
}

// load reads a job and makes its module ready.
func (s *slot) load(l postgres.Lease) (*job, error) {
	record, err := s.worker.Job(s.requests, l)
	if err != nil {
		return nil, err
	}
	j, err := readJob(s.requests, record, leaseSource{s.worker, l}, s.Shared)
	if err != nil {
		return nil, err
	}
	j.version = versionOf(l)
	if j.Admitted, err = s.Engine.Admit(s.hard, j.Module, j.Options); err != nil {
		return nil, err
	}
	if err := j.Admitted.Fits(j.Settings); err != nil {
		return nil, err
	}
	if err := j.Admitted.Compile(s.hard); err != nil {
		return nil, err
	}
	j.pool, err = j.Admitted.Prepare(s.hard, j.Settings)
	return j, err
}

func (p *process) forget(v version, t *taken) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.jobs[v] == t {
		delete(p.jobs, v)
	}
}

// closeJobs closes the least recently used jobs that are not in use, until no more
// than most jobs are left.
func (p *process) closeJobs(most int) {
	for {
		p.mu.Lock()
		oldest, of := (*taken)(nil), version{}
		if len(p.jobs) > most {
			for v, t := range p.jobs {
				if t.users == 0 && (oldest == nil || t.used.Before(oldest.used)) {
					oldest, of = t, v
				}
			}
		}
		p.mu.Unlock()
		if oldest == nil {
			return
		}
		p.closeJob(of, oldest)
	}
}

// closeJob closes a job, unless it is in use again.
func (p *process) closeJob(v version, t *taken) {
	p.mu.Lock()
	if t.users > 0 || p.jobs[v] != t {
		p.mu.Unlock()
		return
	}
	delete(p.jobs, v)
	p.mu.Unlock()
	if t.job != nil && t.job.pool != nil {
		if err := t.job.pool.Close(); err != nil {
			p.notice("cannot close instances: " + err.Error())
		}
	}
}

// The longest times between two heartbeats, with leases and without.
const (
	busyBeat = time.Second
	idleBeat = 10 * time.Second
)

// heartbeat renews the leases of all slots until ctx ends.
func (p *process) heartbeat(ctx context.Context) {
	for {
		wait := min(p.Lease/4, idleBeat)
		if at, _ := p.leases(); len(at) > 0 {
			wait = min(p.Lease/4, busyBeat)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		at, by := p.leases() // as they are now: a lease may be stolen from where its holder was last
		renewed, err := p.worker.Beat(ctx, at)
		if err != nil && ctx.Err() == nil {
			p.fail(err)
		}
		for _, r := range renewed {
			h := by[r.Key]
			if h != nil && p.slots[h.lease.Slot-1].held.Load() == h { // otherwise it was settled meanwhile
				h.renew(r)
			}
		}
	}
}

// leases returns how far the leases of all slots are, and the leases by their keys.
func (p *process) leases() (at []postgres.At, by map[int64]*held) {
	at, by = []postgres.At{}, map[int64]*held{}
	for _, s := range p.slots {
		if h := s.held.Load(); h != nil {
			at = append(at, postgres.At{Slot: s.number, Key: h.lease.Key, Done: int(h.done.Load())})
			by[h.lease.Key] = h
		}
	}
	return at, by
}

// renew handles the renewal of a lease. The chunks of a lease that is over are cut off.
func (h *held) renew(r postgres.Renewal) {
	if !r.Goes {
		h.end.Store(0)
		h.cancel()
		return
	}
	if int64(r.Last) < h.end.Load() {
		h.end.Store(int64(r.Last))
	}
}
