package parquet

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"time"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"
	"github.com/x448/float16"

	"github.com/wasm-jobs/wasm-jobs/cmd/wasm-jobs/internal/typed"
)

// convert appends a value, as the plain encoding has it, as CBOR.
type convert = func(dst, value []byte) ([]byte, error)

// always is a conversion without error.
func always(f func(dst, value []byte) []byte) convert {
	return func(dst, value []byte) ([]byte, error) { return f(dst, value), nil }
}

// converter returns the conversion of the values of a column. An annotation that does
// not fit the type is an error.
func converter(e *format.SchemaElement) (convert, error) {
	if e.Type.V < format.Boolean || e.Type.V > format.FixedLenByteArray {
		return nil, fmt.Errorf("column %.64q: unknown type %d", e.Name, e.Type.V)
	}
	if e.Type.V == format.FixedLenByteArray && e.TypeLength.V < 1 {
		return nil, fmt.Errorf("column %.64q: invalid length %d", e.Name, e.TypeLength.V)
	}
	if c := logical(e); c != nil {
		return c, nil
	}
	if c := converted(e); c != nil && e.LogicalType.Value == nil {
		return c, nil
	}
	return physical(e), nil
}

func physical(e *format.SchemaElement) convert {
	switch e.Type.V {
	case format.Boolean:
		return always(func(dst, v []byte) []byte { return typed.Bool(dst, v[0] != 0) })
	case format.Int32, format.Int64:
		return always(func(dst, v []byte) []byte { return typed.Int(dst, signed(v)) })
	case format.Int96:
		return always(int96)
	case format.Float:
		return always(func(dst, v []byte) []byte {
			return typed.Float(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(v))))
		})
	case format.Double:
		return always(func(dst, v []byte) []byte {
			return typed.Float(dst, math.Float64frombits(binary.LittleEndian.Uint64(v)))
		})
	}
	return always(typed.Bytes)
}

// signed returns an integer of 4 or 8 bytes.
func signed(v []byte) int64 {
	if len(v) == 4 {
		return int64(int32(binary.LittleEndian.Uint32(v)))
	}
	return int64(binary.LittleEndian.Uint64(v))
}

// int96 appends a timestamp of old writers: nanoseconds of a Julian day.
func int96(dst, v []byte) []byte {
	const epoch = 2440588 // the Julian day of 1970-01-01
	days := int64(binary.LittleEndian.Uint32(v[8:])) - epoch
	t := time.Unix(days*24*60*60, 0).Add(time.Duration(binary.LittleEndian.Uint64(v)))
	return typed.Timestamp(dst, t.Unix()*1e6+int64(t.Nanosecond()/1e3), time.Microsecond, false)
}

// isInt reports whether the column has integers of some bits.
func isInt(e *format.SchemaElement, bits int) bool {
	return e.Type.V == format.Int32 && bits <= 32 || e.Type.V == format.Int64 && bits == 64
}

func isBytes(e *format.SchemaElement) bool {
	return e.Type.V == format.ByteArray || e.Type.V == format.FixedLenByteArray
}

// logical returns the conversion that the annotation of the column asks for, or nil.
func logical(e *format.SchemaElement) convert {
	switch t := e.LogicalType.Value.(type) {
	case *format.StringType, *format.EnumType, *format.JsonType:
		if isBytes(e) {
			return typed.Text
		}
	case *format.UUIDType:
		if e.Type.V == format.FixedLenByteArray && e.TypeLength.V == 16 {
			return always(typed.UUID)
		}
	case *format.Float16Type:
		if e.Type.V == format.FixedLenByteArray && e.TypeLength.V == 2 {
			return always(func(dst, v []byte) []byte {
				return typed.Float(dst, float64(float16.Frombits(binary.LittleEndian.Uint16(v)).Float32()))
			})
		}
	case *format.DecimalType:
		return decimal(e, int(t.Scale))
	case *format.DateType:
		return date(e)
	case *format.TimeType:
		return moment(e, &t.Unit, t.IsAdjustedToUTC, typed.Clock)
	case *format.TimestampType:
		return moment(e, &t.Unit, t.IsAdjustedToUTC, typed.Timestamp)
	case *format.IntType:
		return integer(e, int(t.BitWidth), t.IsSigned)
	}
	return nil
}

