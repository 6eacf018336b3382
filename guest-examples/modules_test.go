package guestexamples_test

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
)

// The valid modules of testdata/wasm do what their comments say.
func TestModules(t *testing.T) {
	big := append(abi.AppendHead(nil, abi.MajorBytes, 100_000), make([]byte, 100_000)...)
	for _, tt := range []struct {
		module, export string
		input          []byte
		want           []byte
		fails          string // part of the error
	}{
		{"echo", "exec", []byte{1}, []byte{1}, ""},
		{"echo", "exec", big, big, ""},
		{"echo-aggregate", "aggregate", entries([]byte{5}, []byte{6}), unhex(t, "82 820005 820106"), ""},
		{"echo-merge", "aggregate", entries(), unhex(t, "1b 0000000000000000"), ""},
		{"echo-merge", "aggregate", entries(make([][]byte, 300)...), unhex(t, "1b 000000000000012c"), ""},
		{"echo-merge", "merge", array(unhex(t, "1b 000000000000012c"), unhex(t, "1b 0000000100000001"), []byte{2}), unhex(t, "1b 000000010000012f"), ""},
		{"alloc-zero", "exec", []byte{1}, nil, "alloc: 1 bytes at 0"},
		{"setup-fails", "setup", abi.Null, nil, "no such context"},
		{"initialize-traps", "exec", []byte{1}, nil, "unreachable"},
		{"aggregate-traps", "exec", []byte{1}, []byte{1}, ""},
		{"aggregate-traps", "aggregate", entries(), nil, "unreachable"},
		{"aggregate-loops", "exec", []byte{1}, []byte{1}, ""},
	} {
		g := loadFile(t, filepath.Join("../testdata/wasm", tt.module+".wasm"))
		got, err := g.run(t.Context(), &call{}, tt.export, tt.input)
		if !bytes.Equal(got, tt.want) || (err == nil) != (tt.fails == "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
			t.Errorf("%s: %s of %.20x: got %.100x, %v; want %.100x, %q", tt.module, tt.export, tt.input, got, err, tt.want, tt.fails)
		}
	}
}

func TestContext(t *testing.T) {
	g := loadFile(t, "../testdata/wasm/context.wasm")
	ctx := context.WithValue(t.Context(), callKey{}, &call{})
	instance, err := g.instantiate(ctx, &call{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(ctx, instance, "setup", unhex(t, "820102")); err != nil {
		t.Fatal(err)
	}
	for _, chunk := range []string{"00", "8403040506"} {
		if got, err := invoke(ctx, instance, "exec", unhex(t, chunk)); err != nil || !bytes.Equal(got, unhex(t, "820102")) {
			t.Errorf("got %x, %v", got, err)
		}
	}
}

func TestCommand(t *testing.T) {
	g := loadFile(t, "../testdata/wasm/command.wasm")
	c := &call{}
	instance, err := g.instantiate(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := instance.ExportedFunction("_start").Call(t.Context()); err != nil || c.stdout.String() != "hello\n" {
		t.Errorf("printed %q, %v", c.stdout.String(), err)
	}
}

// Anything that runs on an instance after dirty sees its changes.
func TestDirtyIsSeen(t *testing.T) {
	g := loadFile(t, "faulty/c/faulty.wasm")
	c := &call{}
	ctx := context.WithValue(t.Context(), callKey{}, c)
	instance, err := g.instantiate(ctx, c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := invoke(ctx, instance, "exec", encode(t, m{"do": "dirty"})); err != nil {
		t.Fatal(err)
	}
	if got, err := invoke(ctx, instance, "exec", encode(t, m{"do": "counter"})); err == nil && bytes.Equal(got, []byte{1}) {
		t.Error("the next call on the same instance saw fresh state")
	}
}
