package web

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// maxClients is the limit of clients that are counted. Above it, clients with a full
// burst left are forgotten, and if there are none, all are.
const maxClients = 1 << 16

// rates bounds how often each client may send. It is the generic cell rate algorithm
// (ITU-T I.371): for each client, the time at which its requests will be used up.
type rates struct {
	each  time.Duration // between two requests
	burst time.Duration

	mu   sync.Mutex
	used map[netip.Addr]time.Time
}

func newRates(rate float64) *rates {
	each := time.Duration(float64(time.Second) / rate)
	return &rates{each: each, burst: max(time.Second, each), used: map[netip.Addr]time.Time{}}
}

// allow counts a request of a client. It returns false if the client has sent too many.
func (r *rates) allow(client netip.Addr, now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := r.next(client, now)
	if used.Sub(now) > r.burst {
		return false
	}
	r.set(client, used, now)
	return true
}

// reserve counts a request of a client, and returns how long it has to wait so that the
// client has not sent too many.
func (r *rates) reserve(client netip.Addr, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	used := r.next(client, now)
	r.set(client, used, now)
	return max(0, used.Sub(now)-r.burst)
}

// next returns when the requests of a client will be used up after one more. r.mu is
// held, as by set.
func (r *rates) next(client netip.Addr, now time.Time) time.Time {
	used := r.used[client]
	if used.Before(now) {
		used = now
	}
	return used.Add(r.each)
}

func (r *rates) set(client netip.Addr, used, now time.Time) {
	if len(r.used) >= maxClients {
		r.forget(now)
	}
	r.used[client] = used
}

func (r *rates) forget(now time.Time) {
	for client, used := range r.used {
		if used.Before(now) {
			delete(r.used, client)
		}
	}
	if len(r.used) >= maxClients {
		clear(r.used)
	}
}

// client returns the address that a request comes from: for IPv6, the network of 64
// bits; for a socket without addresses, the zero address.
func client(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Addr{}
	}
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		prefix, _ := addr.Prefix(64) // 64 fits
		return prefix.Addr()
	}
	return addr
}
