package wasi

// errno is what all functions but proc_exit return (witx: errno).
type errno uint16

const (
	success        errno = 0
	errBadf        errno = 8 // the descriptor is not open, or not for this direction
	errExist       errno = 20
	errFault       errno = 21 // an address outside memory
	errInval       errno = 28
	errIO          errno = 29
	errIsdir       errno = 31
	errLoop        errno = 32
	errMfile       errno = 33
	errNametoolong errno = 37
	errNoent       errno = 44
	errNotdir      errno = 54
	errNotsock     errno = 57
	errNotsup      errno = 58
	errRofs        errno = 69 // nothing can be written
	errSpipe       errno = 70 // a stream has no positions
	errNotcap      errno = 76 // the descriptor lacks the right
)
