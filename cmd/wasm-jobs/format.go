package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"sync"

	"github.com/fxamacker/cbor/v2"
	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// writeItem writes one well-formed CBOR item: as it is, or as a line.
func writeItem(w *bufio.Writer, item []byte, format string) error {
	switch format {
	case "cbor":
		w.Write(item)
	case "diag":
		text, err := diagnostic().Diagnose(item)
		if err != nil {
			return fmt.Errorf("no diagnostic notation: %w; -f cbor writes the bytes as they are", err)
		}
		w.WriteString(text)
		w.WriteByte('\n')
	default:
		t := transcoder{out: w, rest: item}
		t.item()
		w.WriteByte('\n')
	}
	_, err := w.Write(nil) // the error of any of them
	return err
}

func writeOutputLines(ctx context.Context, w *bufio.Writer, result *host.Result, format string) error {
	var entry []byte
	for o, err := range result.Outputs(ctx) {
		if err != nil {
			return err
		}
		entry = abi.AppendOutput(entry[:0], o.ID, o.Output)
		if err := writeItem(w, entry, format); err != nil {
			return fmt.Errorf("chunk %v: %w", o.ID, err)
		}
	}
	return nil
}

// diagnostic is the notation of RFC 8949, section 8.
var diagnostic = sync.OnceValue(func() cbor.DiagMode {
	mode, err := cbor.DiagOptions{
		MaxNestedLevels: 1024, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32,
	}.DiagMode()
	if err != nil {
		panic(err) // the options are constants
	}
	return mode
})

// transcoder writes a well-formed CBOR item as JSON, in the way of RFC 8949,
// section 6.1: byte strings become base64url without padding, what JSON has no
// word for becomes null, tags are left out, and keys that are no texts become
// texts of their JSON. Numbers, also bignums of up to maxBignum bytes, and the
// order of keys stay as they are, and a float has a point or an exponent.
//
// A text of JSON within a text of JSON doubles its backslashes, so that keys in
// keys would make gigabytes of a few bytes: an array or map that is a key
// within a key is base64url of its CBOR.
type transcoder struct {
	out   *bufio.Writer
	rest  []byte
	inKey bool
}

func (t *transcoder) head() abi.Head {
	h, err := abi.ReadHead(t.rest)
	if err != nil {
		panic(fmt.Sprintf("transcoding an item that was checked: %v", err))
	}
	t.rest = t.rest[h.Size:]
	return h
}

func (t *transcoder) item() {
	first := t.rest
	h := t.head()
	switch h.Major {
	case abi.MajorUint:
		t.out.WriteString(strconv.FormatUint(h.Arg, 10))
	case abi.MajorNegint:
		t.negative(h.Arg)
	case abi.MajorBytes:
		t.quoted(base64.RawURLEncoding.EncodeToString(t.bytes(h)))
	case abi.MajorText:
		t.quoted(string(t.bytes(h)))
	case abi.MajorArray:
		t.container(h, '[', ']', t.item)
	case abi.MajorMap:
		t.container(h, '{', '}', t.pair)
	case abi.MajorTag:
		if !t.bignum(h.Arg) {
			t.item()
		}
	default:
		t.simple(h, first[0])
	}
}

// negative writes -1 - n, which may be beyond 64 bits.
func (t *transcoder) negative(n uint64) {
	if n == math.MaxUint64 {
		t.out.WriteString("-18446744073709551616")
		return
	}
	t.out.WriteString("-" + strconv.FormatUint(n+1, 10))
}

// maxBignum is how many bytes an integer may have that is written in digits:
// making them takes more than linear time.
const maxBignum = 1024

// bignum writes the integer that a bignum is (RFC 8949, section 3.4.3). It
// returns false where what stands in the tag is none, or too long.
func (t *transcoder) bignum(tag uint64) bool {
	if tag != 2 && tag != 3 || t.rest[0]>>5 != abi.MajorBytes {
		return false
	}
	size, _ := abi.ItemSize(t.rest)
	inner := transcoder{rest: t.rest[:size]}
	b := inner.bytes(inner.head())
	if len(b) > maxBignum {
		return false
	}
	t.rest = t.rest[size:]
	n := new(big.Int).SetBytes(b)
	if tag == 3 {
		n.Not(n) // -1 - n
	}
	t.out.WriteString(n.String())
	return true
}

func (t *transcoder) simple(h abi.Head, first byte) {
	switch first & 0x1f {
	case 20:
		t.out.WriteString("false")
	case 21:
		t.out.WriteString("true")
	case 25:
		t.float(float64(float16.Frombits(uint16(h.Arg)).Float32()))
	case 26:
		t.float(float64(math.Float32frombits(uint32(h.Arg))))
	case 27:
		t.float(math.Float64frombits(h.Arg))
	default:
		t.out.WriteString("null")
	}
}

func (t *transcoder) float(f float64) {
	b, err := json.Marshal(f)
	if err != nil { // infinities and NaN
		b = []byte("null")
	} else if !bytes.ContainsAny(b, ".e") { // a float stays one where it is read again
		b = append(b, ".0"...)
	}
	t.out.Write(b)
}

// bytes returns the contents of a string, joined where it comes in parts.
func (t *transcoder) bytes(h abi.Head) []byte {
	if !h.Indefinite {
		b := t.rest[:h.Arg]
		t.rest = t.rest[h.Arg:]
		return b
	}
	var joined []byte
	for !t.atBreak() {
		joined = append(joined, t.bytes(t.head())...)
	}
	return joined
}

// atBreak passes a break, where one is next.
func (t *transcoder) atBreak() bool {
	if t.rest[0] != 0xff {
		return false
	}
	t.rest = t.rest[1:]
	return true
}

func (t *transcoder) container(h abi.Head, open, end byte, element func()) {
	t.out.WriteByte(open)
	for n := uint64(0); h.Indefinite && !t.atBreak() || !h.Indefinite && n < h.Arg; n++ {
		if n > 0 {
			t.out.WriteByte(',')
		}
		element()
	}
	t.out.WriteByte(end)
}

func (t *transcoder) pair() {
	for t.rest[0]>>5 == abi.MajorTag {
		t.head()
	}
	if t.rest[0]>>5 == abi.MajorText {
		t.item()
	} else {
		t.quoted(t.key())
	}
	t.out.WriteByte(':')
	t.item()
}

// key passes a key that is no text, and returns its text.
func (t *transcoder) key() string {
	size, _ := abi.ItemSize(t.rest)
	item := t.rest[:size]
	t.rest = t.rest[size:]
	if major := item[0] >> 5; t.inKey && (major == abi.MajorArray || major == abi.MajorMap) {
		return base64.RawURLEncoding.EncodeToString(item)
	}
	var key strings.Builder
	b := bufio.NewWriter(&key)
	(&transcoder{out: b, rest: item, inKey: true}).item()
	b.Flush()
	return strings.Trim(key.String(), `"`) // of a byte string
}

func (t *transcoder) quoted(s string) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	t.out.WriteString(strings.TrimSuffix(b.String(), "\n"))
}
