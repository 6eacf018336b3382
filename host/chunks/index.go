package chunks

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// maxChunks keeps positions within 32 bits. The offsets of more chunks, of one byte
// each, would take 32 GiB.
const maxChunks = math.MaxUint32

// index holds the offset and the id of each chunk. Chunks are added in file order;
// nothing changes after sort.
type index struct {
	offsets blocks   // the start of each chunk, by position
	end     uint64   // the end of the last chunk; chunks are adjacent
	ids     *idTable // nil while every id is the chunk's position
	last    abi.ID   // of the chunk added last
	sorted  bool     // ids ascend strictly in file order; true if there are none
	order   []uint32 // positions in id order; nil if sorted and all are selected
}

// len returns the number of chunks that were added.
func (x *index) len() int { return x.offsets.count }

// count returns the number of chunks in id order: all of them, or those of a
// selection.
func (x *index) count() int {
	if x.order != nil {
		return len(x.order)
	}
	return x.len()
}

// add appends the chunk at [start, end) with its id, and returns that id. If stated
// is false, the id is the chunk's position.
func (x *index) add(start, end uint64, id abi.ID, stated bool) abi.ID {
	position := x.len()
	if !stated {
		id = abi.IntID(uint64(position))
	}
	x.sorted = position == 0 || x.sorted && x.last.Compare(id) < 0
	x.last = id
	if x.ids == nil && id != abi.IntID(uint64(position)) {
		x.ids = positionsUpTo(position)
	}
	if x.ids != nil {
		x.ids.add(id)
	}
	x.offsets.add(start)
	x.end = end
	return id
}

// id returns the id of the chunk at a position.
func (x *index) id(position int) abi.ID {
	if x.ids == nil {
		_ = x.offsets.at(position)
		return abi.IntID(uint64(position))
	}
	return x.ids.at(position)
}

// position returns the position of the i-th chunk in id order.
func (x *index) position(i int) int {
	if x.order == nil {
		_ = x.offsets.at(i)
		return i
	}
	return int(x.order[i])
}

// span returns the start and the end in the file of the chunk at a position.
func (x *index) span(position int) (start, end int64) {
	if position+1 < x.len() {
		return int64(x.offsets.at(position)), int64(x.offsets.at(position + 1))
	}
	return int64(x.offsets.at(position)), int64(x.end)
}

// blockLen is the number of values in a block.
const blockLen = 1 << 16

// blocks is a list of numbers that grows without being copied. For ten million
// chunks, copies would be most of the memory that a job takes.
type blocks struct {
	full  [][]uint64 // the last one may have room
	count int
}

func (b *blocks) add(n uint64) {
	if b.count%blockLen == 0 {
		size := blockLen
		if b.count == 0 {
			size = 0 // A small file needs little.
		}
		b.full = append(b.full, make([]uint64, 0, size))
	}
	last := len(b.full) - 1
	b.full[last] = append(b.full[last], n)
	b.count++
}

// at panics if i is not below count.
func (b *blocks) at(i int) uint64 { return b.full[i/blockLen][i%blockLen] }

// sort puts the positions in id order. If two chunks have the same id, it returns
// the pair whose second chunk comes first in the file, and ok is false.
func (x *index) sort(ctx context.Context) (first, second int, ok bool, err error) {
	if x.len() == 0 || x.sorted {
		x.sorted = true
		return 0, 0, true, nil
	}
	x.order = make([]uint32, x.len())
	for i := range x.order {
		x.order[i] = uint32(i)
	}
	slices.SortFunc(x.order, x.comparer(ctx))
	if err := ctx.Err(); err != nil {
		return 0, 0, false, err
	}
	first, second, found := x.duplicate()
	return first, second, !found, nil
}

// comparer compares positions by id, then by value. Once ctx has ended it reports
// all as equal, so that sorting ends soon.
func (x *index) comparer(ctx context.Context) func(a, b uint32) int {
	calls, stopped := 0, false
	return func(a, b uint32) int {
		if calls++; calls%(1<<16) == 0 {
			stopped = ctx.Err() != nil
		}
		if stopped {
			return 0
		}
		if c := x.ids.compare(int(a), int(b)); c != 0 {
			return c
		}
		return cmp.Compare(a, b)
	}
}

func (x *index) duplicate() (first, second int, found bool) {
	for i := 1; i < len(x.order); i++ {
		a, b := int(x.order[i-1]), int(x.order[i])
		if x.ids.compare(a, b) == 0 && (!found || b < second) {
			first, second, found = a, b, true
		}
	}
	return first, second, found
}

// idTable holds ids compactly: eight bytes for each, a bit for texts, and the
// texts packed in blocks.
type idTable struct {
	values []uint64 // the integer, or a reference to the text: see textRef
	isText []uint64 // a bit for each id
	blocks []*strings.Builder
}

// A text lies in one block. Its reference has 27 bits for the block, 20 for its
// start and 17 for its length, which may be MaxTextID.
const (
	lengthBits = 17
	startBits  = 20
	blockSize  = 1 << startBits
)

// positionsUpTo returns the table of n ids that are equal to their positions.
func positionsUpTo(n int) *idTable {
	t := &idTable{values: make([]uint64, n), isText: make([]uint64, (n+63)/64)}
	for i := range t.values {
		t.values[i] = uint64(i)
	}
	return t
}

func (t *idTable) add(id abi.ID) {
	i := len(t.values)
	if i/64 == len(t.isText) {
		t.isText = append(t.isText, 0)
	}
	value, isInt := id.Int()
	if !isInt {
		text, _ := id.Text()
		value = t.keep(text)
		t.isText[i/64] |= 1 << (i % 64)
	}
	t.values = append(t.values, value)
}

// keep stores a text and returns its reference.
func (t *idTable) keep(text string) uint64 {
	last := len(t.blocks) - 1
	if last < 0 || t.blocks[last].Len()+len(text) > blockSize || t.blocks[last].Len() == blockSize {
		t.blocks = append(t.blocks, new(strings.Builder))
		last++
	}
	start := t.blocks[last].Len()
	t.blocks[last].WriteString(text)
	return uint64(last)<<(startBits+lengthBits) | uint64(start)<<lengthBits | uint64(len(text))
}

func (t *idTable) at(position int) abi.ID {
	if t.isText[position/64]>>(position%64)&1 == 0 {
		return abi.IntID(t.values[position])
	}
	ref := t.values[position]
	start := ref >> lengthBits & (blockSize - 1)
	block := t.blocks[ref>>(startBits+lengthBits)].String()
	return abi.TextID(block[start : start+ref&(1<<lengthBits-1)])
}

func (t *idTable) compare(a, b int) int { return t.at(a).Compare(t.at(b)) }

// shortID returns an id for a message, cut if it is long.
func shortID(id abi.ID) string {
	s := id.String()
	if r := []rune(s); len(r) > 64 {
		return fmt.Sprintf("%s… (%d bytes)", string(r[:64]), len(s))
	}
	return s
}
