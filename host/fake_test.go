package host_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// fake is a [host.Engine] whose guest is made of Go functions. Like the real
// engine, it creates an instance when it prepares and one for each further
// call.
type fake struct {
	exec      func(chunk []byte, attempt int) ([]byte, error) // attempt from 1, for the same bytes
	aggregate func(input []byte) ([]byte, error)              // nil = not exported
	merge     func(input []byte) ([]byte, error)              // nil = not exported
	refusal   error                                           // of compiling

	description *runtime.Description // nil = unknown

	prepare error
	delay   func() time.Duration // of an exec; nil = none

	mu       sync.Mutex
	attempts map[string]int // by chunk

	created, closed      atomic.Int64 // instances
	leased, released     atomic.Int64
	execs, folds, merges atomic.Int64
	poolsClosed          atomic.Int64
}

func (f *fake) Admit(ctx context.Context, _ []byte, _ runtime.Options) (host.Module, error) {
	return f, ctx.Err()
}

func (f *fake) Fits(runtime.Settings) error { return nil }

func (f *fake) Compile(ctx context.Context) error { return errors.Join(ctx.Err(), f.refusal) }

func (f *fake) Description() *runtime.Description { return f.description }

func (f *fake) Digest() [sha256.Size]byte { return sha256.Sum256([]byte("fake")) }

func (f *fake) Exports(function string) bool {
	switch function {
	case abi.ExportAggregate:
		return f.aggregate != nil
	case abi.ExportMerge:
		return f.merge != nil
	default:
		return function == abi.ExportExec
	}
}

func (f *fake) Prepare(ctx context.Context, _ runtime.Settings) (host.Pool, error) {
	f.created.Add(1)
	if err := ctx.Err(); err != nil || f.prepare != nil {
		f.closed.Add(1)
		if err == nil {
			err = f.prepare
		}
		return nil, err
	}
	return &fakePool{fake: f, spare: true}, nil
}

func (f *fake) Close(context.Context) error { return nil }

type fakePool struct {
	*fake
	mu    sync.Mutex
	spare bool
}

func (p *fakePool) Borrow(runtime.Log) host.Instance {
	p.leased.Add(1)
	return &fakeInstance{p, false}
}

func (p *fakePool) Isolation() runtime.Isolation { return runtime.IsolationInstance }

func (p *fakePool) Stats() runtime.Stats {
	return runtime.Stats{Created: uint64(p.created.Load()), Closed: uint64(p.closed.Load())}
}

func (p *fakePool) Close() error {
	p.poolsClosed.Add(1)
	if p.take() {
		p.closed.Add(1)
	}
	return nil
}

func (p *fakePool) take() (spare bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	spare, p.spare = p.spare, false
	return spare
}

type fakeInstance struct {
	pool     *fakePool
	released bool
}

func (i *fakeInstance) Release() {
	if i.released {
		panic("an instance is released twice")
	}
	i.released = true
	i.pool.released.Add(1)
}

// Call returns nil instead of dst if it fails, as the interface allows.
func (i *fakeInstance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	if i.released {
		panic("an instance is used after its release")
	}
	if err := ctx.Err(); err != nil {
		return nil, 0, err
	}
	f := i.pool.fake
	if !i.pool.take() {
		f.created.Add(1)
	}
	defer f.closed.Add(1)
	output, err := f.call(ctx, function, input)
	if err != nil {
		return nil, 0, err
	}
	return append(dst, output...), 1, nil
}

