// Package effects makes the effects of flows: HTTP requests and commands. An effect
// is made at least once; every attempt of a step has the same key.
package effects

import (
	"context"
	"errors"
	"sync/atomic"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/flow"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
	"github.com/wasm-jobs/wasm-jobs/host/worker"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// pool lends instances that call one function, and counts them.
type pool struct {
	call           func(ctx context.Context, key [32]byte, data []byte) ([]byte, error)
	close          func() // nil = nothing is to be closed
	opened, closed atomic.Uint64
}

// Borrow implements [flow.Pool].
func (p *pool) Borrow(runtime.Log) worker.Instance {
	p.opened.Add(1)
	return &instance{p}
}

// Stats implements [flow.Pool].
func (p *pool) Stats() runtime.Stats {
	return runtime.Stats{Created: p.opened.Load(), Closed: p.closed.Load()}
}

// Close implements [flow.Pool].
func (p *pool) Close() error {
	if p.close != nil {
		p.close()
	}
	return nil
}

type instance struct{ pool *pool }

// Release implements [worker.Instance].
func (i *instance) Release() { i.pool.closed.Add(1) }

// Call implements [worker.Instance].
func (i *instance) Call(ctx context.Context, _ string, input, dst []byte) ([]byte, uint64, error) {
	key, data := flow.Effect(input)
	out, err := i.pool.call(ctx, key, data)
	if err != nil {
		if _, slow := errors.AsType[*flow.SlowDown](err); ctx.Err() != nil && !slow {
			err = ctx.Err()
		}
		return dst, 0, err
	}
	return append(dst, out...), 0, nil
}

// asked is a request, as read from the data.
type asked struct {
	method, url string
	headers     map[string]string
	body        []byte
}

// parseRequest reads {"method", "url", "headers", "body"}.
func parseRequest(data []byte) (a asked, err error) {
	a.method = "GET"
	err = eachPair(data, func(key string, value []byte) error {
		switch key {
		case "method":
			return text(value, "method", &a.method)
		case "url":
			return text(value, "url", &a.url)
		case "headers":
			a.headers = map[string]string{}
			return eachPair(value, func(name string, value []byte) error {
				var v string
				err := text(value, "header "+name, &v)
				a.headers[name] = v
				return err
			})
		case "body":
			return body(value, &a.body)
		}
		return abi.Failf(flow.ClassEffect, "unknown key %.100q in the data: want method, url, headers or body", key)
	})
	if err == nil && a.url == "" {
		err = abi.Failf(flow.ClassEffect, "missing url in the data")
	}
	return a, err
}

func text(item []byte, what string, to *string) error {
	contents, major, ok := notation.Contents(item)
	if !ok || major != abi.MajorText {
		return abi.Failf(flow.ClassEffect, "invalid %s: want a text", what)
	}
	*to = string(contents)
	return nil
}

// body reads a byte or text string; null means no body.
func body(item []byte, to *[]byte) error {
	if len(item) == 1 && item[0] == abi.Null[0] {
		return nil
	}
	contents, _, ok := notation.Contents(item)
	if !ok {
		return abi.Failf(flow.ClassEffect, "invalid body: want a byte or text string")
	}
	*to = contents
	return nil
}

// eachPair calls f for each pair of a map with text keys.
func eachPair(item []byte, f func(key string, value []byte) error) error {
	h, err := abi.ReadHead(item)
	if err != nil || h.Major != abi.MajorMap {
		return abi.Failf(flow.ClassEffect, "invalid data: want a map")
	}
	rest := item[h.Size:]
	for n := uint64(0); h.Indefinite && rest[0] != 0xff || !h.Indefinite && n < h.Arg; n++ {
		var pair [2][]byte
		for i := range pair {
			size, err := abi.ItemSize(rest)
			if err != nil {
				return abi.Failf(flow.ClassEffect, "malformed data: %v", err)
			}
			pair[i], rest = rest[:size], rest[size:]
		}
		var key string
		if err := text(pair[0], "key", &key); err != nil {
			return err
		}
		if err := f(key, pair[1]); err != nil {
			return err
		}
	}
	return nil
}
