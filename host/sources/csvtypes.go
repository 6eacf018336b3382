package sources

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/notation"
)

// Type is the type of a column of CSV.
type Type uint8

// The types. A Uint has 64 bits; an Int is from -2^63 to 2^63-1; a Float is a
// decimal number that is a finite double; a Bool is true or false, also True, False,
// TRUE and FALSE.
const (
	Text Type = iota
	Uint
	Int
	Float
	Bool
)

var typeNames = []string{"text", "uint", "int", "float", "bool"}

// String returns the name of the type, as [ParseType] takes it.
func (t Type) String() string { return typeNames[t] }

// ParseType is the inverse of [Type.String].
func ParseType(s string) (Type, error) {
	for i, name := range typeNames {
		if s == name {
			return Type(i), nil
		}
	}
	return 0, fmt.Errorf("invalid type %.40q: want text, uint, int, float or bool", s)
}

const null = 0xf6

// append appends a field as a value of the type, and reports whether the field is valid.
func (t Type) append(dst, field []byte) ([]byte, bool) {
	switch t {
	case Uint:
		n, err := strconv.ParseUint(string(field), 10, 64)
		return abi.AppendHead(dst, abi.MajorUint, n), err == nil
	case Int:
		n, err := strconv.ParseInt(string(field), 10, 64)
		if n < 0 {
			return abi.AppendHead(dst, abi.MajorNegint, uint64(-(n + 1))), err == nil
		}
		return abi.AppendHead(dst, abi.MajorUint, uint64(n)), err == nil
	case Float:
		f, ok := parseFloat(field)
		return notation.AppendFloat(dst, f), ok
	case Bool:
		return appendBool(dst, string(field))
	}
	return append(abi.AppendHead(dst, abi.MajorText, uint64(len(field))), field...), true
}

// parseFloat accepts decimal numbers only: no NaN, no infinities, no hexadecimal digits.
func parseFloat(field []byte) (float64, bool) {
	if strings.Trim(string(field), "0123456789+-.eE") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(field), 64)
	return f, err == nil
}

func appendBool(dst []byte, field string) ([]byte, bool) {
	switch field {
	case "true", "True", "TRUE":
		return append(dst, 0xf5), true
	case "false", "False", "FALSE":
		return append(dst, 0xf4), true
	}
	return dst, false
}

// CSVTypes finds the type of each column over one or several inputs: the first of
// bool, uint, int, float and text that fits all its values. Empty fields fit every
// type. Numbers are texts if a type would lose digits: numbers with a leading zero or
// plus, -0, and integers that a double cannot represent.
type CSVTypes struct {
	fits map[string][]bool // by type; a column that has only empty fields fits all
	some map[string]bool   // the column has a value
}

// Add reads the records of an input, at most limit of them if that is not 0, and
// returns their number. The error is an *[Error].
func (t *CSVTypes) Add(in Input, o CSVOptions, limit int) (count int, err error) {
	if t.fits == nil {
		t.fits, t.some = map[string][]bool{}, map[string]bool{}
	}
	c := newCSVReader(in, o)
	o.Types = nil
	columns, err := c.header(o)
	if err != nil {
		return 0, err
	}
	fits := make([][]bool, len(columns))
	for i, column := range columns {
		if fits[i] = t.fits[column.name]; fits[i] == nil {
			fits[i] = []bool{true, true, true, true, true}
			t.fits[column.name] = fits[i]
		}
	}
	for ; limit == 0 || count < limit; count++ {
		if err := c.next(); err == io.EOF {
			break
		} else if err != nil {
			return count, err
		}
		t.record(c, columns, fits)
	}
	return count, nil
}

func (t *CSVTypes) record(c *csvReader, columns []column, fits [][]bool) {
	var buf [32]byte
	for i := range columns {
		field := c.field(columns[i].index)
		if len(field) == 0 {
			continue
		}
		t.some[columns[i].name] = true
		for as := Uint; as <= Bool; as++ {
			if fits[i][as] {
				_, ok := as.append(buf[:0], field)
				fits[i][as] = ok && (as == Bool || keepsDigits(field, as))
			}
		}
	}
}

// keepsDigits reports whether formatting a number again would give the same text.
func keepsDigits(field []byte, as Type) bool {
	digits := strings.TrimPrefix(string(field), "-")
	if digits == "" || digits[0] < '0' || digits[0] > '9' || len(digits) > 1 && digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9' {
		return false
	}
	if as != Float || strings.ContainsAny(digits, ".eE") {
		return as == Float || string(field) != "-0"
	}
	f, _ := parseFloat(field)
	return string(field) == strconv.FormatFloat(f, 'f', -1, 64)
}

// Types returns the types of the columns that are not texts.
func (t *CSVTypes) Types() map[string]Type {
	types := map[string]Type{}
	for name, fits := range t.fits {
		for _, as := range []Type{Bool, Uint, Int, Float} {
			if fits[as] && t.some[name] {
				types[name] = as
				break
			}
		}
	}
	return types
}
