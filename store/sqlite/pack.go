package sqlite

import (
	"bytes"
	"cmp"
	"math"
	"slices"
	"sort"
	"strconv"

	"github.com/wasm-jobs/wasm-jobs/store"
)

// A pack is a row of the table packs: outputs that are neighbours in the order of
// their keys. SQLite's time is spent per row, so packs take about a fiftieth of the
// time that a row for each output would.
//
// The packs of an action do not overlap: as with the leaves of a B-tree, an output
// can be in only one of them, the last one that does not begin after it.
//
// The column body has, for each output, the order, the chunk's digest, the checksum
// and the output. The column places has their positions, in JSON, so that the view
// outputs can show them: [[offset, bytes of the order, bytes of the output, fuel],
// ...]. Each place is independent of the others, so a damaged one loses one output.
type pack struct {
	order, chunk []byte // of its first output
	slots        []slot
	body         []byte
	whole        bool // the column places was read to its end
}

// slot is the position of an output in the body of its pack.
type slot struct {
	at, order, output int
	fuel              uint64
}

// fixedSize is how many bytes of a body an output takes in addition to its order and
// its own bytes.
const fixedSize = len(store.Digest{}) + checksumSize

// packSize bounds the sum of the first order, the places and the body of a pack of
// several outputs, so that its row fills a page and does not overflow it: 42 outputs
// of a few bytes. Two pages would save 5 % of the time of a job of such outputs, and
// a look-up of one output would take half as long again.
const packSize = usableSize - 35 - len(store.Digest{}) - 16

// read reads a pack from its columns. The pack is valid as long as they are.
func (p *pack) read(order, chunk, places, body []byte) {
	p.order, p.chunk, p.body = order, chunk, body
	p.slots, p.whole = parseSlots(p.slots[:0], places, len(body))
}

// copy makes p a copy of another pack, and reuses p's memory.
func (p *pack) copy(from *pack) {
	p.order, p.chunk = append(p.order[:0], from.order...), append(p.chunk[:0], from.chunk...)
	p.slots, p.whole = append(p.slots[:0], from.slots...), from.whole
	p.body = append(p.body[:0], from.body...)
}

// parseSlots appends the slots that are within a body of size bytes; whole is false
// if the text is cut short or malformed.
func parseSlots(slots []slot, text []byte, size int) (all []slot, whole bool) {
	if len(text) < 2 || text[0] != '[' {
		return slots, false
	}
	for text = text[1:]; len(text) > 0; {
		var numbers [4]uint64
		for i := range numbers {
			if text[0] != "[,,,"[i] {
				return slots, false
			}
			var ok bool
			if numbers[i], text, ok = parseNumber(text[1:]); !ok {
				return slots, false
			}
		}
		if fits(numbers[0], numbers[1], numbers[2], size) {
			slots = append(slots, slot{int(numbers[0]), int(numbers[1]), int(numbers[2]), numbers[3]})
		}
		if len(text) < 2 || text[0] != ']' {
			return slots, false
		}
		if text[1] != ',' {
			return slots, text[1] == ']' && len(text) == 2
		}
		if text = text[2:]; len(text) == 0 {
			break
		}
	}
	return slots, false
}

// fits reports whether an output is within a body of size bytes.
func fits(at, order, output uint64, size int) bool {
	const most = math.MaxInt32
	return at <= most && order <= most && output <= most && int(at)+int(order)+fixedSize+int(output) <= size
}

// parseNumber reads a number, which must be followed by another byte.
func parseNumber(text []byte) (n uint64, rest []byte, ok bool) {
	for i, c := range text {
		digit := uint64(c - '0')
		if digit > 9 {
			return n, text[i:], i > 0
		}
		if i == 20 || n > (math.MaxUint64-digit)/10 {
			return 0, nil, false
		}
		n = 10*n + digit
	}
	return 0, nil, false
}

// row returns an output, as views into the pack.
func (p *pack) row(i int) row {
	at := p.slots[i]
	order, rest := cutAt(p.body[at.at:], at.order)
	chunk, rest := cutAt(rest, len(store.Digest{}))
	sum, rest := cutAt(rest, checksumSize)
	output, _ := cutAt(rest, at.output)
	return row{order, chunk, sum, store.Value{Fuel: at.fuel, Output: output}}
}

func cutAt(b []byte, n int) (front, rest []byte) { return b[:n:n], b[n:] }

