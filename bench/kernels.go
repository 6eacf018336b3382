package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/bench/guests/json"
)

// kernel is a function with a chunk to run it on. The chunk and its output are each one
// CBOR item, with the same bytes on every side.
type kernel struct {
	name     string
	about    string
	guest    string // name of the modules
	chunk    []byte
	native   func(chunk []byte) ([]byte, error) // the guest's algorithm in Go
	standard func(chunk []byte) ([]byte, error) // with the standard library; nil = as native
}

// kernels returns all kernels. The sizes in their names are those of whole chunks,
// except for matmul, which has matrices of 64 KiB.
func kernels() []kernel {
	all := []kernel{{name: "noop-5B", about: "an integer is given back", guest: "noop", chunk: []byte{26, 1, 2, 3, 4}, native: nativeNoop}}
	for _, size := range []struct {
		name  string
		bytes int
	}{{"5B", 5}, {"1KiB", 1 << 10}, {"64KiB", 64 << 10}, {"1MiB", 1 << 20}} {
		all = append(all, kernel{name: "sha256-" + size.name, about: "SHA-256 of a byte string", guest: "sha256",
			chunk: json.ByteString(noise(payloadSize(size.bytes))), native: nativeSHA256, standard: standardSHA256})
	}
	return append(all,
		kernel{name: "words-64KiB", about: "how often each word comes up", guest: "words", chunk: json.ByteString(text(payloadSize(64 << 10))), native: nativeWords, standard: standardWords},
		kernel{name: "matmul-64KiB", about: "the product of two matrices of 64 x 64 doubles", guest: "matmul", chunk: json.ByteString(matrices(64)), native: nativeMatmul},
		kernel{name: "json-1KiB", about: "a Go guest decodes orders from JSON and encodes sums", guest: "json", chunk: json.ByteString(orders(payloadSize(1 << 10))), native: json.Chunk},
		kernel{name: "json-64KiB", about: "the same over more orders", guest: "json", chunk: json.ByteString(orders(payloadSize(64 << 10))), native: json.Chunk},
	)
}

// payloadSize returns the length of a byte string that takes size bytes with its head.
func payloadSize(size int) int {
	payload := size
	for payload+len(abi.AppendHead(nil, abi.MajorBytes, uint64(payload))) > size {
		payload--
	}
	return payload
}

func noise(size int) []byte {
	b := make([]byte, size)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(b) // never fails
	return b
}

// text returns a text of about 2,000 different words; some are much more frequent than
// others.
func text(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 2000)
	for i := range words {
		words[i] = make([]byte, 2+r.IntN(9))
		for j := range words[i] {
			words[i][j] = byte('a' + r.IntN(26))
		}
	}
	var b []byte
	for len(b) < size {
		x := r.Float64()
		b = append(append(b, words[int(x*x*x*float64(len(words)))]...), " ,.\n"[r.IntN(4)])
	}
	return b[:size]
}

// matrices returns two matrices of n x n small fractions, whose products are exact.
func matrices(n int) []byte {
	r := rand.New(rand.NewPCG(3, 4))
	var b []byte
	for range 2 * n * n {
		b = binary.LittleEndian.AppendUint64(b, math.Float64bits(float64(r.IntN(2000)-1000)/8))
	}
	return b
}

// orders returns orders in JSON, filled up with spaces to size bytes.
func orders(size int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	b := []byte("[")
	for id := 0; ; id++ {
		order := fmt.Sprintf(`{"id":%d,"customer":"customer %d","tags":["t%d","größe \u00e4"],"lines":[{"article":"a%d","quantity":%d,"price":%d},{"article":"b","quantity":1,"price":%d}]}`,
			id, r.IntN(40), r.IntN(5), r.IntN(1000), 1+r.IntN(9), r.IntN(10_000), r.IntN(100))
		if len(b)+1+len(order)+1 > size {
			break
		}
		if id > 0 {
			b = append(b, ',')
		}
		b = append(b, order...)
	}
	b = append(b, ']')
	return append(b, bytes.Repeat([]byte{' '}, size-len(b))...)
}

func nativeNoop(chunk []byte) ([]byte, error) {
	if h, err := abi.ReadHead(chunk); err != nil || h.Major != abi.MajorUint {
		return nil, errors.New("invalid chunk: want an unsigned integer")
	}
	return bytes.Clone(chunk), nil
}

func standardSHA256(chunk []byte) ([]byte, error) {
	b, err := json.Payload(chunk)
	if err != nil {
		return nil, err
	}
	digest := sha256.Sum256(b)
	return json.ByteString(digest[:]), nil
}

// word is a word of a text, and how often it occurs.
type word struct {
	text  []byte
	count uint64
}

