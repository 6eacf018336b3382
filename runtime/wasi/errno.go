package wasi

// errno is what all functions but proc_exit return (witx: errno).
type errno uint16

const (
	success    errno = 0
	errBadf    errno = 8  // the descriptor is not open, or not for this direction
	errFault   errno = 21 // an address outside memory
	errInval   errno = 28
	errIO      errno = 29
	errNotdir  errno = 54
	errNotsock errno = 57
	errNotsup  errno = 58
	errSpipe   errno = 70 // a stream has no positions
	errNotcap  errno = 76 // the descriptor lacks the right
)
