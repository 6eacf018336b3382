package runtime

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxText bounds one message or log line of a guest, in bytes.
const maxText = 4 << 10

// plainText makes a message of a guest safe to print. It returns at most
// maxText bytes, cut between runes. Invalid UTF-8 becomes U+FFFD; control
// characters, and others that are not graphic, are escaped as in Go.
func plainText(b []byte) string {
	cut := cutBytes(b, maxText)
	s := strings.ToValidUTF8(string(cut), "\ufffd")
	if strings.IndexFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) < 0 {
		return cutText(s, maxText)
	}
	var out []byte
	for _, r := range s {
		if unicode.IsPrint(r) {
			out = utf8.AppendRune(out, r)
		} else {
			quoted := strconv.QuoteRune(r)
			out = append(out, quoted[1:len(quoted)-1]...)
		}
	}
	return cutText(string(out), maxText)
}

// shorten returns at most limit bytes of s, with dots if something is missing.
func shorten(s string, limit int) string {
	const dots = "..."
	if len(s) <= limit {
		return strings.Clone(s)
	}
	return cutText(s, limit-len(dots)) + dots
}

func cutText(s string, limit int) string { return string(cutBytes([]byte(s), limit)) }

// cutBytes returns at most limit bytes of b, and does not split a rune.
func cutBytes(b []byte, limit int) []byte {
	if len(b) <= limit {
		return b
	}
	end := limit
	for end > limit-utf8.UTFMax && !utf8.RuneStart(b[end]) {
		end--
	}
	return b[:end]
}