// nativeWords counts words as words.c does: in a table with open addressing.
func nativeWords(chunk []byte) ([]byte, error) {
	const slots, most = 8192, 8192 * 3 / 4
	var table [slots]uint16 // index into words, plus 1; 0 = free
	words := make([]word, 0, most)
	return countWords(chunk, func(text []byte) ([]word, error) {
		hash := uint32(2166136261) // FNV-1a
		for _, c := range text {
			hash = (hash ^ uint32(c)) * 16777619
		}
		at := hash % slots
		for ; table[at] > 0; at = (at + 1) % slots {
			if w := &words[table[at]-1]; bytes.Equal(w.text, text) {
				w.count++
				return words, nil
			}
		}
		if len(words) == most {
			return nil, fmt.Errorf("too many words: want at most %d", most)
		}
		words = append(words, word{text, 1})
		table[at] = uint16(len(words))
		return words, nil
	})
}

// standardWords counts words in a map.
func standardWords(chunk []byte) ([]byte, error) {
	var words []word
	known := map[string]int{}
	return countWords(chunk, func(text []byte) ([]word, error) {
		n, ok := known[string(text)]
		if !ok {
			n = len(words)
			known[string(text)] = n
			words = append(words, word{text: text})
		}
		words[n].count++
		return words, nil
	})
}

// countWords calls add for each word, and encodes the result of the last call.
func countWords(chunk []byte, add func(text []byte) ([]word, error)) (_ []byte, err error) {
	b, err := json.Payload(chunk)
	if err != nil {
		return nil, err
	}
	var words []word
	letter := func(c byte) bool { return (c|32)-'a' < 26 }
	for i := 0; i < len(b); i++ {
		start := i
		for i < len(b) && letter(b[i]) {
			i++
		}
		if i == start {
			continue
		}
		if words, err = add(b[start:i]); err != nil {
			return nil, err
		}
	}
	output := abi.AppendHead(nil, abi.MajorArray, uint64(len(words)))
	for _, w := range words {
		output = abi.AppendHead(output, abi.MajorArray, 2)
		output = append(abi.AppendHead(output, abi.MajorText, uint64(len(w.text))), w.text...)
		output = abi.AppendHead(output, abi.MajorUint, w.count)
	}
	return output, nil
}

// nativeMatmul multiplies as matmul.c does.
func nativeMatmul(chunk []byte) ([]byte, error) {
	bytes, err := json.Payload(chunk)
	if err != nil {
		return nil, err
	}
	n := int(math.Sqrt(float64(len(bytes) / 16)))
	if 16*n*n != len(bytes) {
		return nil, fmt.Errorf("invalid length of %d bytes: want two square matrices of doubles", len(bytes))
	}
	values := make([]float64, 2*n*n)
	for i := range values {
		values[i] = math.Float64frombits(binary.LittleEndian.Uint64(bytes[8*i:]))
	}
	a, b, c := values[:n*n], values[n*n:], make([]float64, n*n)
	for i := range n {
		row := c[i*n : i*n+n]
		for k := range n {
			x, from := a[i*n+k], b[k*n:k*n+n]
			for j := range row {
				row[j] += float64(x * from[j]) // the conversion forbids fusing both
			}
		}
	}
	output := abi.AppendHead(make([]byte, 0, 8*n*n+5), abi.MajorBytes, uint64(8*n*n))
	for _, v := range c {
		output = binary.LittleEndian.AppendUint64(output, math.Float64bits(v))
	}
	return output, nil
}

// cGuests are built by make -C bench guests.
//
//go:embed guests/*.wasm
var cGuests embed.FS

// modules are a guest under both calling conventions.
type modules struct {
	abi    []byte // for the project's ABI: ours, plain wazero and wasmtime
	extism []byte
	wasi   bool // both import WASI
}

// guestOf returns the modules of a guest. Those in Go are built in dir, once.
func guestOf(ctx context.Context, guest, dir string) (m modules, err error) {
	m.wasi = guest == "json"
	if m.wasi {
		if m.abi, err = buildGuest(ctx, "jsonabi", dir); err == nil {
			m.extism, err = buildGuest(ctx, "jsonextism", dir)
		}
		return m, err
	}
	if m.abi, err = cGuests.ReadFile("guests/" + guest + ".wasm"); err == nil {
		m.extism, err = cGuests.ReadFile("guests/" + guest + "-extism.wasm")
	}
	return m, err
}

func buildGuest(ctx context.Context, name, dir string) ([]byte, error) {
	out := filepath.Join(dir, name+".wasm")
	if built, err := os.ReadFile(out); err == nil {
		return built, nil
	}
	err := goBuild(ctx, out, modulePath+"/guests/"+name, []string{"-buildmode=c-shared", "-ldflags=-s -w"}, "GOOS=wasip1", "GOARCH=wasm")
	if err != nil {
		return nil, err
	}
	return os.ReadFile(out)
}

const modulePath = "github.com/wasm-jobs/wasm-jobs/bench"

// goBuild builds a package of this module or of a module that it requires.
func goBuild(ctx context.Context, out, pkg string, flags []string, env ...string) error {
	args := append([]string{"build", "-trimpath", "-o", out}, flags...)
	build := exec.CommandContext(ctx, "go", append(args, pkg)...)
	build.Env = append(os.Environ(), append(env, "CGO_ENABLED=0", "GOFLAGS=")...)
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building %s: %w: %s; run the benchmark in the folder bench", pkg, err, lastLine(output))
	}
	return nil
}
