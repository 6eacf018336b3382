package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/abi"
	"github.com/wasm-jobs/wasm-jobs/host"
	"github.com/wasm-jobs/wasm-jobs/host/verify"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/store/sqlite"
)

// Errors may contain file names and text from files. Their control characters must be
// escaped.
func TestErrorsArePrintable(t *testing.T) {
	for _, name := range []string{"\x1b[31mred", "a\rb", "bell\a", "c1 \u009b1m", "no UTF-8 \x9b1m", "tab\t"} {
		var out, err bytes.Buffer
		if code := Main(t.Context(), []string{"wasm-jobs", "verify-proof", name, "proof"}, strings.NewReader(""), &out, &err); code != exitRefused || out.Len() > 0 {
			t.Errorf("%q: exit code %d, output %q", name, code, out.String())
		}
		line := strings.TrimSuffix(err.String(), "\n")
		if line != printable(line) || strings.Contains(line, name) || !strings.Contains(line, `\`) {
			t.Errorf("%q: error %q", name, line)
		}
	}
}

// Control characters in the names of a module must be escaped too.
func TestTablesArePrintable(t *testing.T) {
	name := "\x1b[31m%d\t\n"
	wasm := []byte("\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00\x03\x02\x01\x00")
	wasm = append(wasm, 7, byte(4+len(name)), 1, byte(len(name)))
	wasm = append(append(wasm, name...), 0, 0, 10, 4, 1, 2, 0, 11)
	file := filepath.Join(t.TempDir(), "module.wasm")
	if err := os.WriteFile(file, wasm, 0o600); err != nil {
		t.Fatal(err)
	}
	var out, err bytes.Buffer
	if code := Main(t.Context(), []string{"wasm-jobs", "inspect", file}, strings.NewReader(""), &out, &err); code != exitRefused {
		t.Fatalf("exit code %d: %s", code, err.String())
	}
	if want := `\x1b[31m%d\t\n  func () -> ()` + "\n"; !strings.Contains(out.String(), "export     "+want) {
		t.Errorf("%q has no %q", out.String(), want)
	}
}

func TestJoinLines(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", ""},
		{"one", "one"},
		{"one\ntwo", "one; two"},
		{"results: the store failed\nthe store failed\nthe store failed", "results: the store failed"},
		{"the store failed\nresults: the store failed", "the store failed; results: the store failed"},
	} {
		if got := joinLines(tt.text); got != tt.want {
			t.Errorf("%q becomes %q, want %q", tt.text, got, tt.want)
		}
	}
}

// A failure of the host is not the guest's fault: it has the exit code of the store.
func TestExitCodeOfHostFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"no memory for code", &runtime.InitError{Step: "compile", Failure: abi.Failf(abi.ClassHost, "cannot allocate memory")}, exitStore},
		{"no memory for an instance", fmt.Errorf("m: %w", &runtime.InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassHost, "no memory")}), exitStore},
		{"no snapshot", &runtime.InitError{Step: "snapshot", Failure: abi.Failf(abi.ClassHost, "no memory")}, exitStore},
		{"the start function traps", &runtime.InitError{Step: "instantiate", Failure: abi.Failf(abi.ClassTrap, "unreachable")}, exitFold},
		{"setup", &runtime.InitError{Step: "setup", Failure: abi.Failf(abi.ClassHost, "2000 calls")}, exitFold},
		{"a chunk of a receipt", fmt.Errorf("m: %w", &verify.HostError{ID: abi.IntID(1), Failure: abi.Failf(abi.ClassHost, "no memory")}), exitStore},
		{"a store of another program", &exitError{exitStore, &sqlite.ForeignError{Path: "x"}}, exitStore},
		{"the store waited for another process", &host.StoreError{Err: sqlite.ErrBusy}, exitStore},
		{"and a signal came", errors.Join(host.ErrInterrupted, &host.StoreError{Err: fmt.Errorf("put: %w", sqlite.ErrBusy)}), exitInterrupted},
		{"a signal came, and the store failed", errors.Join(host.ErrInterrupted, &host.StoreError{Err: errors.New("full")}), exitStore},
	} {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: exit code %d, want %d", tt.name, got, tt.want)
		}
	}
}

// TestVerbs checks that each verb can be made without the others.
func TestVerbs(t *testing.T) {
	all := newApp(&console{}, "").Commands
	if len(all) != len(makers()) {
		t.Errorf("%d verbs of %d", len(all), len(makers()))
	}
	for i, m := range makers() {
		if one := newApp(&console{}, m.name).Commands; len(one) != 1 || one[0].Name != m.name || all[i].Name != m.name || len(one[0].Flags) != len(all[i].Flags) {
			t.Errorf("%s: %d verbs, the first is %s; %s among all", m.name, len(one), one[0].Name, all[i].Name)
		}
	}
}
