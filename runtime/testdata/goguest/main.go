//go:build wasip1

// Goguest has parts of Go's standard library as guests have them, for TestCost: a
// chunk is [number, rounds], and the output a checksum. TestCost builds it.
package main

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"fmt"
	"go/format"
	"hash/crc32"
	"io"
	"regexp"
	"sort"
	"strings"
	"unsafe"
)

func main() {}

var (
	input  []byte
	output [5]byte
)

//go:wasmexport alloc
func alloc(size uint32) uint32 {
	input = make([]byte, size)
	return uint32(uintptr(unsafe.Pointer(unsafe.SliceData(input))))
}

//go:wasmexport exec
func exec(_, size uint32) uint64 {
	number, rest := readUint(input[1:size])
	rounds, _ := readUint(rest)
	sum := uint32(0)
	for range rounds {
		sum = crc32.Update(sum, crc32.IEEETable, parts[number]())
	}
	output = [5]byte{0x1a, byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}
	return uint64(uintptr(unsafe.Pointer(&output)))<<32 | uint64(len(output))
}

// readUint reads an unsigned integer of CBOR.
func readUint(b []byte) (n uint64, rest []byte) {
	n = uint64(b[0] & 31)
	if n < 24 {
		return n, b[1:]
	}
	size := 1 << (n - 24)
	n = 0
	for _, c := range b[1 : 1+size] {
		n = n<<8 | uint64(c)
	}
	return n, b[1+size:]
}

var parts = []func() []byte{decodeJSON, deflate, match, formatGo, sortWords}

var (
	document   = makeDocument()
	source     = makeSource()
	expression = regexp.MustCompile(`(\w+)@(\w+)\.(com|org|net)|\b\d{3}-\d{4}\b`)
)

func makeDocument() []byte {
	var b bytes.Buffer
	b.WriteByte('[')
	for i := range 200 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"id":%d,"name":"user %d","mail":"user%d@example%d.org","score":%d.25,"tags":["a%d","b"],"phone":"555-%04d"}`,
			i, i*7919%1000, i, i%17, i*31, i%5, i*37%10000)
	}
	b.WriteByte(']')
	return b.Bytes()
}

func makeSource() []byte {
	var b strings.Builder
	b.WriteString("package x\n")
	for i := range 40 {
		fmt.Fprintf(&b, "func f%d(a,b int)(c int){ if a>b {c=a-b*%d}else{for i:=0;i<b;i++{c+=i}}\nreturn}\n", i, i)
	}
	return []byte(b.String())
}

func decodeJSON() []byte {
	var v any
	if err := json.Unmarshal(document, &v); err != nil {
		panic(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}

func deflate() []byte {
	var b bytes.Buffer
	w, _ := flate.NewWriter(&b, 6)
	w.Write(document)
	w.Close()
	if plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(b.Bytes()))); err != nil || !bytes.Equal(plain, document) {
		panic("flate")
	}
	return b.Bytes()
}

func match() []byte {
	return bytes.Join(expression.FindAll(document, -1), []byte(" "))
}

func formatGo() []byte {
	b, err := format.Source(source)
	if err != nil {
		panic(err)
	}
	return b
}

func sortWords() []byte {
	counts := map[string]int{}
	for _, w := range strings.FieldsFunc(string(document), func(r rune) bool { return strings.ContainsRune(`[]{}":,. `, r) }) {
		counts[w]++
	}
	words := make([]string, 0, len(counts))
	for w := range counts {
		words = append(words, w)
	}
	sort.Slice(words, func(i, j int) bool {
		a, b := words[i], words[j]
		return counts[a] > counts[b] || counts[a] == counts[b] && a < b
	})
	return []byte(strings.Join(words, " "))
}
