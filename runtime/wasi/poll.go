package wasi

import (
	"time"

	"github.com/tetratelabs/wazero/api"
)

// maxSubscriptions limits the subscriptions of one poll_oneoff; more are EINVAL. A
// guest has few descriptors to wait for, and rarely needs more than one clock.
const maxSubscriptions = 1024

// Sizes of the records of poll_oneoff.
const (
	subscriptionSize = 48
	eventSize        = 32
)

// Kinds of subscription and event (witx: eventtype).
const (
	eventClock   = 0
	eventFdRead  = 1
	eventFdWrite = 2
)

const (
	clockAbsolute = 1 // witx: subclockflags subscription_clock_abstime
	hangup        = 1 // witx: eventrwflags fd_readwrite_hangup
)

// subscription is a subscription that was read, and the event for it.
type subscription struct {
	userdata uint64
	kind     uint8
	errno    errno
	flags    uint16        // of the event
	bytes    uint64        // of the event
	due      time.Duration // time passed at which it is due
}

// pollOneoff writes the events that are due. Descriptors are ready at once, and an
// error in one subscription is an event at once too. If there are only clocks,
// the time advances to the first one that is due, without waiting.
func pollOneoff(s *State, m api.Memory, p []uint64) errno {
	count := uint32(p[2])
	if count == 0 || count > maxSubscriptions {
		return errInval
	}
	in, e1 := view(m, p[0], uint64(count)*subscriptionSize)
	out, e2 := view(m, p[1], uint64(count)*eventSize)
	n, e3 := view(m, p[3], 4)
	if e1 != success || e2 != success || e3 != success {
		return errFault
	}
	s.charge(len(in))
	if e := s.readSubscriptions(in); e != success {
		return e
	}
	s.clock.passed = max(s.clock.passed, s.firstDue())
	s.charge(len(out))
	le.PutUint32(n, s.writeEvents(out))
	return success
}

// readSubscriptions copies all subscriptions, because events may overwrite them.
func (s *State) readSubscriptions(in []byte) errno {
	s.subscriptions = s.subscriptions[:0]
	for ; len(in) > 0; in = in[subscriptionSize:] {
		sub := subscription{userdata: le.Uint64(in), kind: in[8]}
		switch sub.kind {
		case eventClock:
			s.subscribeClock(&sub, in[16:])
		case eventFdRead, eventFdWrite:
			s.subscribeFile(&sub, uint64(le.Uint32(in[16:])))
		default:
			return errInval
		}
		s.subscriptions = append(s.subscriptions, sub)
	}
	return success
}

// subscribeClock reads a subscription_clock: id u32, timeout u64 at 8,
// precision u64 at 16, flags u16 at 24.
func (s *State) subscribeClock(sub *subscription, b []byte) {
	id, timeout, flags := le.Uint32(b), le.Uint64(b[8:]), le.Uint16(b[24:])
	switch {
	case id > clockLast || flags > clockAbsolute:
		sub.errno = errInval
	case flags == clockAbsolute:
		sub.due = s.clock.at(id, timeout)
	default:
		sub.due = s.clock.after(timeout)
	}
}

// subscribeFile reports how many bytes can be read or written at once, and
// whether the input is at its end.
func (s *State) subscribeFile(sub *subscription, fd uint64) {
	f := s.file(fd)
	reads := f != nil && (f.stream == stdin || f.stream == regular)
	switch {
	case f == nil, f.stream == directory, reads != (sub.kind == eventFdRead):
		sub.errno = errBadf
	case f.stream == regular:
		sub.bytes = uint64(len(f.node.rest(f.offset)))
	case sub.kind == eventFdWrite:
		sub.bytes = piece
	default:
		sub.bytes = uint64(len(s.call.Stdin) - s.read)
		if sub.bytes == 0 {
			sub.flags = hangup
		}
	}
}

func (s *State) firstDue() time.Duration {
	first := s.clock.limit
	for _, sub := range s.subscriptions {
		first = min(first, sub.due)
	}
	return first
}

// writeEvents writes an event for each due subscription, in their order: userdata
// u64, errno u16 at 8, kind u8 at 10, bytes u64 at 16, flags u16 at 24. It returns
// the number of events.
func (s *State) writeEvents(out []byte) (n uint32) {
	for _, sub := range s.subscriptions {
		if sub.due > s.clock.passed {
			continue
		}
		b := out[n*eventSize:][:eventSize]
		clear(b)
		le.PutUint64(b, sub.userdata)
		le.PutUint16(b[8:], uint16(sub.errno))
		b[10] = sub.kind
		le.PutUint64(b[16:], sub.bytes)
		le.PutUint16(b[24:], sub.flags)
		n++
	}
	return n
}
