package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestTop(t *testing.T) {
	for _, tt := range []struct {
		name, stdin string
		args        []string
		code        int
		want        string
	}{
		{"no words", "\xa0", []string{"-"}, 0, ""},
		{"by count, then by word", "\xa4\x61a\x05\x62zz\x18\x64\x61c\x18\x64\x61b\x01", []string{"-"}, 0, "100  c\n100  zz\n  5  a\n  1  b\n"},
		{"only so many", "\xa2\x61a\x05\x61b\x06", []string{"-n", "1", "-"}, 0, "6  b\n"},
		{"not a word count", "\x01", []string{"-"}, 1, ""},
		{"no file", "", nil, 2, ""},
		{"a bad number", "", []string{"-n", "-1", "-"}, 2, ""},
		{"a missing file", "", []string{"none.cbor"}, 1, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(tt.args, strings.NewReader(tt.stdin), &stdout, &stderr)
			if code != tt.code || stdout.String() != tt.want || (code == 0) != (stderr.Len() == 0) {
				t.Errorf("exit code %d, got %q, %q", code, stdout.String(), stderr.String())
			}
		})
	}
}
