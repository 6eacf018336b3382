package abi

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// maxFileName is how long a file name made of an id may be, without an ending:
// file systems allow 255 bytes.
const maxFileName = 200

// FileName returns a name for a file about the chunk, without an ending. It has
// no separators, is not hidden and no device's, and no other id has it, also
// where a file system takes capitals for small letters.
//
// That of an integer is its digits. Of a text, small letters, digits, - and _
// are themselves, and so are dots but for the first byte; any other byte, and
// the first one of digits alone or of a device's name, is % and two hexadecimal
// digits. The empty text is a single %. Where the name would be longer than 200
// bytes, its end is %~ and the text's SHA-256 instead.
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

// devices are names that some systems take for devices, whatever ends them.
var devices = []string{"con", "prn", "aux", "nul"}

func isDevice(text string) bool {
	base, _, _ := strings.Cut(text, ".")
	return slices.Contains(devices, base) || len(base) == 4 && (base[:3] == "com" || base[:3] == "lpt")
}
