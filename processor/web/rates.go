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
	used := r.used[client]
	if used.Before(now) {
		used = now
	}
	if used = used.Add(r.each); used.Sub(now) > r.burst {
		return false
	}
	if len(r.used) >= maxClients {
		r.forget(now)
	}
	r.used[client] = used
	return true
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
