package abi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// maxFileName is the maximum length in bytes of a file name made from an id,
// without an extension: file systems allow 255 bytes.
const maxFileName = 200

// FileName returns a name for a file about the chunk, without an extension. The
// name has no separators, does not begin with a dot, is not the name of a
// device, and differs from the names of all other ids, even on a file system
// that ignores case.
//
// The name of an integer is its digits. In the name of a text, small letters,
// digits, -, _ and dots stand for themselves, and any other byte is % and two
// hexadecimal digits. The first byte is escaped as well if it is a dot, or if
// the text has only digits or is the name of a device. The name of the empty
// text is a single %. If the name would be longer than 200 bytes, its end is
// replaced by %~ and the SHA-256 of the text.
func (id ID) FileName() string {
	if !id.isText {
		return id.String()
	}
	name := escapeFileName(id.text)
	if len(name) > maxFileName {
		sum := sha256.Sum256([]byte(id.text))
		name = name[:maxFileName-2-2*len(sum)] + "%~" + hex.EncodeToString(sum[:])
	}
	return name
}

func escapeFileName(text string) string {
	if text == "" {
		return "%"
	}
	var name strings.Builder
	escapeFirst := isDigits(text) || isDevice(text)
	for i := range len(text) {
		c := text[i]
		plain := 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '.' && i > 0
		if !plain || i == 0 && escapeFirst {
			fmt.Fprintf(&name, "%%%02x", c)
			continue
		}
		name.WriteByte(c)
	}
	return name.String()
}

// devices are names that some systems reserve for devices, with any extension.
var devices = []string{"con", "prn", "aux", "nul"}

func isDevice(text string) bool {
	base, _, _ := strings.Cut(text, ".")
	return slices.Contains(devices, base) || len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt")
}
