// Package linear provides linear memories for WebAssembly instances that go
// back to a snapshot before each call, in microseconds.
//
// A [Memory] belongs to one instance. Once an instance is warmed up,
// [Memory.Snapshot] takes an [Image] of it; [Memory.Attach] gives that image to
// any number of instances of the same module, the first one included; and
// [Memory.Reset] makes the bytes and the length of a memory those of its image
// again:
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
// A clone is a module instantiated with a memory of its own, without start
// functions, and attached. What instantiation wrote, data segments and the
// effects of a start section, is dropped by Attach.
//
// On Linux an image is a sealed memory file (memfd_create(2)) and its clones
// are private mappings of it: a clone costs the pages that it wrote, and no
// more. Elsewhere, each memory is a buffer of its own on the heap of Go.
//
// Memory is all that this package restores. Globals, tables and the state of
// the host are up to the caller.
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

	// MaxLimit is one page below the 4 GiB that 32 bits address: wazero 1.12.0's
	// compiled code sees a memory of 65,536 pages as one of 0 bytes.
	MaxLimit = 65_535 * PageSize

	// DefaultKeep is large beside what most calls write, and bounds what a worker
	// holds while nothing runs. Up to it, keeping is cheaper than faulting in
	// again: 16 MiB are written back in 2 ms (BenchmarkKeep).
	DefaultKeep = 64 << 20

	// copyLimit is the length up to which writing back everything is cheaper
	// than to ask the system what was written: 0.9 against 2.4 us at 64 KiB, 90
	// against 3 us at 3 MiB (BenchmarkReset).
	copyLimit = 128 << 10

	// Every sweepEvery resets, pages that were kept but not used are looked for,
	// and dropped if they have at least sweepMin bytes. Faulting a page in costs
	// as much as 27 copies of it, so a page is worth keeping if at least one call
	// in 27 writes it; 32 sweeps about as often, and makes the comparing cost next
	// to nothing. Without, one call that wrote much, such as of aggregate, made
	// all that came after it in the instance half as long again.
	sweepEvery = 32
	sweepMin   = 64 << 10
)

// systemPage is the size of a page of the system, in bytes.
var systemPage = uint64(os.Getpagesize())

// Errors of Attach, Reset and Snapshot.
var (
	// ErrFixed says that the length cannot be set, as the guest has grown its
	// memory to the maximum that its module declares (see [Options.Maximum]).
	// The instance must be replaced.
	ErrFixed = errors.New("linear: memory has its declared maximum and cannot be shrunk")

	// ErrClosed says that the memory was freed, or the image closed.
	ErrClosed = errors.New("linear: closed")

	errNoImage = errors.New("linear: reset of a memory without an image")
	errForeign = errors.New("linear: not the memory of this instance")
)

// Strategy is a way to restore a memory. They differ in cost alone.
type Strategy uint8

