// Package linear provides linear memories for WebAssembly instances. They return
// to a snapshot before each call, in microseconds.
//
// A [Memory] belongs to one instance. When an instance is warmed up,
// [Memory.Snapshot] takes an [Image] of it. [Memory.Attach] attaches that image
// to any number of instances of the same module, including the first one.
// [Memory.Reset] restores the bytes and the length of a memory from its image:
//
//	mem, err := linear.New(linear.Options{Limit: 256 << 20})
//	mod, err := r.InstantiateModule(experimental.WithMemoryAllocator(ctx, mem), compiled, config)
//	// ... warm up ...
//	img, err := mem.Snapshot()
//	err = mem.Attach(img, mod.Memory())
//	for each call {
//		// ... call ...
//		err = mem.Reset(mod.Memory())
//	}
//
// A clone is a module that was instantiated without start functions, with a
// memory of its own, and then attached. Attach drops everything that
// instantiation wrote: data segments and the effects of a start section.
//
// On Linux an image is a sealed memory file (memfd_create(2)) and its clones are
// private mappings of it: a clone costs only the pages that it wrote. Elsewhere,
// each memory is a separate buffer on the Go heap.
//
// This package restores only memory. The caller restores globals, tables and the
// state of the host.
package linear

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/tetratelabs/wazero/experimental"
)

const (
	// PageSize is the unit of a linear memory's length in bytes (WebAssembly
	// Core Specification 2.0, section 4.2.8).
	PageSize = 64 << 10

	// MaxLimit is one page below 4 GiB, the limit of 32-bit addresses: compiled
	// code of wazero 1.12.0 treats a memory of 65,536 pages as one of 0 bytes.
	MaxLimit = 65_535 * PageSize

	// DefaultKeep is more than most calls write, and limits the memory of an idle
	// worker. Up to this size, keeping pages is cheaper than faulting them in
	// again: writing back 16 MiB takes 2 ms (BenchmarkKeep).
	DefaultKeep = 64 << 20

	// copyLimit is the length up to which writing back everything is cheaper than
	// asking the system which pages were written: 0.9 against 2.4 us at 64 KiB,
	// 90 against 3 us at 3 MiB (BenchmarkReset).
	copyLimit = 128 << 10

	// Every sweepEvery resets, pages that were kept but not used are looked for,
	// and dropped if they have at least sweepMin bytes. Faulting in a page costs
	// as much as 27 copies of it, so a page is worth keeping if at least one call
	// in 27 writes it. 32 sweeps about as often and makes the cost of comparing
	// negligible. Without sweeps, one call that wrote a lot, such as a call of
	// aggregate, made all later calls of the instance half as long again.
	sweepEvery = 32
	sweepMin   = 64 << 10
)

// systemPage is the size of a page of the system, in bytes.
var systemPage = uint64(os.Getpagesize())

// Errors of Attach, Reset and Snapshot.
var (
	// ErrFixed means that the length cannot be set, because the guest has grown
	// its memory to the maximum that its module declares (see [Options.Maximum]).
	// The instance must be replaced.
	ErrFixed = errors.New("linear: memory has its declared maximum and cannot be shrunk")

	// ErrClosed means that the memory was freed, or the image closed.
	ErrClosed = errors.New("linear: closed")

	errNoImage = errors.New("linear: reset of a memory without an image")
	errForeign = errors.New("linear: not the memory of this instance")
)

// Strategy is a way to restore a memory. Strategies differ only in cost.
type Strategy uint8

const (
	// Auto is Copy for memories of up to 128 KiB. For larger ones it is the first
	// of Userfault, Scan, Pagemap and Discard that works on this system, or else
	// Compare.
	Auto Strategy = iota
	// Copy writes the whole image back.
	Copy
	// Compare writes back the pages that differ from the image.
	Compare
	// Scan asks the kernel which pages were written (ioctl PAGEMAP_SCAN, Linux
	// 6.7 and later) and writes them back.
	Scan
	// Pagemap is Scan for any Linux: it reads /proc/self/pagemap, 8 bytes for
	// each page of 4 KiB.
	Pagemap
	// Discard drops the pages that were written; the next use of each faults. It
	// scales badly over threads, because each drop interrupts the other cores.
	Discard
	// Userfault is Scan of an image that the kernel write-protects and marks when
	// it is written (userfaultfd(2), UFFD_FEATURE_WP_ASYNC, Linux 6.7 and later,
	// if containers may use it). Only this strategy skips pages that were only
	// read at little cost: with all of 50 MiB read, a scan takes 11 us against 180.
	Userfault
)

