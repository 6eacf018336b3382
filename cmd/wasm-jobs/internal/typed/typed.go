// Package typed writes the values of typed columns as CBOR (RFC 8949), each in one way
// whatever the format of the file: numbers, truth values, texts and byte strings as
// themselves; dates, times, timestamps, decimals and UUIDs as texts that state them
// exactly.
package typed

import (
	"encoding/hex"
	"errors"
	"math/big"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// Errors of values.
var (
	ErrNotUTF8 = errors.New("invalid text: not UTF-8")
	ErrScale   = errors.New("invalid decimal: want a scale of at most 1,000 digits")
)

// Null is the CBOR of null.
const Null = 0xf6

// Int appends an integer.
func Int(dst []byte, n int64) []byte {
	if n < 0 {
		return abi.AppendHead(dst, abi.MajorNegint, uint64(-(n + 1)))
	}
	return abi.AppendHead(dst, abi.MajorUint, uint64(n))
}

// Uint appends an integer.
func Uint(dst []byte, n uint64) []byte { return abi.AppendHead(dst, abi.MajorUint, n) }

// Float appends the shortest float that has the value of f.
func Float(dst []byte, f float64) []byte { return notation.AppendFloat(dst, f) }

// Bool appends a truth value.
func Bool(dst []byte, b bool) []byte {
	if b {
		return append(dst, 0xf5)
	}
	return append(dst, 0xf4)
}

// Bytes appends a byte string.
func Bytes(dst, b []byte) []byte {
	return append(abi.AppendHead(dst, abi.MajorBytes, uint64(len(b))), b...)
}

// Text appends a text, or returns [ErrNotUTF8].
func Text(dst, b []byte) ([]byte, error) {
	if !utf8.Valid(b) {
		return dst, ErrNotUTF8
	}
	return append(abi.AppendHead(dst, abi.MajorText, uint64(len(b))), b...), nil
}

// Date appends a day as YYYY-MM-DD; days count from 1970-01-01.
func Date(dst []byte, days int64) []byte {
	return abi.AppendText(dst, time.Unix(0, 0).UTC().AddDate(0, 0, int(days)).Format("2006-01-02"))
}

// Clock appends a time of day as HH:MM:SS with as many digits of the fraction as are
// not zero; n counts the unit from midnight. A time in UTC ends with Z.
func Clock(dst []byte, n int64, unit time.Duration, utc bool) []byte {
	return abi.AppendText(dst, at(n, unit).Format("15:04:05.999999999")+zone(utc))
}

// Timestamp appends an instant as in RFC 3339; n counts the unit from 1970. One that
// is not in UTC, but in a zone that only its writer knows, has no Z at the end.
func Timestamp(dst []byte, n int64, unit time.Duration, utc bool) []byte {
	return abi.AppendText(dst, at(n, unit).Format("2006-01-02T15:04:05.999999999")+zone(utc))
}

func zone(utc bool) string {
	if utc {
		return "Z"
	}
	return ""
}

// at returns the instant n units after 1970. Such a product may not fit in 64 bits.
func at(n int64, unit time.Duration) time.Time {
	perSecond := int64(time.Second / unit)
	seconds, rest := n/perSecond, n%perSecond
	return time.Unix(seconds, rest*int64(unit)).UTC()
}

// maxScale is the limit of digits after the point.
const maxScale = 1000

// Decimal appends unscaled / 10^scale with exactly scale digits after the point.
func Decimal(dst []byte, unscaled *big.Int, scale int) ([]byte, error) {
	if scale > maxScale || scale < -maxScale {
		return dst, ErrScale
	}
	digits, sign := new(big.Int).Abs(unscaled).String(), ""
	if unscaled.Sign() < 0 {
		sign = "-"
	}
	switch {
	case scale < 0 && unscaled.Sign() != 0:
		digits += strings.Repeat("0", -scale)
	case scale > 0:
		if missing := scale + 1 - len(digits); missing > 0 {
			digits = strings.Repeat("0", missing) + digits
		}
		digits = digits[:len(digits)-scale] + "." + digits[len(digits)-scale:]
	}
	return abi.AppendText(dst, sign+digits), nil
}

// BigEndian returns the value of a number in two's complement.
func BigEndian(b []byte) *big.Int {
	n := new(big.Int).SetBytes(b)
	if len(b) > 0 && b[0]&0x80 != 0 {
		n.Sub(n, new(big.Int).Lsh(big.NewInt(1), uint(8*len(b))))
	}
	return n
}

// UUID appends the 16 bytes of a UUID as a text (RFC 9562).
func UUID(dst, b []byte) []byte {
	h := hex.EncodeToString(b)
	return abi.AppendText(dst, h[:8]+"-"+h[8:12]+"-"+h[12:16]+"-"+h[16:20]+"-"+h[20:])
}

// Interval appends a map of months, days and nanoseconds, none of which has a fixed
// length in the others.
func Interval(dst []byte, months, days, nanoseconds int64) []byte {
	dst = abi.AppendHead(dst, abi.MajorMap, 3)
	dst = Int(abi.AppendText(dst, "months"), months)
	dst = Int(abi.AppendText(dst, "days"), days)
	return Int(abi.AppendText(dst, "nanoseconds"), nanoseconds)
}