const (
	// Auto is Copy for memories of up to 128 KiB, and beyond that the first of
	// Userfault, Scan, Pagemap and Discard, or else Compare, that works on this
	// system.
	Auto Strategy = iota
	// Copy writes the whole image back.
	Copy
	// Compare writes back the pages that differ from the image.
	Compare
	// Scan asks the kernel which pages were written (ioctl PAGEMAP_SCAN, Linux
	// 6.7 and later) and writes these back.
	Scan
	// Pagemap is Scan for any Linux: it reads /proc/self/pagemap, 8 bytes for
	// each page of 4 KiB.
	Pagemap
	// Discard drops the pages that were written: later uses of them fault.
	// It scales badly over threads, as each drop interrupts the other cores.
	Discard
	// Userfault is Scan of an image that the kernel write-protects and marks
	// where it was written (userfaultfd(2), UFFD_FEATURE_WP_ASYNC, Linux 6.7 and
	// later, where containers may use it). Only this tells pages that were only
	// read at little cost: with all of 50 MiB read, 11 us a scan against 180.
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

// Strategies returns those that work on this system, without Auto, the one
// that Auto prefers for large memories last. The first call proves on a memory
// of its own that what tracks written pages does report them all: there are
// kernels that accept such a request and say nothing.
func Strategies() []Strategy { return append([]Strategy{Copy, Compare}, systemStrategies()...) }

// preferred is what Auto takes for large memories. Strategies that come before
// it are not tried: that takes a millisecond each.
var preferred = sync.OnceValue(func() Strategy { return cmp.Or(systemPreferred(), Compare) })

// Options of a memory. The zero value is one that can have [MaxLimit] bytes.
type Options struct {
	// Limit is what the memory may grow to, in bytes; it is rounded down to
	// pages. 0 is MaxLimit, which it must not exceed. The caller must refuse
	// modules whose minimum is larger, and ask for the minimum with Reallocate
	// first: wazero panics when it gets no memory.
	Limit uint64

	// Maximum is the maximum that the guest believes it has, in bytes; 0 is none.
	// Growing beyond it fails without counting as Denied. A memory at the maximum
	// that the module declares to wazero cannot be shrunk (see ErrFixed), so who
	// rewrites modules may declare one page more there and the true one here.
	Maximum uint64

	// Keep bounds the written pages that stay in physical memory after Reset, in
	// bytes; 0 is DefaultKeep. A call that left more has all of them dropped.
	// Copy and Compare apply it to grown memory only: they may keep a whole
	// image as well.
	Keep uint64

	// Strategy must be Auto or one of Strategies.
	Strategy Strategy
}

func (o *Options) validate() error {
	if o.Limit > MaxLimit {
		return fmt.Errorf("linear: Limit of %d bytes is over MaxLimit, %d", o.Limit, uint64(MaxLimit))
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
// A Memory is used by one goroutine at a time, as its instance is. On Linux it
// never moves. It uses no memory of Go's heap there, so Free must be called:
// wazero does when the instance closes, but not where instantiation fails. Free
// may be called more than once; no call may run in the instance then, and none
// may start after it.
type Memory struct {
	options Options
	space   space
	large   Strategy // beyond copyLimit; Auto = it was not needed yet
	track   tracker  // nil where large needs none
	bytes   []byte   // what the instance has
	next    []byte   // what the next Reallocate gives to the instance, if not nil
	image   *Image
	denied  bool
	resets  uint
	spans   []span   // that the last call has written
	used    []span   // of sweep, for the next time
	unused  []span   // the same
	_       [40]byte // no other worker's on the cache lines that each reset writes
}

// space is where the bytes of a memory are.
type space interface {
	// grow returns the first n bytes, which may be fewer than before. Those that
	// were never returned are 0.
	grow(n uint64) ([]byte, error)
	// attach makes the bytes those of img, followed by zeros up to where they
	// were grown before, and gives physical memory back. It returns img.size bytes.
	attach(img *Image) ([]byte, error)
	// drop gives the physical memory of s back. Its bytes are those of the image
	// that is attached, or 0 beyond its end. It returns false if it cannot.
	drop(s span) bool
	free() error
	// tracker returns that of a strategy, or nil where it needs none. What a
	// strategy has to mark in an image, it marks from the next attach on.
	tracker(s Strategy) tracker
}

// span is a range of offsets in a memory, in whole pages of the system.
type span struct{ from, to uint64 }

// tracker knows which pages of a mapping have been written. It may report
// pages that have not, and must report all that have since their space was
// attached.
type tracker interface {
	// written appends to spans. It returns false if it does not know, or has
	// found more than limit bytes.
	written(b []byte, limit uint64, spans []span) ([]span, bool)
}

var live atomic.Int64

// Live returns how many memories have been made and not freed, plus how many
// images still exist. It is meant for tests that look for leaks.
func Live() int64 { return live.Load() }

// New returns a memory of length 0. On Linux, it reserves addresses for the
// whole limit and no physical memory.
func New(options Options) (*Memory, error) {
	if err := options.validate(); err != nil {
		return nil, err
	}
	s, err := newSpace(options.Limit)
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

// use takes a strategy for a large memory, before the image is attached.
func (m *Memory) use(s Strategy) {
	m.large, m.track = s, m.space.tracker(s)
}

// Allocate implements [experimental.MemoryAllocator].
func (m *Memory) Allocate(_, _ uint64) experimental.LinearMemory { return m }

// Reallocate implements [experimental.LinearMemory]. It returns nil, which
// makes memory.grow return -1, beyond the limit or the maximum.
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
		m.denied = true
		return nil
	}
	m.bytes = b
	return b
}

// Denied reports whether a growth failed since the last Reset, Attach or
// ForgetDenied, for the limit or since the system had no memory.
func (m *Memory) Denied() bool { return m.denied }

// ForgetDenied makes Denied false until a growth fails again.
func (m *Memory) ForgetDenied() { m.denied = false }

// Free implements [experimental.LinearMemory]: it gives all memory back.
func (m *Memory) Free() {
	if m.space == nil {
		return
	}
	// Unmapping what was mapped can only fail for a lack of kernel memory. The
	// addresses are lost then, which nobody could do anything about.
	_ = m.space.free()
	if m.image != nil {
		m.image.release()
	}
	*m = Memory{denied: m.denied}
	live.Add(-1)
}

// Snapshot returns an image of the memory as it is. The caller closes it.
func (m *Memory) Snapshot() (*Image, error) {
	if m.space == nil {
		return nil, ErrClosed
	}
	return NewImage(m.bytes)
}

// Grower is the part of [github.com/tetratelabs/wazero/api.Memory] through
// which an instance learns of a new length.
type Grower interface {
	Grow(pages uint32) (previous uint32, ok bool)
}

// Attach makes img what the memory holds now and goes back to at each Reset.
// The memory keeps the image alive until it is freed or attached to another.
//
// mem must be the memory of the instance that this memory was allocated for,
// and no call may run in it: not even one that waits for a host function, as
// compiled code remembers what it has proved about the length. After an error
// the content is undefined, and the instance must be closed.
func (m *Memory) Attach(img *Image, mem Grower) error {
	if m.space == nil {
		return ErrClosed
	}
	if img.size > m.options.Limit {
		return fmt.Errorf("linear: image of %d bytes is over the limit of %d", img.size, m.options.Limit)
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

// Reset makes bytes and length those of the image again, and forgets Denied.
// The conditions of [Memory.Attach] hold for it too.
//
// Pages that were written stay in physical memory, as to fault one in costs as
// much as 27 copies of it, until they turn out to be unused or exceed
// [Options.Keep].
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

// show makes b what the instance sees. wazero stores what Reallocate returns
// and tells the engine, even if that is shorter than before
// (internal/wasm/memory.go, MemoryInstance.Grow); there is no other way to
// shrink a memory.
func (m *Memory) show(b []byte, mem Grower) error {
	m.denied = false
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

// restore makes the bytes those of the image and returns them.
func (m *Memory) restore() ([]byte, error) {
	size := m.image.size
	s := m.strategy()
	if s == Auto { // a small image, of which nothing is marked, and the memory has grown
		m.use(preferred())
		s = m.large
	}
	drop := s == Discard || (s == Copy || s == Compare) && uint64(len(m.bytes))-size > m.options.Keep
	switch {
	case drop:
	case s == Copy:
		m.image.writeAll(m.bytes)
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

// strategy is the one for the present length; Auto where that is not known yet.
func (m *Memory) strategy() Strategy {
	if m.options.Strategy == Auto && len(m.bytes) <= copyLimit {
		return Copy
	}
	return m.large
}

// writeTracked writes the image back over the pages that were written since it
// was attached. It returns false if these are too many or not known.
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

// sweep drops those pages of m.spans that are equal to the image already: the
// last call has not used them. The others are left in m.spans.
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
		m.space.drop(s) // what cannot be dropped is as it should be
	}
}

// join appends a span to those before it.
func join(spans []span, s span) []span {
	if last := len(spans) - 1; last >= 0 && spans[last].to == s.from {
		spans[last].to = s.to
		return spans
	}
	return append(spans, s)
}