var strategyNames = [...]string{"auto", "copy", "compare", "scan", "pagemap", "discard", "userfault"}

// String returns the name in lower case.
func (s Strategy) String() string {
	if int(s) < len(strategyNames) {
		return strategyNames[s]
	}
	return fmt.Sprintf("strategy(%d)", uint8(s))
}

// Strategies returns the strategies that work on this system, without Auto. The
// strategy that Auto prefers for large memories is last. The first call tests, on
// a memory of its own, that every written page is reported: some kernels accept
// the request and report nothing.
func Strategies() []Strategy { return append([]Strategy{Copy, Compare}, systemStrategies()...) }

// preferred returns the strategy that Auto uses for large memories. It does not
// try less preferred strategies, because each test takes a millisecond.
var preferred = sync.OnceValue(func() Strategy { return cmp.Or(systemPreferred(), Compare) })

// Options of a memory. The zero value allows [MaxLimit] bytes.
type Options struct {
	// Limit is the maximum size of the memory in bytes, rounded down to pages. 0
	// is MaxLimit, which it must not exceed. The caller must refuse modules whose
	// minimum is larger, and first call Reallocate with the minimum: wazero panics
	// if it gets no memory.
	Limit uint64

	// Maximum is the maximum that the guest sees, in bytes; 0 is none. Growing
	// above it fails without counting as Denied. A memory at the maximum that the
	// module declares to wazero cannot be shrunk (see ErrFixed), so a caller that
	// rewrites modules can declare one page more there and set the true maximum
	// here.
	Maximum uint64

	// Keep limits the written pages that stay in physical memory after Reset, in
	// bytes; 0 is DefaultKeep. After a call that left more, all of them are
	// dropped. Copy and Compare apply it only to grown memory: they may keep a
	// whole image in addition.
	Keep uint64

	// Strategy must be Auto or one of Strategies.
	Strategy Strategy

	// Fault, if not nil, can make the system calls of this memory fail. It gets
	// the name of each call, and if it returns an error, that error is used
	// instead of making the call. It is for tests; only Linux has such calls.
	Fault func(call string) error
}

func (o *Options) validate() error {
	if o.Limit > MaxLimit {
		return fmt.Errorf("linear: Limit of %d bytes is too large: want at most %d", o.Limit, uint64(MaxLimit))
	}
	if o.Limit == 0 {
		o.Limit = MaxLimit
	}
	if o.Keep == 0 {
		o.Keep = DefaultKeep
	}
	o.Limit -= o.Limit % PageSize
	if o.Strategy != Auto && !slices.Contains(Strategies(), o.Strategy) {
		return fmt.Errorf("linear: strategy %s does not work on this system", o.Strategy)
	}
	return nil
}

// Memory is the linear memory of one instance. It implements
// [experimental.MemoryAllocator] for one instantiation and
// [experimental.LinearMemory].
//
// Only one goroutine at a time may use a Memory, as with its instance. On Linux
// it never moves. It is not on the Go heap there, so Free must be called: wazero
// does so when the instance closes, but not if instantiation fails. Free may be
// called more than once. While it runs and after it, no call may run in the
// instance.
type Memory struct {
	options Options
	space   space
	large   Strategy // for memories above copyLimit; Auto = not needed yet
	track   tracker  // nil if large needs none
	bytes   []byte   // the memory of the instance
	next    []byte   // the result of the next Reallocate, if not nil
	image   *Image
	denied  bool
	back    bool  // the last writeAll went backwards
	failed  error // from the system, since ForgetDenied
	resets  uint
	spans   []span   // written by the last call
	used    []span   // buffer of sweep
	unused  []span   // buffer of sweep
	_       [16]byte // keeps other workers off the cache lines that each reset writes
}

