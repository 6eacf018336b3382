// Package json is the kernel in Go: it decodes orders, sums them up for each
// customer, and encodes the sums. The native side and the guests share it.
package json

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// Order is an element of the input, a JSON array.
type Order struct {
	ID       int      `json:"id"`
	Customer string   `json:"customer"`
	Tags     []string `json:"tags"`
	Lines    []Line   `json:"lines"`
}

// Line is one article of an order. Prices are in cents.
type Line struct {
	Article  string `json:"article"`
	Quantity int    `json:"quantity"`
	Price    int    `json:"price"`
}

// Sum is an element of the output, a JSON array ordered by customer.
type Sum struct {
	Customer string   `json:"customer"`
	Orders   []int    `json:"orders"`
	Total    int      `json:"total"`
	Tags     []string `json:"tags"`
}

// Sums is the kernel: it decodes orders and returns the encoded sums.
func Sums(input []byte) ([]byte, error) {
	var orders []Order
	if err := json.Unmarshal(input, &orders); err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	by := map[string]*Sum{}
	for _, o := range orders {
		s := by[o.Customer]
		if s == nil {
			s = &Sum{Customer: o.Customer}
			by[o.Customer] = s
		}
		s.add(o)
	}
	sums := make([]*Sum, 0, len(by))
	for _, s := range by {
		sums = append(sums, s)
	}
	slices.SortFunc(sums, func(a, b *Sum) int { return strings.Compare(a.Customer, b.Customer) })
	return json.Marshal(sums)
}

func (s *Sum) add(o Order) {
	s.Orders = append(s.Orders, o.ID)
	for _, l := range o.Lines {
		s.Total += l.Quantity * l.Price
	}
	for _, tag := range o.Tags {
		if !slices.Contains(s.Tags, tag) {
			s.Tags = append(s.Tags, tag)
		}
	}
}

// Chunk is the kernel with chunk and output each as one CBOR byte string.
func Chunk(chunk []byte) ([]byte, error) {
	input, err := Payload(chunk)
	if err != nil {
		return nil, err
	}
	sums, err := Sums(input)
	if err != nil {
		return nil, err
	}
	return ByteString(sums), nil
}

// Payload returns the content of a CBOR byte string of definite length.
func Payload(item []byte) ([]byte, error) {
	h, err := abi.ReadHead(item)
	if err != nil {
		return nil, err
	}
	if h.Major != abi.MajorBytes || h.Indefinite || uint64(len(item)-h.Size) != h.Arg {
		return nil, errors.New("invalid chunk: want one byte string of definite length")
	}
	return item[h.Size:], nil
}

// ByteString is the inverse of Payload.
func ByteString(payload []byte) []byte {
	item := make([]byte, 0, len(payload)+5)
	return append(abi.AppendHead(item, abi.MajorBytes, uint64(len(payload))), payload...)
}

// Warm makes the JSON library prepare for the types in use, which it does once per
// process. A guest calls it before its first chunk.
func Warm() {
	warm := `[{"id":1,"customer":"a","tags":["b"],"lines":[{"article":"c","quantity":1,"price":2}]}]`
	if _, err := Sums([]byte(warm)); err != nil {
		panic(err)
	}
}