func date(e *format.SchemaElement) convert {
	if !isInt(e, 32) {
		return nil
	}
	return always(func(dst, v []byte) []byte { return typed.Date(dst, signed(v)) })
}

func moment(e *format.SchemaElement, unit *format.TimeUnit, utc bool, write func([]byte, int64, time.Duration, bool) []byte) convert {
	if unit.Value == nil || e.Type.V != format.Int64 && e.Type.V != format.Int32 {
		return nil
	}
	d := unit.Value.Duration()
	return always(func(dst, v []byte) []byte { return write(dst, signed(v), d, utc) })
}

func integer(e *format.SchemaElement, bits int, isSigned bool) convert {
	if isSigned || !isInt(e, bits) && !isInt(e, max(bits, 32)) {
		return nil // as the type of the column
	}
	return always(func(dst, v []byte) []byte {
		if len(v) == 4 {
			return typed.Uint(dst, uint64(binary.LittleEndian.Uint32(v)))
		}
		return typed.Uint(dst, binary.LittleEndian.Uint64(v))
	})
}

func decimal(e *format.SchemaElement, scale int) convert {
	switch e.Type.V {
	case format.Int32, format.Int64:
		return func(dst, v []byte) ([]byte, error) { return typed.Decimal(dst, big.NewInt(signed(v)), scale) }
	case format.ByteArray, format.FixedLenByteArray:
		return func(dst, v []byte) ([]byte, error) {
			if len(v) > maxDecimal {
				return dst, fmt.Errorf("invalid decimal of %d bytes: want at most %d", len(v), maxDecimal)
			}
			return typed.Decimal(dst, typed.BigEndian(v), scale)
		}
	}
	return nil
}

// maxDecimal is the limit of the bytes of a decimal: making a text of it takes more than
// linear time.
const maxDecimal = 1024

// converted returns the conversion that the annotation of an older writer asks for, or
// nil.
func converted(e *format.SchemaElement) convert {
	if !e.ConvertedType.Valid {
		return nil
	}
	switch c := e.ConvertedType.V; c {
	case deprecated.UTF8, deprecated.Enum, deprecated.Json:
		if isBytes(e) {
			return typed.Text
		}
	case deprecated.Decimal:
		return decimal(e, int(e.Scale.V))
	case deprecated.Date:
		return date(e)
	case deprecated.TimeMillis:
		return moment(e, millis, true, typed.Clock)
	case deprecated.TimeMicros:
		return moment(e, micros, true, typed.Clock)
	case deprecated.TimestampMillis:
		return moment(e, millis, true, typed.Timestamp)
	case deprecated.TimestampMicros:
		return moment(e, micros, true, typed.Timestamp)
	case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32:
		return integer(e, 32, false)
	case deprecated.Uint64:
		return integer(e, 64, false)
	case deprecated.Interval:
		if e.Type.V == format.FixedLenByteArray && e.TypeLength.V == 12 {
			return always(interval)
		}
	}
	return nil
}

var (
	millis = &format.TimeUnit{Value: new(format.MilliSeconds)}
	micros = &format.TimeUnit{Value: new(format.MicroSeconds)}
)

// interval appends a map of months, days and milliseconds.
func interval(dst, v []byte) []byte {
	return typed.Interval(dst, int64(binary.LittleEndian.Uint32(v)), int64(binary.LittleEndian.Uint32(v[4:])), int64(binary.LittleEndian.Uint32(v[8:]))*int64(time.Millisecond))
}