// space holds the bytes of a memory.
type space interface {
	// grow returns the first n bytes, which may be fewer than before. Bytes that
	// it returns for the first time are 0.
	grow(n uint64) ([]byte, error)
	// attach makes the bytes equal to img, with zeros up to the largest size so
	// far, and frees physical memory. It returns img.size bytes.
	attach(img *Image) ([]byte, error)
	// drop frees the physical memory of s. Its bytes become those of the attached
	// image, or 0 after its end. It returns false if it cannot do that.
	drop(s span) bool
	free() error
	// tracker returns the tracker of a strategy, or nil if it needs none. If the
	// strategy marks pages of an image, it does so from the next attach on.
	tracker(s Strategy) tracker
}

// span is a range of offsets in a memory, in whole system pages.
type span struct{ from, to uint64 }

// tracker knows which pages of a mapping have been written. It must report all
// pages written since their space was attached, and may report others.
type tracker interface {
	// written appends to spans. It returns false if the pages are not known, or
	// are more than limit bytes.
	written(b []byte, limit uint64, spans []span) ([]span, bool)
}

var live atomic.Int64

// Live returns the number of memories that have been made and not freed, plus the
// number of images that still exist. It is meant for tests that look for leaks.
func Live() int64 { return live.Load() }

// New returns a memory of length 0. On Linux, it reserves addresses for the whole
// limit, but no physical memory.
func New(options Options) (*Memory, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	s, err := newSpace(options.Limit, options.Fault)
	if err != nil {
		return nil, fmt.Errorf("linear: reserve %d bytes: %w", options.Limit, err)
	}
	live.Add(1)
	m := &Memory{options: options, space: s, bytes: []byte{}}
	if options.Strategy != Auto {
		m.use(options.Strategy)
	}
	return m, nil
}

// use sets the strategy for a large memory, before the image is attached.
func (m *Memory) use(s Strategy) {
	m.large, m.track = s, m.space.tracker(s)
}

