package sources

import (
	"errors"
	"strings"
	"testing"
)

// A file that grows or shrinks while it is read is refused: the size in its chunks
// would be wrong.
func TestChanged(t *testing.T) {
	for _, o := range []FilesOptions{{}, {Split: 2}, {Split: 2, AtLines: true}} {
		for _, content := range []string{"", "a\nb", "a\nb\nc\n"} {
			p := parts{file: &foundFile{name: "f"}, in: Input{Name: "f", Reader: strings.NewReader(content)}, size: 4, left: 4}
			var last error
			for _, err := range p.all(o) {
				last = err
			}
			if !errors.Is(last, ErrChanged) {
				t.Errorf("%+v, %q: %v", o, content, last)
			}
		}
	}
}
