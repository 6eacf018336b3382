package sqlite

// digestFilter is a set of chunks with false positives and no false negatives. It
// keeps 44 bits of a digest: 12 choose a shard, and 32 are stored there. A chunk
// takes about 6 bytes. With 10 million chunks in the set, one in 1.7 million others
// is a false positive.
type digestFilter struct{ shards [1 << 12]fingerprints }

type fingerprints struct {
	slots []uint32 // open addressing; 0 is free
	count int
}

func split(prefix uint64) (shard int, fingerprint uint32) {
	prefix >>= 64 - 8*prefixSize
	return int(prefix & (1<<12 - 1)), max(uint32(prefix>>12), 1)
}

func (s *digestFilter) has(prefix uint64) bool {
	shard, fingerprint := split(prefix)
	f := &s.shards[shard]
	return len(f.slots) > 0 && f.slots[f.slot(fingerprint)] != 0
}

// add adds a chunk, and reports whether it was new.
func (s *digestFilter) add(prefix uint64) bool {
	shard, fingerprint := split(prefix)
	f := &s.shards[shard]
	if f.count >= len(f.slots)*4/5 {
		f.grow()
	}
	i := f.slot(fingerprint)
	if f.slots[i] != 0 {
		return false
	}
	f.slots[i] = fingerprint
	f.count++
	return true
}

// slot returns the index at which the fingerprint is or would be.
func (f *fingerprints) slot(fingerprint uint32) int {
	mask := len(f.slots) - 1
	i := int(fingerprint) & mask
	for f.slots[i] != 0 && f.slots[i] != fingerprint {
		i = (i + 1) & mask
	}
	return i
}

func (f *fingerprints) grow() {
	old := f.slots
	f.slots = make([]uint32, max(8, 2*len(old)))
	for _, fingerprint := range old {
		if fingerprint != 0 {
			f.slots[f.slot(fingerprint)] = fingerprint
		}
	}
}
