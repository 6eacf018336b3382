package sqlite

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wasm-jobs/wasm-jobs/store"
)

const (
	// damagedInfix names files that were set aside, salvageInfix those whose
	// outputs are still to be carried over: a crash on the way loses none.
	damagedInfix = ".damaged-"
	salvageInfix = ".salvage-"

	// lockPatience is how long another process may take to replace the file.
	lockPatience = 10 * time.Minute
)

// locked calls f while no other process opens or replaces the file. The lock
// is one of SQLite's, on a file of its own, because it is there on every
// system and ends with its process.
func (s *Store) locked(f func() error) (err error) {
	path := filepath.Join(filepath.Dir(s.path), lockName)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	c, err := s.connect(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.BusyTimeout(lockPatience); err != nil {
		return err
	}
	err = c.Exec("begin exclusive")
	if beyondReading(err) { // nothing is ever written to it
		if err = os.Truncate(path, 0); err == nil {
			err = c.Exec("begin exclusive")
		}
	}
	if err != nil {
		return err
	}
	return errors.Join(f(), c.Exec("rollback"))
}

// replace opens the file anew after an error that concerns it as a whole, and
// sets it aside where nobody has done that.
func (s *Store) replace(old *database, cause error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.db != old {
		return nil
	}
	moved := old.broken || old.moved()
	if !old.broken {
		old.close(false) // its error says no more than cause
	}
	s.db = &database{store: s, broken: true}
	s.replaced.Store(true)
	return s.locked(func() error {
		if !moved && !errors.Is(cause, errMoved) {
			if err := s.setAside(cause); err != nil {
				return err
			}
		}
		return s.openOrReplace()
	})
}

// openOrReplace opens the file, or a new one where it is beyond reading, and
// carries over what was set aside. The lock is held.
func (s *Store) openOrReplace() error {
	if err := s.finishSetAside(); err != nil {
		return err
	}
	db, err := s.open()
	if beyondReading(err) {
		if err := s.setAside(err); err != nil {
			return err
		}
		db, err = s.open()
	}
	if err != nil {
		return err
	}
	if err := db.salvageAll(); err != nil {
		return errors.Join(err, db.close(false))
	}
	s.db = db
	return nil
}

// setAside renames the file and its log. The lock is held and the file is not
// open in this process.
func (s *Store) setAside(cause error) error {
	why := strings.ReplaceAll(cause.Error(), "\n", "; ") // of joined errors
	s.options.Notice(fmt.Sprintf("%s is beyond reading (%s): it is set aside, and what can still be read is carried over", s.path, why))
	aside := s.path + salvageInfix + time.Now().UTC().Format("20060102T150405.000000000")
	if err := s.rename(s.path, aside); err != nil {
		return err
	}
	return s.finishSetAside()
}

func (s *Store) rename(from, to string) error {
	if err := s.vfs.fault("rename", from); err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return os.Rename(from, to)
}

// finishSetAside moves the log after a file that was set aside. Where the file
// is missing for another reason, its log is of no use.
func (s *Store) finishSetAside() error {
	if _, err := os.Lstat(s.path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Remove(s.path + "-shm"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	log := s.path + "-wal"
	info, err := os.Lstat(log)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return os.Remove(log)
	}
	aside := s.path + salvageInfix + "log"
	if waiting, err := s.waiting(); err != nil {
		return err
	} else if len(waiting) > 0 {
		aside = waiting[len(waiting)-1]
	}
	return s.rename(log, aside+"-wal")
}

// waiting returns the files whose outputs are still to be carried over.
func (s *Store) waiting() (paths []string, err error) {
	entries, err := os.ReadDir(filepath.Dir(s.path))
	for _, e := range entries {
		path := strings.TrimSuffix(filepath.Join(filepath.Dir(s.path), e.Name()), "-wal")
		if strings.HasPrefix(path, s.path+salvageInfix) && (len(paths) == 0 || paths[len(paths)-1] != path) {
			paths = append(paths, path)
		}
	}
	return paths, err
}

// salvageAll carries over what was set aside and not carried over yet.
func (db *database) salvageAll() error {
	paths, err := db.store.waiting()
	if err != nil {
		return err
	}
	for _, path := range paths {
		carried, err := db.salvage(path)
		if err != nil {
			return err
		}
		final := db.store.path + damagedInfix + strings.TrimPrefix(path, db.store.path+salvageInfix)
		for _, suffix := range []string{"-wal", ""} {
			if err := db.store.rename(path+suffix, final+suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		db.store.options.Notice(fmt.Sprintf("%d outputs were carried over from %s", carried, final))
	}
	return nil
}

// salvage puts every output that can be found in the pages of a file and of
// its log, and that passes its checksum.
func (db *database) salvage(path string) (carried int, err error) {
	p, err := openPages(path)
	if err != nil {
		return 0, err
	}
	defer p.close()
	digests := map[int64][]store.Action{}
	var all []store.Action
	err = p.each(func(page []byte) error {
		p.actions(page, func(id int64, digest store.Action) {
			digests[id] = append(digests[id], digest)
			all = append(all, digest)
		})
		return nil
	})
	if err != nil {
		return 0, err
	}
	b := &carry{db: db, records: map[store.Action][]store.Record{}}
	err = p.each(func(page []byte) error {
		return p.outputs(page, func(id int64, r row) error {
			candidates := digests[id]
			if len(candidates) == 0 {
				candidates = all
			}
			for _, action := range candidates {
				if key, ok := r.verify(action, &b.scratch); ok {
					return b.add(action, key, r.Value)
				}
			}
			if len(digests[id]) > 0 {
				key := r.key()
				b.lost = append(b.lost, Damage{digests[id][0], store.Key{Chunk: key.Chunk, Order: bytes.Clone(key.Order)}})
			}
			return nil
		})
	})
	if err == nil {
		err = b.flush()
	}
	if err != nil {
		return b.carried, err
	}
	return b.carried, db.nameLost(b.lost)
}

// nameLost reports those of the damaged outputs that no other page had. A page
// that was no longer in use may have some that were never lost; they are there.
func (db *database) nameLost(lost []Damage) error {
	for _, d := range lost {
		there := false
		at, ok, err := db.writer.locate(d.Action)
		if err == nil && ok {
			there, err = db.writer.one(at, d.Key, func(row) {})
		}
		if err != nil {
			return err
		}
		if !there {
			db.store.damaged.Add(1)
			db.store.options.Damaged(d)
		}
	}
	return nil
}

// carry puts outputs in batches.
type carry struct {
	db      *database
	records map[store.Action][]store.Record
	size    int
	carried int
	lost    []Damage
	scratch []byte
}

func (b *carry) add(action store.Action, key store.Key, v store.Value) error {
	key.Order = append([]byte{}, key.Order...)
	b.records[action] = append(b.records[action], store.Record{
		Key: key, Value: store.Value{Output: append([]byte{}, v.Output...), Fuel: v.Fuel},
	})
	if b.size += 64 + len(v.Output); b.size < 1<<20 {
		return nil
	}
	return b.flush()
}

func (b *carry) flush() error {
	var group []*request
	for action, records := range b.records {
		group = append(group, newPut(action, records))
	}
	if _, err := b.db.write(group); err != nil {
		return err
	}
	for _, r := range group {
		b.carried += r.stored
	}
	clear(b.records)
	b.size = 0
	return nil
}

// pages reads the pages of a file and of its log one by one, whatever state
// they are in. See https://sqlite.org/fileformat2.html.
type pages struct {
	file, log     *os.File // nil where there is none
	count, frames int64
	latest        map[uint32]int64 // frame of the log that has a page last
}

const (
	logHeader   = 32
	frameHeader = 24
)

func openPages(path string) (*pages, error) {
	p := &pages{latest: map[uint32]int64{}}
	var err error
	if p.file, p.count, err = openCounted(path, 0, pageSize); err != nil {
		return nil, err
	}
	if p.log, p.frames, err = openCounted(path+"-wal", logHeader, frameHeader+pageSize); err != nil {
		p.close()
		return nil, err
	}
	var header [4]byte
	for i := range p.frames {
		if _, err := p.log.ReadAt(header[:], logHeader+i*(frameHeader+pageSize)); err == nil {
			p.latest[binary.BigEndian.Uint32(header[:])] = i
		}
	}
	return p, nil
}

func openCounted(path string, header, unit int64) (*os.File, int64, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, max(0, info.Size()-header+unit-1) / unit, nil
}

func (p *pages) close() {
	if p.file != nil {
		p.file.Close()
	}
	if p.log != nil {
		p.log.Close()
	}
}

// each calls f with every page: of the file, then of the log. A page that the
// end of the file cuts short ends with zeros.
func (p *pages) each(f func(page []byte) error) error {
	page := make([]byte, pageSize)
	for i := range p.count {
		if err := f(p.read(page, p.file, i*pageSize)); err != nil {
			return err
		}
	}
	for i := range p.frames {
		if err := f(p.read(page, p.log, logHeader+i*(frameHeader+pageSize)+frameHeader)); err != nil {
			return err
		}
	}
	return nil
}

// read reads what can be read of a page; the rest is zero.
func (*pages) read(page []byte, f *os.File, at int64) []byte {
	n, _ := f.ReadAt(page, at)
	clear(page[n:])
	return page
}

// numbered returns a page by its number.
func (p *pages) numbered(page []byte, number uint32) bool {
	if frame, ok := p.latest[number]; ok {
		p.read(page, p.log, logHeader+frame*(frameHeader+pageSize)+frameHeader)
		return true
	}
	if number == 0 || int64(number) > p.count {
		return false
	}
	p.read(page, p.file, int64(number-1)*pageSize)
	return true
}

// tableLeaf is the type of the pages that have the rows of a table.
const tableLeaf = 0x0d

// cells calls f with what follows each cell's start on a table's leaf.
func cells(page []byte, f func(cell []byte) error) error {
	const header = 8
	count := int(binary.BigEndian.Uint16(page[3:]))
	for i := range min(count, (pageSize-header)/2) {
		at := int(binary.BigEndian.Uint16(page[header+2*i:]))
		if at < header || at >= pageSize {
			continue
		}
		if err := f(page[at:]); err != nil {
			return err
		}
	}
	return nil
}

// actions finds the rows of the table actions on a page.
func (p *pages) actions(page []byte, f func(id int64, digest store.Action)) {
	if page[0] != tableLeaf {
		return
	}
	cells(page, func(cell []byte) error {
		size, rest, ok := varint(cell)
		id, rest, ok2 := varint(rest)
		if !ok || !ok2 || size > uint64(len(rest)) {
			return nil
		}
		if columns := parseRecord(rest[:size]); len(columns) == 3 && len(columns[1].blob) == len(store.Action{}) {
			f(int64(id), store.Action(columns[1].blob))
		}
		return nil
	})
}

// outputs finds the outputs in the rows of the table packs on a page.
func (p *pages) outputs(page []byte, f func(action int64, r row) error) error {
	if page[0] != tableLeaf {
		return nil
	}
	return cells(page, func(cell []byte) error {
		c := parseRecord(p.payload(cell))
		if len(c) != 6 || c[5].blob == nil {
			return nil
		}
		var found pack
		found.read(c[2].blob, c[3].blob, c[4].blob, c[5].blob)
		for _, r := range found.rows() {
			if err := f(c[1].integer, r); err != nil {
				return err
			}
		}
		return nil
	})
}

// payload returns the record of a cell of a table's leaf, with what overflows
// onto other pages, as far as these are there.
func (p *pages) payload(cell []byte) []byte {
	const (
		maxLocal = usableSize - 35
		minLocal = (usableSize-12)*32/255 - 23
		overflow = usableSize - 4
	)
	size, rest, ok := varint(cell)
	_, rest, hasID := varint(rest)
	if !ok || !hasID || size > 1<<30 {
		return nil
	}
	if size <= maxLocal {
		return rest[:min(int(size), len(rest))]
	}
	local := minLocal + (int(size)-minLocal)%overflow
	if local > maxLocal {
		local = minLocal
	}
	if local+4 > len(rest) {
		return nil
	}
	size = min(size, uint64(p.count+p.frames)*pageSize)
	payload := append(make([]byte, 0, min(size, 1<<20)), rest[:local]...)
	next := binary.BigEndian.Uint32(rest[local:])
	page := make([]byte, pageSize)
	for len(payload) < int(size) {
		if !p.numbered(page, next) {
			break
		}
		next = binary.BigEndian.Uint32(page)
		payload = append(payload, page[4:4+min(overflow, int(size)-len(payload))]...)
	}
	return payload
}

// column is a value of a record: an integer, a blob or a text.
type column struct {
	integer int64
	blob    []byte // or text; nil for what is none
}

// parseRecord returns the columns of a record, as far as they make sense.
func parseRecord(b []byte) (columns []column) {
	size, rest, ok := varint(b)
	width := len(b) - len(rest)
	if !ok || size < uint64(width) || size > uint64(len(b)) || size > 64 {
		return nil
	}
	header, body := b[width:size], b[size:]
	for len(header) > 0 {
		var kind uint64
		if kind, header, ok = varint(header); !ok {
			return nil
		}
		var c column
		n := uint64(0)
		switch {
		case kind == 0, kind == 8:
		case kind == 9:
			c.integer = 1
		case kind <= 6:
			n = []uint64{0, 1, 2, 3, 4, 6, 8}[kind]
		case kind >= 12:
			n = (kind - 12) / 2
		default:
			return nil
		}
		if n > uint64(len(body)) {
			if kind < 12 {
				return nil
			}
			n = uint64(len(body)) // the rest is lost
		}
		value := body[:n:n]
		body = body[n:]
		switch {
		case kind >= 12:
			c.blob = value
		case kind >= 1 && kind <= 6:
			c.integer = int64(int8(value[0]))
			for _, digit := range value[1:] {
				c.integer = c.integer<<8 | int64(digit)
			}
		}
		columns = append(columns, c)
	}
	return columns
}

// varint reads SQLite's: big-endian, 7 bits a byte, the ninth byte whole.
func varint(b []byte) (v uint64, rest []byte, ok bool) {
	for i := 0; i < len(b) && i < 9; i++ {
		if i == 8 {
			return v<<8 | uint64(b[i]), b[9:], true
		}
		v = v<<7 | uint64(b[i]&0x7f)
		if b[i] < 0x80 {
			return v, b[i+1:], true
		}
	}
	return 0, nil, false
}