// find returns the index of a key's output. A damaged output in the pack may
// keep it from being found.
func (p *pack) find(key store.Key) (i int, ok bool) {
	return sort.Find(len(p.slots), func(i int) int { return -compareKeys(p.row(i), key) })
}

// rows returns the outputs of a pack.
func (p *pack) rows() []row {
	rows := make([]row, len(p.slots))
	for i := range rows {
		rows[i] = p.row(i)
	}
	return rows
}

// last returns the last of the outputs.
func (p *pack) last() row {
	if len(p.slots) == 0 {
		return row{order: p.order, chunk: p.chunk}
	}
	return p.row(len(p.slots) - 1)
}

func compareKeys(r row, key store.Key) int {
	if c := bytes.Compare(r.order, key.Order); c != 0 {
		return c
	}
	return bytes.Compare(r.chunk, key.Chunk[:])
}

func compareRows(a, b row) int {
	if c := bytes.Compare(a.order, b.order); c != 0 {
		return c
	}
	return bytes.Compare(a.chunk, b.chunk)
}

// packer makes packs of outputs whose keys ascend.
type packer struct {
	packs   []packed
	places  []byte // of all packs, one after the other
	body    []byte
	from    struct{ places, body int } // offsets at which the last pack begins
	limit   int                        // 0 = packSize
	scratch []byte
}

// packed is a pack to be written.
type packed struct {
	first, last  store.Key
	places, body []byte
}

// grow makes room for count outputs that take so many bytes, with their orders.
func (b *packer) grow(count, bytes int) {
	b.places = slices.Grow(b.places, 24*count)
	b.body = slices.Grow(b.body, bytes+count*fixedSize)
}

// add appends an output whose checksum is known.
func (b *packer) add(r row) {
	b.place(store.Key{Chunk: store.Digest(r.chunk), Order: r.order}, r.Value)
	b.body = append(append(append(append(b.body, r.order...), r.chunk...), r.sum...), r.Output...)
}

// addNew appends an output of an action.
func (b *packer) addNew(action store.Action, r *store.Record) {
	b.place(r.Key, r.Value)
	var sum sum
	sum, b.scratch = checksum(action, r.Key, r.Value, b.scratch)
	b.body = append(append(append(append(b.body, r.Order...), r.Chunk[:]...), sum[:]...), r.Output...)
}

// place adds the place of an output, in a new pack if the last one is full.
func (b *packer) place(key store.Key, v store.Value) {
	if len(b.packs) == 0 || b.size()+len(key.Order)+fixedSize+len(v.Output)+maxPlace > cmp.Or(b.limit, packSize) {
		b.seal()
		b.packs = append(b.packs, packed{first: key})
		b.places = append(b.places, '[')
	} else {
		b.places[len(b.places)-1] = ','
	}
	before := byte('[')
	for _, n := range [...]uint64{uint64(len(b.body) - b.from.body), uint64(len(key.Order)), uint64(len(v.Output)), v.Fuel} {
		b.places = strconv.AppendUint(append(b.places, before), n, 10)
		before = ','
	}
	b.places = append(b.places, ']', ']')
	b.packs[len(b.packs)-1].last = key
}

// maxPlace is the most bytes that the place of an output of a small pack takes,
// unless its fuel has more than 12 digits.
const maxPlace = len("[1234,1234,1234,123456789012],")

// size returns how much of packSize the last pack takes.
func (b *packer) size() int {
	return len(b.packs[len(b.packs)-1].first.Order) + len(b.places) - b.from.places + len(b.body) - b.from.body
}

// seal ends the last pack.
func (b *packer) seal() {
	if len(b.packs) == 0 {
		return
	}
	last := &b.packs[len(b.packs)-1]
	last.places, last.body = b.places[b.from.places:len(b.places):len(b.places)], b.body[b.from.body:len(b.body):len(b.body)]
	b.from.places, b.from.body = len(b.places), len(b.body)
}

// all returns the packs and starts over. The packs refer to the keys given to add.
func (b *packer) all() []packed {
	b.seal()
	packs := b.packs
	b.packs = nil
	return packs
}

// repack makes packs of rows. If it takes several packs, they are equally full,
// since more outputs may come between these.
func repack(rows []row) []packed {
	b := &packer{}
	for _, r := range rows {
		b.add(r)
	}
	if packs := b.all(); len(packs) < 2 {
		return packs
	}
	size := len(b.body) + len(b.places)
	b = &packer{limit: min(packSize, size/((size+packSize-1)/packSize)+maxPlace)}
	for _, r := range rows {
		b.add(r)
	}
	return b.all()
}
