package processor

import "container/list"

// line is a bounded queue of requests, and the senders that wait for room in it, in
// order of arrival.
type line[In any] struct {
	size    int
	queued  []request[In] // a ring; nil before the first request
	first   int
	count   int
	waiting list.List // of *sender[In]; empty if there is room
}

// sender is a caller that waits for room.
type sender[In any] struct {
	request request[In]
	place   *list.Element // nil once it was served
	done    chan error    // has room for one; nil says that the request is queued
}

func (l *line[In]) len() int { return l.count }

func (l *line[In]) hasRoom() bool { return l.count < l.size }

// push queues a request. There must be room for it.
func (l *line[In]) push(r request[In]) {
	if l.queued == nil {
		l.queued = make([]request[In], l.size)
	}
	l.queued[(l.first+l.count)%l.size] = r
	l.count++
}

// pop takes the first request, and gives its room to the first sender that waits.
func (l *line[In]) pop() (r request[In], ok bool) {
	if l.count == 0 {
		return r, false
	}
	r, l.queued[l.first] = l.queued[l.first], r
	l.first = (l.first + 1) % l.size
	l.count--
	if w := l.popWaiter(); w != nil {
		l.push(w.request)
		w.done <- nil
	}
	return r, true
}

func (l *line[In]) wait(r request[In]) *sender[In] {
	w := &sender[In]{request: r, done: make(chan error, 1)}
	w.place = l.waiting.PushBack(w)
	return w
}

// popWaiter takes the first sender that waits; nil if there is none.
func (l *line[In]) popWaiter() *sender[In] {
	first := l.waiting.Front()
	if first == nil {
		return nil
	}
	w := l.waiting.Remove(first).(*sender[In])
	w.place = nil
	return w
}

// leave ends a wait. It returns false if the wait had ended already.
func (l *line[In]) leave(w *sender[In]) bool {
	if w.place == nil {
		return false
	}
	l.waiting.Remove(w.place)
	w.place = nil
	return true
}
