package sources_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func decodeUTF16(s string) (string, error) {
	text := sources.UTF16(bufio.NewReader(iotest.HalfReader(strings.NewReader(s))))
	if text == nil {
		return s, nil
	}
	b, err := io.ReadAll(text)
	return string(b), err
}

// Any text in UTF-16, in both byte orders, is the same text.
func FuzzUTF16(f *testing.F) {
	f.Add("")
	f.Add("a\r\n\u00fc\U0001f600\ufeff")
	f.Fuzz(func(t *testing.T, s string) {
		if !utf8.ValidString(s) {
			return
		}
		for _, order := range []binary.AppendByteOrder{binary.LittleEndian, binary.BigEndian} {
			b := order.AppendUint16(nil, 0xfeff)
			for _, unit := range utf16.Encode([]rune(s)) {
				b = order.AppendUint16(b, unit)
			}
			if got, err := decodeUTF16(string(b)); got != s || err != nil {
				t.Fatalf("%q is %q, error %v", s, got, err)
			}
		}
	})
}

func TestUTF16Defects(t *testing.T) {
	for _, s := range []string{"\xff\xfea", "\xfe\xff\xd8\x00", "\xfe\xff\xdc\x00\x00a", "\xfe\xff\xd8\x00\x00a"} {
		if _, err := decodeUTF16(s); !errors.Is(err, sources.ErrMalformed) {
			t.Errorf("%q: error %v", s, err)
		}
	}
	if got, err := decodeUTF16("\xef\xbb\xbfa"); got != "\xef\xbb\xbfa" || err != nil {
		t.Errorf("UTF-8: %q, error %v", got, err)
	}
}
