package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host/chunks"
	"github.com/wasm-jobs/wasm-jobs/host/guest/check"
	"github.com/wasm-jobs/wasm-jobs/host/sources"
	"github.com/wasm-jobs/wasm-jobs/runtime"
)

func TestErrorsNameFlags(t *testing.T) {
	input := func(name string, h chunks.Hint, err error) error {
		return &chunks.InputError{Name: name, Position: -1, Offset: -1, Reason: "bad", Hint: h, Err: err}
	}
	ofSource := func(h chunks.Hint) error {
		return &sources.Error{Name: "f", Line: 2, Reason: "bad", Hint: h, Err: io.EOF}
	}
	refused := func(problem string, s runtime.Setting) error {
		return &runtime.RefusedError{Problems: []string{problem}, Setting: s}
	}
	for _, test := range []struct {
		name string
		err  error
		want string
	}{
		{"no hint", errors.New("MaxChunk sets the limit"), "MaxChunk sets the limit"},
		{"a format", input("f", chunks.HintFormat, nil), "f: bad; --chunk-format sequence makes each item of the file a chunk, --chunk-format array makes each element of the array a chunk"},
		{"a size", input("f", chunks.HintMaxChunk, nil), "f: bad; --max-chunk SIZE sets the limit"},
		{"JSON", input("f", chunks.HintJSON, nil), "f: bad; it looks like JSON: chunk files are CBOR, and --jsonl reads JSON"},
		{"a separator", ofSource(sources.HintComma), "f:2: bad; --delimiter sets the character between fields, such as ';' or tab"},
		{"an id", input("f", chunks.HintIDKey, nil), `f: bad; use --id-key NAME or --id-key ""`},
		{"a hint that names no option", input("f", "split the file", nil), "f: bad; split the file"},
		{"a name like a hint", input("MaxChunk sets the limit", chunks.HintMaxChunk, nil), "MaxChunk sets the limit: bad; --max-chunk SIZE sets the limit"},
		{"wrapped", usageErrorf("a: %w", input("f", chunks.HintMaxChunk, nil)), "a: f: bad; --max-chunk SIZE sets the limit"},
		{"joined", errors.Join(errors.New("a"), input("f", chunks.HintMaxChunk, nil)), "a\nf: bad; --max-chunk SIZE sets the limit"},
		{"a source", ofSource(chunks.HintMaxChunk), "f:2: bad; --max-chunk SIZE sets the limit"},
		{"parts", ofSource(sources.HintSplit), "f:2: bad; --max-chunk SIZE sets the limit, and --split SIZE cuts files"},
		{"smaller parts", ofSource(sources.HintSmallerSplit), "f:2: bad; --max-chunk SIZE sets the limit, and a smaller --split makes smaller parts"},
		{"bytes", ofSource(sources.HintBytes), "f:2: bad; --as bytes reads lines as byte strings"},
		{"a source of chunks", &chunks.InputError{Name: "f", Position: 1, Offset: -1, Reason: "cannot be made: " + ofSource(chunks.HintMaxChunk).Error(), Err: ofSource(chunks.HintMaxChunk)},
			"f: chunk 1: cannot be made: f:2: bad; --max-chunk SIZE sets the limit"},
		{"memory", refused("too much: Settings.Memory raises it", runtime.SettingMemory), "module refused: too much: --memory raises it"},
		{"arguments", fmt.Errorf("m.wasm: %w", refused("Settings.Command.Args is given", runtime.SettingArgs)), "m.wasm: module refused: --arg is given"},
		{"a module by itself", refused("import Settings.Memory", ""), "module refused: import Settings.Memory"},
		{"a failure", abi.Failf(abi.ClassABI, "too much, the limit: Settings.MaxOutput raises it"), "abi: too much, the limit: --max-output raises it"},
		{"deep calls", abi.Failf(abi.ClassTrap, "stack overflow"), "trap: stack overflow; --stack SIZE sets the limit of metered calls"},
		{"deep calls in setup", fmt.Errorf("setup failed: %w", abi.Failf(abi.ClassTrap, "stack overflow")), "setup failed: trap: stack overflow; --stack SIZE sets the limit of metered calls"},
		{"deep calls, said by a guest", abi.Failf(abi.ClassGuest, "stack overflow"), "guest: stack overflow"},
		{"a failure of the guest's making", abi.Failf(abi.ClassGuest, "the limit: Settings.MaxOutput raises it"), "guest: the limit: Settings.MaxOutput raises it"},
	} {
		if got := errorLine(test.err); got != test.want {
			t.Errorf("%s:\n got %s\nwant %s", test.name, got, test.want)
		}
	}
}

func TestReportsNameFlags(t *testing.T) {
	r := &check.Report{
		Description: &runtime.Description{Problems: []string{"too much: Settings.Memory raises it"}},
		Setting:     runtime.SettingMemory,
		Chunks: &check.Chunks{Failures: map[string]int{
			"abi: an integer: Settings.Command.Stdin cbor gives it any chunk, as CBOR": 2, "guest: a: b": 1}},
	}
	c := newCheckReport(&checkOptions{}, r)
	if got := c.Description.Problems[0]; got != "too much: --memory raises it" || r.Description.Problems[0] == got {
		t.Errorf("%q, of %q", got, r.Description.Problems)
	}
	want := map[string]int{"abi: an integer: --stdin cbor gives it any chunk, as CBOR": 2, "guest: a: b": 1}
	if !maps.Equal(c.Chunks.Failures, want) {
		t.Errorf("%v", c.Chunks.Failures)
	}
}
