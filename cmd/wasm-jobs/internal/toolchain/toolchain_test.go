package toolchain

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fake makes a directory with programs, and makes it the path.
func fake(t *testing.T, scripts map[string]string) {
	t.Helper()
	dir := t.TempDir()
	for name, script := range scripts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
}

func TestFind(t *testing.T) {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("no /bin/sh")
	}
	for _, tt := range []struct {
		name    string
		scripts map[string]string
		tool    tool
		state   State
		version string
		command string // the base of the path
	}{
		{"missing", nil, tool{commands: []string{"x"}}, Missing, "", "."},
		{"any version", map[string]string{"x": "echo x version 3"}, tool{commands: []string{"x"}}, OK, "3", "x"},
		{"no version", map[string]string{"x": "exit 1"}, tool{commands: []string{"x"}, minimum: "2"}, OK, "", "x"},
		{"new enough", map[string]string{"x": "echo go1.26.1"}, tool{commands: []string{"x"}, minimum: "1.26"}, OK, "1.26.1", "x"},
		{"too old", map[string]string{"x": "echo go1.9.7"}, tool{commands: []string{"x"}, minimum: "1.26"}, Old, "1.9.7", "x"},
		{"a later name is new enough", map[string]string{"x": "echo 14.0.6", "x-19": "echo Debian clang version 19.1.4"},
			tool{commands: []string{"x", "x-19"}, minimum: "15"}, OK, "19.1.4", "x-19"},
		{"much output", map[string]string{"x": "echo 3.1; while read -r l; do echo $l$l$l; done </proc/cpuinfo"}, tool{commands: []string{"x"}}, OK, "3.1", "x"},
		{"no target", map[string]string{"x": "echo /nowhere"}, tool{commands: []string{"x"}, works: hasWasmTarget}, Lacking, "", "x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fake(t, tt.scripts)
			tt.tool.install = map[string]string{"": "get x"}
			got := tt.tool.find(t.Context(), "debian")
			if got.State != tt.state || got.Version != tt.version || filepath.Base(got.Path) != tt.command {
				t.Errorf("%+v", got)
			}
			if (got.Install == "") != (tt.state == OK) {
				t.Errorf("install %q", got.Install)
			}
		})
	}
}

func TestSystemOf(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "ID=debian\n": "debian", "NAME=x\nID=ubuntu\nID_LIKE=debian\n": "debian", "ID=\"rhel\"\n": "fedora",
		"ID_LIKE=\"rhel fedora\"\nID=rocky\n": "fedora", "ID=linuxmint\nID_LIKE=\"ubuntu debian\"": "debian", "ID=nixos": "", "ID_LIKE=arch\nID=alpine": "alpine",
	} {
		if got := systemOf(strings.NewReader(text)); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// Each tool can be installed on each system.
func TestInstalls(t *testing.T) {
	if !slices.Equal(Languages(), []string{"assemblyscript", "c", "go", "rust", "zig"}) {
		t.Errorf("%q", Languages())
	}
	for language, tools := range languages() {
		for _, tool := range tools {
			if tool.install[""] == "" || tool.need == "" || len(tool.commands) == 0 || len(tool.version) == 0 {
				t.Errorf("%s: %+v", language, tool)
			}
		}
	}
}
