package runtime

import (
	"container/list"
	"slices"
	"sync"
)

// maxIdle is the minimum limit of idle instances over all pools of a runtime;
// see idlers. Each instance has a linear memory, and without a limit, a program
// with very many modules would keep one of each forever.
const maxIdle = 64

// idlers are the idle instances of all pools. Their number is limited to the
// maximum number of instances that were borrowed at once, so that no job has to
// create instances again because of the limit, or to maxIdle if that is more.
// The least recently used one is closed first. It is safe for concurrent use;
// its zero value works.
type idlers struct {
	mu       sync.Mutex
	order    list.List // of idler, most recently used last
	borrowed int
	most     int // maximum of borrowed
}

type idler struct {
	pool     *Pool
	instance *instance
}

// borrow counts a borrowed instance, or a returned one if n is -1.
func (x *idlers) borrow(n int) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.borrowed += n
	x.most = max(x.most, x.borrowed)
}

// put keeps an instance of a pool until it is needed. If there is no room, it
// closes an instance before it returns, so that no pool is closed meanwhile.
func (x *idlers) put(p *Pool, i *instance) {
	x.mu.Lock()
	defer x.mu.Unlock()
	p.idle = append(p.idle, x.order.PushBack(idler{p, i}))
	for x.order.Len() > max(maxIdle, x.most) {
		x.drop(x.order.Front())
	}
}

// take returns the most recently used idle instance of a pool, or nil.
func (x *idlers) take(p *Pool) *instance {
	x.mu.Lock()
	defer x.mu.Unlock()
	last := len(p.idle) - 1
	if last < 0 {
		return nil
	}
	e := p.idle[last]
	p.idle = p.idle[:last]
	return x.order.Remove(e).(idler).instance
}

// empty closes the idle instances of a pool.
func (x *idlers) empty(p *Pool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for len(p.idle) > 0 {
		x.drop(p.idle[0])
	}
}

// drop closes an idle instance. mu is held.
func (x *idlers) drop(e *list.Element) {
	i := x.order.Remove(e).(idler)
	at := slices.Index(i.pool.idle, e)
	i.pool.idle = slices.Delete(i.pool.idle, at, at+1)
	i.pool.drop(i.instance)
}
