package sources_test

import (
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/wasm-jobs/wasm-jobs/host/sources"
)

func TestTypes(t *testing.T) {
	types := map[string]sources.Type{"u": sources.Uint, "i": sources.Int, "f": sources.Float, "b": sources.Bool}
	o := sources.CSVOptions{Types: types}
	check(t, sources.CSV(input("u,i,f,b,t\n7,-8,1,true,9\n,,,,\n18446744073709551615,-9223372036854775808,-2.5e1,FALSE,x", 0), o), []string{
		`{"u": 7, "i": -8, "f": 1.0, "b": true, "t": "9"}`, `{"u": null, "i": null, "f": null, "b": null, "t": ""}`,
		`{"u": 18446744073709551615, "i": -9223372036854775808, "f": -25.0, "b": false, "t": "x"}`}, "", nil)
	for in, want := range map[string]string{
		"u\n1\n-1\n":             `in:3: column "u": invalid uint "-1"`,
		"i\n9223372036854775808": `in:2: column "i": invalid int "9223372036854775808"`,
		"f\nNaN":                 `in:2: column "f": invalid float "NaN"`,
		"f\n0x1p4":               `in:2: column "f": invalid float "0x1p4"`,
		"f\n1e999":               `in:2: column "f": invalid float "1e999"`,
		"b\nyes":                 `in:2: column "b": invalid bool "yes"`,
		"u\n\"x\n" + strings.Repeat("y", 70) + "\"": `in:2: column "u": invalid uint "x\n` + strings.Repeat("y", 62) + `"`,
	} {
		name := in[:1]
		_, err := collect(t, sources.CSV(input(in, 0), sources.CSVOptions{Types: map[string]sources.Type{name: types[name]}}))
		checkError(t, err, want, sources.ErrMalformed)
	}
	_, err := collect(t, sources.CSV(input("a,b\n", 0), o))
	checkError(t, err, `in:1: missing column "f"`, sources.ErrMalformed)
}

func TestColumnsAndQuotes(t *testing.T) {
	check(t, sources.CSV(input("a,b,c\n1,2,3\n", 0), sources.CSVOptions{Columns: []string{"c", "a"}}), []string{`{"a": "1", "c": "3"}`}, "", nil)
	_, err := collect(t, sources.CSV(input("a\n1\n", 0), sources.CSVOptions{Columns: []string{"a", "x"}}))
	checkError(t, err, `in:1: missing column "x"`, sources.ErrMalformed)
	o := sources.CSVOptions{Comma: '\t', NoQuotes: true}
	check(t, sources.CSV(input("a\tb\n\"x\ty\"z\n\"\t,\n", 0), o), []string{`{"a": "\"x", "b": "y\"z"}`, `{"a": "\"", "b": ","}`}, "", nil)
}

func TestCSVTypes(t *testing.T) {
	var found sources.CSVTypes
	for _, in := range []string{"u,i,f,b,t,zip,long,none\n1,0,1,true,a,01,18446744073709551616,\n", "i,f\n-1,0.5\n,\n"} {
		if _, err := found.Add(input(in, 0), sources.CSVOptions{}, 0); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]sources.Type{"u": sources.Uint, "i": sources.Int, "f": sources.Float, "b": sources.Bool}
	if got := found.Types(); !maps.Equal(got, want) {
		t.Errorf("types %v, want %v", got, want)
	}
}

// Typed CSV agrees with a model, which reads each value as a text and takes the first
// type that fits.
func FuzzCSVTypes(f *testing.F) {
	for _, s := range []string{"", "1", "-1", "-0", "01", "1.5", "1e3", "true", "x", "18446744073709551616", "+1"} {
		f.Add(s, "2")
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		var file bytes.Buffer
		w := sources.NewCSVWriter(&file)
		for _, record := range []string{"v", a, b} {
			if w.Write([]string{record}) != nil {
				return
			}
		}
		w.Flush()
		var found sources.CSVTypes
		if _, err := found.Add(sources.Input{Reader: bytes.NewReader(file.Bytes())}, sources.CSVOptions{}, 0); err != nil {
			t.Fatal(err)
		}
		o := sources.CSVOptions{Types: found.Types(), Found: true}
		values := []string{a, b}
		for item, err := range sources.CSV(sources.Input{Reader: bytes.NewReader(file.Bytes())}, o) {
			var got map[string]any
			if err != nil || cbor.Unmarshal(item, &got) != nil {
				t.Fatalf("%q: %x, error %v", values, item, err)
			}
			text, isText := got["v"].(string)
			switch {
			case values[0] == "" && got["v"] != nil, isText && text != values[0], values[0] != "" && got["v"] == nil:
				t.Fatalf("%q is %v", values[0], got["v"])
			}
			values = values[1:]
		}
		if len(values) > 0 {
			t.Fatalf("%q are missing", values)
		}
	})
}