// Allocate implements [experimental.MemoryAllocator].
func (m *Memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements [experimental.LinearMemory]. It returns nil, which makes
// memory.grow return -1, if size is above the limit or the maximum, or if the
// system has no memory. In the last case Failed returns the error.
func (m *Memory) Reallocate(size uint64) []byte {
	if m.next != nil {
		m.bytes, m.next = m.next, nil
		return m.bytes
	}
	if m.space == nil || m.options.Maximum > 0 && size > m.options.Maximum {
		return nil
	}
	if size > m.options.Limit {
		m.denied = true
		return nil
	}
	b, err := m.space.grow(size)
	if err != nil {
		m.failed = cmp.Or(m.failed, fmt.Errorf("linear: grow to %d bytes: %w", size, err))
		return nil
	}
	m.bytes = b
	return b
}

// Denied reports whether a growth above the limit was refused since the last
// Reset, Attach or ForgetDenied. It is the same in every run of the guest.
func (m *Memory) Denied() bool { return m.denied }

// Failed returns the error of the system for a growth within the limit since the
// last Reset, Attach or ForgetDenied, or nil. If it is not nil, the guest got -1,
// so its behavior depends on the machine and its output must not be used.
func (m *Memory) Failed() error { return m.failed }

// ForgetDenied makes Denied false and Failed nil until a growth fails again.
func (m *Memory) ForgetDenied() {
	if m.denied || m.failed != nil { // rare, and not to write is faster in a reset
		m.denied, m.failed = false, nil
	}
}

// Free implements [experimental.LinearMemory]: it frees the memory.
func (m *Memory) Free() {
	if m.space == nil {
		return
	}
	// Unmapping can only fail if the kernel has no memory. The addresses are lost
	// then, and nobody could do anything about it.
	_ = m.space.free()
	if m.image != nil {
		m.image.release()
	}
	*m = Memory{denied: m.denied, failed: m.failed}
	live.Add(-1)
}

// Snapshot returns an image of the present content. The caller closes it.
func (m *Memory) Snapshot() (*Image, error) {
	if m.space == nil {
		return nil, ErrClosed
	}
	return newImage(m.bytes, m.options.Fault)
}

// Grower is the part of [github.com/tetratelabs/wazero/api.Memory] that tells an
// instance about a new length.
type Grower interface {
	Grow(pages uint32) (previous uint32, ok bool)
}

// Attach replaces the content of the memory by img, and each later Reset restores
// img. The memory keeps the image alive until it is freed or attached to another.
//
// mem must be the memory of the instance that this memory was allocated for, and
// no call may run in that instance. Even a call that waits for a host function
// counts, because compiled code remembers facts about the length. After an error
// the content is undefined, and the instance must be closed.
func (m *Memory) Attach(img *Image, mem Grower) error {
	if m.space == nil {
		return ErrClosed
	}
	if img.size > m.options.Limit {
		return fmt.Errorf("linear: image of %d bytes is too large: the limit of the memory is %d", img.size, m.options.Limit)
	}
	if !img.retain() {
		return ErrClosed
	}
	old := m.image
	m.image = img
	if m.large == Auto && img.size > copyLimit {
		m.use(preferred())
	}
	b, err := m.space.attach(img)
	if old != nil {
		old.release()
	}
	if err != nil {
		return fmt.Errorf("linear: attach image: %w", err)
	}
	return m.show(b, mem)
}

// Reset restores the bytes and the length from the image, and clears Denied and
// Failed. mem must meet the conditions of [Memory.Attach].
//
// Written pages stay in physical memory, because faulting one in costs as much as
// 27 copies of it, until they turn out to be unused or exceed [Options.Keep].
func (m *Memory) Reset(mem Grower) error {
	switch {
	case m.space == nil:
		return ErrClosed
	case m.image == nil:
		return errNoImage
	}
	b, err := m.restore()
	if err != nil {
		return fmt.Errorf("linear: reset: %w", err)
	}
	return m.show(b, mem)
}

// show makes b the memory that the instance sees. wazero stores the result of
// Reallocate and tells the engine, even if it is shorter than before
// (internal/wasm/memory.go, MemoryInstance.Grow). There is no other way to shrink
// a memory.
func (m *Memory) show(b []byte, mem Grower) error {
	m.ForgetDenied()
	if len(b) == len(m.bytes) && unsafe.SliceData(b) == unsafe.SliceData(m.bytes) {
		return nil
	}
	m.next = b
	_, ok := mem.Grow(1)
	used := m.next == nil
	m.next = nil
	switch {
	case !ok:
		return ErrFixed
	case !used:
		return errForeign
	}
	return nil
}

// restore writes the image back and returns the bytes.
func (m *Memory) restore() ([]byte, error) {
	size := m.image.size
	s := m.strategy()
	if s == Auto { // a small image without marks, and the memory has grown
		m.use(preferred())
		s = m.large
	}
	drop := s == Discard || (s == Copy || s == Compare) && uint64(len(m.bytes))-size > m.options.Keep
	switch {
	case drop:
	case s == Copy:
		m.back = !m.back
		m.image.writeAll(m.bytes, m.back)
	case s == Compare:
		m.image.writeDifferent(m.bytes)
	default:
		drop = !m.writeTracked()
	}
	if drop {
		return m.space.attach(m.image)
	}
	return m.space.grow(size)
}

// strategy returns the strategy for the present length; Auto if none is set yet.
func (m *Memory) strategy() Strategy {
	if m.options.Strategy == Auto && len(m.bytes) <= copyLimit {
		return Copy
	}
	return m.large
}

// writeTracked writes the image back over the pages written since it was
// attached. It returns false if they are unknown or too many.
func (m *Memory) writeTracked() bool {
	var ok bool
	m.spans, ok = m.track.written(m.bytes, m.options.Keep, m.spans[:0])
	if !ok {
		return false
	}
	if m.resets++; m.resets%sweepEvery == 0 {
		m.sweep()
	}
	for _, s := range m.spans {
		m.image.writeBack(m.bytes, s)
	}
	return true
}

// sweep drops the pages in m.spans that are already equal to the image: the last
// call did not use them. The others stay in m.spans.
func (m *Memory) sweep() {
	used, unused, size := m.used[:0], m.unused[:0], uint64(0)
	for _, s := range m.spans {
		for at := s.from; at < s.to; at += systemPage {
			page := span{at, at + systemPage}
			if m.image.equal(m.bytes, page) {
				unused = join(unused, page)
				size += systemPage
			} else {
				used = join(used, page)
			}
		}
	}
	m.used, m.unused = used, unused
	if size < sweepMin {
		return
	}
	m.spans, m.used = used, m.spans
	for _, s := range unused {
		m.space.drop(s) // if it fails, the bytes are right already
	}
}

// join appends a span to spans that are before it.
func join(spans []span, s span) []span {
	if last := len(spans) - 1; last >= 0 && spans[last].to == s.from {
		spans[last].to = s.to
		return spans
	}
	return append(spans, s)
}
