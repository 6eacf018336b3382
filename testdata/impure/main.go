//go:build wasip1

// Impure does what makes programs depend on more than their input: it iterates
// over a map, reads the clock, draws random numbers, starts goroutines and counts
// its calls. On a hermetic host its output depends only on its chunk.
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o impure.wasm ./testdata/impure
package main

import (
	crypto "crypto/rand"
	"fmt"
	"math/rand"
	"os"
	"time"
	"unsafe"
)

func main() {}

var (
	calls         int
	started       = time.Now()
	input, output []byte
)

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return address(input)
}

func address(b []byte) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(b)))) }

//go:wasmexport exec
func exec(_, size uint32) uint64 {
	calls++
	text := fmt.Sprintf("call %d of %x, started %d\n", calls, input[:size], started.UnixNano())
	words := map[string]int{}
	for n := range 100 {
		words[fmt.Sprint("word", n)] = n
	}
	for word := range words {
		text += word + " "
	}
	answers := make(chan int)
	for n := range 8 {
		go func() {
			time.Sleep(time.Duration(rand.Intn(100)) * time.Millisecond)
			answers <- n
		}()
	}
	for range 8 {
		text += fmt.Sprint(<-answers, " ")
	}
	var secret [16]byte
	crypto.Read(secret[:])
	host, _ := os.Hostname()
	text += fmt.Sprintf("\n%s %d %x %v %q %v\n", time.Now(), rand.Int63(), secret, os.Environ(), host, os.Args)
	output = append([]byte{0x5a, byte(len(text) >> 24), byte(len(text) >> 16), byte(len(text) >> 8), byte(len(text))}, text...)
	return uint64(address(output))<<32 | uint64(len(output))
}
