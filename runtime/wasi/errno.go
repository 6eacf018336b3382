package wasi

// errno is the result of all functions except proc_exit (witx: errno).
type errno uint16

const (
	success        errno = 0
	errBadf        errno = 8 // the descriptor is not open, or not in this direction
	errBusy        errno = 10
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
	errNotempty    errno = 55
	errNotsock     errno = 57
	errNotsup      errno = 58
	errRofs        errno = 69 // nothing can be written
	errSpipe       errno = 70 // a stream has no position
	errNotcap      errno = 76 // the descriptor does not have the right
)
