package main

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
)

// writeItem writes one well-formed CBOR item: as it is, or as a line.
func writeItem(w io.Writer, item []byte, format string) error {
	switch format {
	case "cbor":
		_, err := w.Write(item)
		return err
	case "diag":
		text, err := diagnose(item)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(w, text)
		return err
	}
	b := bufio.NewWriter(w)
	t := transcoder{out: b, rest: item}
	t.item()
	b.WriteByte('\n')
	return b.Flush()
}

func writeOutputLines(ctx context.Context, w io.Writer, result *host.Result, format string) error {
	var entry []byte
	for o, err := range result.Outputs(ctx) {
		if err != nil {
			return err
		}
		entry = abi.AppendOutput(entry[:0], o.ID, o.Output)
		if err := writeItem(w, entry, format); err != nil {
			return err
		}
	}
	return nil
}

// diagnose returns an item in diagnostic notation (RFC 8949, section 8).
func diagnose(item []byte) (string, error) {
	mode, err := cbor.DiagOptions{
		MaxNestedLevels: 1024, MaxArrayElements: math.MaxInt32, MaxMapPairs: math.MaxInt32,
	}.DiagMode()
	if err != nil {
		return "", err
	}
	return mode.Diagnose(item)
}

// transcoder writes a well-formed CBOR item as JSON, in the way of RFC 8949,
// section 6.1: byte strings become base64url without padding, what JSON has no
// word for becomes null, tags are left out, and keys that are no texts become
// texts of their JSON. Numbers and the order of keys stay as they are.
type transcoder struct {
	out  *bufio.Writer
	rest []byte
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
		t.item()
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
	if t.rest[0]>>5 == abi.MajorText {
		t.item()
	} else {
		size, _ := abi.ItemSize(t.rest)
		var key strings.Builder
		b := bufio.NewWriter(&key)
		(&transcoder{out: b, rest: t.rest[:size]}).item()
		b.Flush()
		t.quoted(strings.Trim(key.String(), `"`))
		t.rest = t.rest[size:]
	}
	t.out.WriteByte(':')
	t.item()
}

func (t *transcoder) quoted(s string) {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string can always be encoded
	t.out.WriteString(strings.TrimSuffix(b.String(), "\n"))
}
