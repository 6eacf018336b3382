package linear

import "golang.org/x/sys/cpu"

// zero makes all bytes of b 0. It reads all of them and writes only the blocks that are
// not 0. After a short call most of a small memory is still 0, and lines of a cache that
// were only read need not be written to the next cache (BenchmarkZero).
func zero(b []byte) {
	whole := len(b) &^ (zeroBlock - 1)
	if whole == 0 || !cpu.X86.HasAVX2 {
		clear(b)
		return
	}
	zeroBlocks(&b[0], whole)
	clear(b[whole:])
}

// zeroBlock is the size in bytes of what zeroBlocks writes at once.
const zeroBlock = 512

// zeroBlocks makes n bytes from p on 0. n is a positive multiple of zeroBlock. It needs
// AVX2.
//
//go:noescape
func zeroBlocks(p *byte, n int)