func (f *fake) call(ctx context.Context, function string, input []byte) ([]byte, error) {
	switch function {
	case abi.ExportAggregate:
		f.folds.Add(1)
		return f.aggregate(input)
	case abi.ExportMerge:
		f.merges.Add(1)
		return f.merge(input)
	}
	f.execs.Add(1)
	f.mu.Lock()
	if f.attempts == nil {
		f.attempts = map[string]int{}
	}
	f.attempts[string(input)]++
	attempt := f.attempts[string(input)]
	f.mu.Unlock()
	if f.delay != nil {
		select {
		case <-time.After(f.delay()):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return f.exec(input, attempt)
}

// checkTeardown fails the test if an instance was not released or closed.
func (f *fake) checkTeardown(t *testing.T) {
	t.Helper()
	if created, closed := f.created.Load(), f.closed.Load(); created != closed {
		t.Errorf("%d instances were created and %d closed", created, closed)
	}
	if leased, released := f.leased.Load(), f.released.Load(); leased != released {
		t.Errorf("%d leases and %d releases", leased, released)
	}
}

// squares is a fake that squares integers, or the "n" of maps, and sums up.
func squares() *fake {
	return &fake{
		exec:      func(chunk []byte, _ int) ([]byte, error) { return square(chunk) },
		aggregate: sumEntries,
		merge:     sumNumbers,
	}
}

func square(chunk []byte) ([]byte, error) {
	n := numberOf(chunk)
	return number(n * n), nil
}

func sumEntries(input []byte) ([]byte, error) {
	var entries []struct {
		_      struct{} `cbor:",toarray"`
		ID     any
		Output uint64
	}
	if err := cbor.Unmarshal(input, &entries); err != nil {
		return nil, abi.Failf(abi.ClassGuest, "%v", err)
	}
	var sum uint64
	for _, e := range entries {
		sum += e.Output
	}
	return number(sum), nil
}

func sumNumbers(input []byte) ([]byte, error) {
	var numbers []uint64
	if err := cbor.Unmarshal(input, &numbers); err != nil {
		return nil, abi.Failf(abi.ClassGuest, "%v", err)
	}
	var sum uint64
	for _, n := range numbers {
		sum += n
	}
	return number(sum), nil
}

// number returns n as a CBOR item.
func number(n uint64) []byte { return abi.AppendHead(nil, abi.MajorUint, n) }

// numberOf is the inverse of number; it also takes maps with the key "n".
func numberOf(item []byte) uint64 {
	var n uint64
	if item[0]>>5 == abi.MajorUint {
		switch info := item[0] & 31; info {
		default:
			return uint64(info)
		case 24:
			return uint64(item[1])
		case 25:
			return uint64(binary.BigEndian.Uint16(item[1:]))
		case 26:
			return uint64(binary.BigEndian.Uint32(item[1:]))
		}
	}
	var m struct {
		N uint64 `cbor:"n"`
	}
	if err := cbor.Unmarshal(item, &m); err != nil {
		panic(err)
	}
	n = m.N
	return n
}

// named returns the chunk {"id": id, "n": n}.
func named(id abi.ID, n uint64) []byte {
	b := abi.AppendHead(nil, abi.MajorMap, 2)
	b = id.AppendCBOR(abi.AppendText(b, "id"))
	return append(abi.AppendText(b, "n"), number(n)...)
}

func numbers(n int) (items [][]byte) {
	for i := range n {
		items = append(items, number(uint64(i)))
	}
	return items
}

func shuffled(items [][]byte) [][]byte {
	items = append([][]byte{}, items...)
	rand.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
	return items
}

func chunksOf(t *testing.T, items ...[]byte) *chunks.File {
	t.Helper()
	f, err := chunks.Of(items...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// faulty makes every n-th exec of an engine fail with a retryable class, below
// the coordinator.
type faulty struct {
	host.Engine
	n     int64
	calls *atomic.Int64
}

type (
	faultyModule struct {
		host.Module
		engine *faulty
	}
	faultyPool struct {
		host.Pool
		engine *faulty
	}
	faultyInstance struct {
		host.Instance
		engine *faulty
	}
)

func (f *faulty) Admit(ctx context.Context, wasm []byte, o runtime.Options) (host.Module, error) {
	m, err := f.Engine.Admit(ctx, wasm, o)
	return faultyModule{m, f}, err
}

func (m faultyModule) Prepare(ctx context.Context, s runtime.Settings) (host.Pool, error) {
	p, err := m.Module.Prepare(ctx, s)
	return faultyPool{p, m.engine}, err
}

func (p faultyPool) Borrow(log runtime.Log) host.Instance {
	return faultyInstance{p.Pool.Borrow(log), p.engine}
}

func (i faultyInstance) Call(ctx context.Context, function string, input, dst []byte) ([]byte, uint64, error) {
	if function == abi.ExportExec && i.engine.calls.Add(1)%i.engine.n == 0 {
		return dst, 0, abi.Failf(abi.ClassGuestRetryable, "injected")
	}
	return i.Instance.Call(ctx, function, input, dst)
}
