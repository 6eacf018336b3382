package abi_test

import (
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// The file name of an id stays in its directory, is short enough, and belongs to
// no other id, even if case is ignored.
func FuzzFileName(f *testing.F) {
	for _, s := range []string{"", "7", "a", "A", "..", "../x", "a/b", `a\b`, "con", "con.txt", "com1", ".hidden", "%41", "ü", "u\u0308", "\x00", strings.Repeat("x", 300), strings.Repeat("X", 70), "x.cbor"} {
		f.Add(s, strings.ToLower(s), uint64(7))
	}
	f.Fuzz(func(t *testing.T, a, b string, n uint64) {
		ids := []abi.ID{abi.IntID(n)}
		for _, text := range []string{a, b, fmt.Sprint(n), abi.TextID(a).FileName()} {
			if len(text) <= 64<<10 {
				ids = append(ids, abi.TextID(strings.ToValidUTF8(text, "?")))
			}
		}
		for _, id := range ids {
			name := id.FileName()
			if !filepath.IsLocal(name) || filepath.Base(name) != name || strings.ContainsAny(name, `/\:*?"<>|`) || len(name) > 200 || name[0] == '.' || strings.ToLower(name) != name {
				t.Errorf("%v has the file name %q", id, name)
			}
			if text, isText := id.Text(); isText && text != "" && !strings.Contains(name, "%~") {
				if back, err := url.PathUnescape(name); err != nil || back != text {
					t.Errorf("%v has the file name %q, which stands for %q (%v)", id, name, back, err)
				}
			}
			for _, other := range ids {
				if id != other && name == other.FileName() {
					t.Errorf("%v and %v have the file name %q", id, other, name)
				}
			}
		}
	})
}

func TestFileName(t *testing.T) {
	for want, id := range map[string]abi.ID{
		"7": abi.IntID(7), "%37": abi.TextID("7"), "%": abi.TextID(""), "%2e.%2f..%2fx": abi.TextID("../../x"), "a.b-c_d": abi.TextID("a.b-c_d"),
		"%41": abi.TextID("A"), "%63on": abi.TextID("con"), "%63om1.txt": abi.TextID("com1.txt"), "console": abi.TextID("console"), "%c3%bc": abi.TextID("ü"),
		strings.Repeat("x", 134) + "%~0d4e2ca9e9cbced7a7a5380eb29e1a3783b9b6d0db72de36a1051038e1c1fbc7": abi.TextID(strings.Repeat("x", 300)),
	} {
		if got := id.FileName(); got != want {
			t.Errorf("%v has the file name %q, want %q", id, got, want)
		}
	}
}
