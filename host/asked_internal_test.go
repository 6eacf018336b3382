package host

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"github.com/wasm-jobs/wasm-jobs/host/spec"
	"github.com/wasm-jobs/wasm-jobs/runtime"
	"github.com/wasm-jobs/wasm-jobs/runtime/wasi"
)

// TestActionsStay checks that the keys of outputs are still those in existing
// stores. A key that changes loses all finished work.
func TestActionsStay(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("content\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tree, err := wasi.ReadTree(t.Context(), dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		module   string // file content
		options  runtime.Options
		settings runtime.Settings
		want     string
	}{
		{"nothing set", "", runtime.Options{}, runtime.Settings{}, "e3ac924ab9d5eb72ec6e0815c51f590a5917b4ee4c2e7a730c92a0cf6cd81c92"},
		{"a module", "module", runtime.Options{}, runtime.Settings{}, "5ddf685204e2ce0c76c67cc5306e4adc986901fc1b87714851b3c023ef2d5a70"},
		{"the seed", "", runtime.Options{}, runtime.Settings{Seed: 1<<64 - 1}, "fb166c4827a4125cf8e43edf39ca323418b0015d99e720ebb16eb05cb720d310"},
		{"the memory", "", runtime.Options{}, runtime.Settings{Memory: 1 << 20}, "b96324a55d6e584c4c5d0a8bb459350d414b8e7668a336bc5aa2e140a8579191"},
		{"the default stack", "", runtime.Options{}, runtime.Settings{Stack: runtime.DefaultStack}, "e3ac924ab9d5eb72ec6e0815c51f590a5917b4ee4c2e7a730c92a0cf6cd81c92"},
		{"another stack", "", runtime.Options{}, runtime.Settings{Stack: 1 << 20}, "6c4b3568a82519ddb6d8ab64b4a007d9af7b03924b9a86fdab250fe15c76e8f8"},
		{"a stack that is not counted", "", runtime.Options{NoMetering: true}, runtime.Settings{Stack: 1 << 20}, "b1dd21ecad3e43ad80a0ae2129bae6974711b249d9d0228c618ab28a549591ea"},
		{"native NaNs", "", runtime.Options{NativeNaNs: true}, runtime.Settings{}, "9be4bdae834239fb76823420edbe7ca77b4f717bcb50d364ac11150b2506d4f3"},
		{"no metering", "", runtime.Options{NoMetering: true}, runtime.Settings{}, "b1dd21ecad3e43ad80a0ae2129bae6974711b249d9d0228c618ab28a549591ea"},
		{"a context", "", runtime.Options{}, runtime.Settings{Context: []byte{0x83, 1, 2, 3}}, "77823490406c53057c3c13ce8cf559e6e91e292d146a9b519daeb3b96143badb"},
		{"a context of null", "", runtime.Options{}, runtime.Settings{Context: []byte{0xf6}}, "e3ac924ab9d5eb72ec6e0815c51f590a5917b4ee4c2e7a730c92a0cf6cd81c92"},
		{"limits that change no output", "", runtime.Options{}, runtime.Settings{Fuel: 7, Timeout: 1, FoldTimeout: 2, MaxOutput: 3, MaxAggregate: 4, Isolation: runtime.IsolationInstance}, "e3ac924ab9d5eb72ec6e0815c51f590a5917b4ee4c2e7a730c92a0cf6cd81c92"},
		{"a command of nothing", "", runtime.Options{}, runtime.Settings{Command: runtime.Command{Stdin: runtime.StdinRaw}}, "e3ac924ab9d5eb72ec6e0815c51f590a5917b4ee4c2e7a730c92a0cf6cd81c92"},
		{"arguments", "", runtime.Options{}, runtime.Settings{Command: runtime.Command{Args: []string{"", "a b", "\"\n\xff"}}}, "ee3fa8ce259f9f56831d1c0fcbccc15d24abdd8a925809f686c30194929acb12"},
		{"an environment", "", runtime.Options{}, runtime.Settings{Command: runtime.Command{Env: []string{"B=x, y", "A="}}}, "8c7a805a34fc656f0436a10711d5e174b14a4d4148eeae7487a0ca87749250bd"},
		{"standard input", "", runtime.Options{}, runtime.Settings{Command: runtime.Command{Stdin: runtime.StdinCBOR}}, "87b1deb41bc908cfb8b720cb283bc46f44c614bd0ddcce21b422d92d5b2f9266"},
		{"directories", "", runtime.Options{}, runtime.Settings{Command: runtime.Command{Dirs: []wasi.Dir{{Guest: "/d", Tree: tree}, {Guest: "/é", Tree: tree}}}}, "9a11ae10e6455c7ba126a502eb60865ed8f6f027d27b544a070bfef06a2937af"},
		{"all of it", "module", runtime.Options{NativeNaNs: true, NoMetering: true}, runtime.Settings{
			Seed: 7, Memory: 1 << 30, Context: []byte{0x01},
			Command: runtime.Command{Args: []string{"x"}, Env: []string{"K=V"}, Stdin: runtime.StdinCBOR, Dirs: []wasi.Dir{{Guest: "/d", Tree: tree}}},
		}, "cba4284dc8528d88e3494cbb612f6def18298ba8f14d45d6a5a37c4e1f7b288c"},
	} {
		job := &Job{Options: c.options, Settings: c.settings}
		action := job.action(sha256.Sum256([]byte(c.module)), 0)
		if got := hex.EncodeToString(action[:]); got != c.want {
			t.Errorf("%s: key %s, want %s", c.name, got, c.want)
		}
	}
}

// TestDefaultStack compares the default stack in specs with the default in
// calls.
func TestDefaultStack(t *testing.T) {
	if spec.DefaultStack != runtime.DefaultStack {
		t.Errorf("the default is %d bytes in specs, but %d in calls", spec.DefaultStack, runtime.DefaultStack)
	}
}
