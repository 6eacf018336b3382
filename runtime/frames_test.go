package runtime_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

// traps has four functions without names: alloc, exec, which calls the third,
// which calls the fourth, which is unreachable.
const traps = "" +
	"\x00asm\x01\x00\x00\x00\x01\x0f\x03`\x01\x7f\x01\x7f`\x02\x7f\x7f\x01~`\x00" +
	"\x00\x03\x05\x04\x00\x01\x02\x02\x05\x03\x01\x00\x01\x07\x19\x03\x06memory\x02" +
	"\x00\x05alloc\x00\x00\x04exec\x00\x01\x0a\x1a\x04\x05\x00A\x80\x08" +
	"\x0b\x06\x00\x10\x02B\x00\x0b\x07\x00\x10\x03A\x00\x1a\x0b\x03\x00\x00\x0b"

// recurses has alloc, exec, which calls f, and f, which calls itself.
const recurses = "" +
	"\x00asm\x01\x00\x00\x00\x01\x0f\x03`\x01\x7f\x01\x7f`\x02\x7f\x7f\x01~`\x00" +
	"\x00\x03\x04\x03\x00\x01\x02\x05\x03\x01\x00\x01\x07\x19\x03\x06memory\x02\x00" +
	"\x05alloc\x00\x00\x04exec\x00\x01\x0a\x16\x03\x05\x00A\x80\x08\x0b" +
	"\x06\x00\x10\x02B\x00\x0b\x07\x00\x10\x02A\x00\x1a\x0b\x00!\x04name\x01\x11" +
	"\x03\x00\x05alloc\x01\x04exec\x02\x01f\x02\x07\x03\x00\x00\x01\x00" +
	"\x02\x00"

// nameSection returns a custom section with the given subsections.
func nameSection(subsections ...string) string {
	contents := "\x04name" + strings.Join(subsections, "")
	return "\x00" + string(rune(len(contents))) + contents
}

// TestPartialNames checks that the frames of functions without a name have
// their index in the file, whatever other names the name section has.
func TestPartialNames(t *testing.T) {
	unnamed := []string{"$3()", "$2()", "$1(i32,i32) i64"}
	for name, c := range map[string]struct {
		section string
		want    []string
	}{
		"none":                   {"", unnamed},
		"the first function":     {nameSection("\x01\x08\x01\x00\x05alloc"), unnamed},
		"a function in between":  {nameSection("\x01\x06\x01\x02\x03mid"), []string{"$3()", "mid()", "$1(i32,i32) i64"}},
		"the last function":      {nameSection("\x01\x06\x01\x03\x03bad"), []string{"bad()", "$2()", "$1(i32,i32) i64"}},
		"no such function":       {nameSection("\x01\x06\x01\x09\x03bad"), unnamed},
		"out of order and twice": {nameSection("\x01\x0b\x02\x03\x03bad\x02\x03mid"), []string{"bad()", "mid()", "$1(i32,i32) i64"}},
		"an empty name":          {nameSection("\x01\x03\x01\x03\x00"), unnamed},
		"locals":                 {nameSection("\x02\x09\x01\x01\x02\x00\x01a\x01\x01b"), unnamed},
		"the module":             {nameSection("\x00\x02\x01m"), []string{"m.$3()", "m.$2()", "m.$1(i32,i32) i64"}},
	} {
		t.Run(name, func(t *testing.T) {
			checkFrames(t, traps+c.section, func(o runtime.Options, stack []string) bool {
				return slices.Equal(stack, c.want)
			}, c.want)
		})
	}
}

// TestInjectedFrames checks that a stack has only frames of the original
// module.
func TestInjectedFrames(t *testing.T) {
	unnamed, _, _ := strings.Cut(recurses, nameSection("\x01")[2:7])
	unnamed = unnamed[:len(unnamed)-2]
	for name, c := range map[string]struct{ wasm, frame string }{"named": {recurses, "f()"}, "without names": {unnamed, "$2()"}} {
		t.Run(name, func(t *testing.T) {
			checkFrames(t, c.wasm, func(o runtime.Options, stack []string) bool {
				if o.NoMetering { // the engine's own overflow has no frames
					return len(stack) > 0
				}
				return len(stack) > 2 && stack[0] == c.frame && stack[1] == c.frame
			}, []string{c.frame, c.frame, "..."})
		})
	}
}

// checkFrames calls exec, which must trap, with metering and without.
func checkFrames(t *testing.T, wasm string, ok func(runtime.Options, []string) bool, want []string) {
	t.Helper()
	r := newRuntime(t, runtime.Config{})
	for _, o := range []runtime.Options{{}, {NoMetering: true}} {
		m, err := r.Compile(t.Context(), []byte(wasm), o)
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = leased(t, m, runtime.Settings{}).Call(t.Context(), abi.ExportExec, []byte{0}, nil)
		failure, is := errors.AsType[*abi.Failure](err)
		if !is || !ok(o, failure.Stack) {
			t.Errorf("%+v: %v, %+v, want the stack %q", o, err, failure, want)
		}
	}
}
